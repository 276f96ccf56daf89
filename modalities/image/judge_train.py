"""Trains the judge that names objects: the packs' pictures against the text vectors of their names.

`python -m modalities.image.judge_train --recipe FILE --data DIR --out DIR`. A step's examples follow from its
number, so a run that was killed goes on from its checkpoint to the same weights.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from modalities.image.compose import Item, held_out, load, sprite
from modalities.image.judge import REFERENCE, real_scenes, reference
from modalities.image.measure import name_vectors, namer
from modalities.image.prompts import OBJECTS, stills
from suite import storage
from suite.cli import Parser
from suite.nn import NETWORKS
from suite.text import TextEncoder
from suite.text import load as load_text
from suite.train import State

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIDE = 64
SOURCES = ("3d emoji", "flat emoji", "flat icon", "product photo", "product render")


def pictures(data: Path) -> tuple[list[Item], list[Item]]:
    """What the judge learns from, and what it is tested on.

    It is tested on one picture that is not 3d of every name the evaluation asks for and of a third of the
    others, if they have three or more. Left out are names that no still or photo has or that only skin tone
    tells apart, and views of an object beyond the third.
    """
    by_name: dict[str, list[Item]] = defaultdict(list)
    views: dict[tuple[str, str], int] = defaultdict(int)
    for item in load(data):
        views[item.name, item.style] += 1
        toned = re.search(r" (light|medium|dark)( |$)| tone", item.name)
        if item.style in SOURCES and views[item.name, item.style] <= 3 and not toned:
            by_name[item.name].append(item)
    learnt, tested = [], []
    for name, items in by_name.items():
        if not {"3d emoji", "product photo"} & {i.style for i in items}:
            continue
        others = [i for i in items if i.style != "3d emoji"]
        chosen = name in OBJECTS or held_out("judge", name, share=1 / 3)
        out = others[-1] if len(items) >= 3 and others and chosen else None
        learnt += [i for i in items if i is not out]
        tested += [out] if out else []
    return learnt, tested


def cut_outs(items: Sequence[Item]) -> Tensor:
    """(N, 4, SIDE, SIDE) uint8 RGBA, each object in the middle of its square."""
    found = np.zeros((len(items), SIDE, SIDE, 4), np.uint8)
    for square, item in zip(found, items, strict=True):
        cut = np.asarray(sprite(item.path, SIDE))
        top, left = (SIDE - cut.shape[0]) // 2, (SIDE - cut.shape[1]) // 2
        square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return torch.from_numpy(found).movedim(-1, 1)


def augmented(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Scaled, shifted, mirrored, turned in hue, shaded, set on a ground and blurred a little.

    Args:
        rgba: (B, 4, S, S) uint8.
        generator: on the CPU.

    Returns: (B, 3, S, S) in [-1, 1].
    """
    count = len(rgba)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    colour, alpha = rgba[:, :3].float() / 255, rgba[:, 3:].float() / 255
    scale, turn, mirror = 1 / draw(0.72, 1.04), draw(-0.1, 0.1), draw(-1, 1).sign()
    rows = [scale * turn.cos() * mirror, -scale * turn.sin(), draw(-0.15, 0.15),
            scale * turn.sin() * mirror, scale * turn.cos(), draw(-0.15, 0.15)]  # fmt: skip
    grid = F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(rgba.shape), align_corners=False)
    drawn = F.grid_sample(torch.cat([colour * alpha, alpha], 1), grid, align_corners=False)
    colour, alpha = drawn[:, :3], drawn[:, 3:]

    # Turning the hue is turning the colour about the grey axis (Rodrigues); paint turns it far.
    angle = torch.where(draw(0, 1) < 0.4, draw(-math.pi, math.pi), draw(-0.1, 0.1))[:, None, None]
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    turned = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) / 3
    grey = torch.where(draw(0, 1) < 0.1, 1.0, draw(0, 0.2))[:, None, None]
    turned = (1 - grey) * turned + grey / 3
    shade = torch.where(draw(0, 1) < 0.1, draw(0.25, 0.6), draw(0.85, 1.15))[:, None, None]
    colour = torch.einsum("bij,bjhw->bihw", shade * turned, colour)
    ground = torch.where(draw(0, 1)[:, None] < 0.6, 1.0, torch.rand(count, 3, generator=generator))
    x = (colour + (1 - alpha) * ground[..., None, None]).clamp(0, 1)
    soft = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = torch.lerp(x, soft, draw(-0.7, 1).clamp(0)[:, None, None, None])
    return (x + 0.03 * draw(0, 1)[:, None, None, None] * torch.randn(x.shape, generator=generator)) * 2 - 1


def plain(rgba: Tensor) -> Tensor:
    """(B, 4, S, S) uint8 on white, (B, 3, S, S) in [-1, 1]."""
    alpha = rgba[:, 3:].float() / 255
    return (rgba[:, :3].float() / 255 * alpha + 1 - alpha) * 2 - 1


@torch.no_grad()
def accuracy(network: Any, items: Sequence[Item], text: TextEncoder, names: Sequence[str]) -> dict[str, Any]:
    """How often the right name of `names` is first, and among the first five, on pictures of those names."""
    asked = [item for item in items if item.name in set(names)]
    if not asked:
        return {"pictures": 0}
    truth = torch.tensor([list(names).index(item.name) for item in asked])
    told = name_vectors(text, names)
    logits = torch.cat([network.logits(plain(some), told) for some in cut_outs(asked).split(256)])
    best = logits.topk(min(5, len(names)), 1).indices
    hit = best == truth[:, None]
    return {"pictures": len(asked), "names": len(names), "top1": round(hit[:, 0].float().mean().item(), 3),
            "top5": round(hit.any(1).float().mean().item(), 3)}  # fmt: skip


def train(recipe: dict[str, Any], data: Path, out: Path) -> None:
    """Trains by a recipe and writes the model folder.

    Args:
        recipe: `[network]` and `[train]` of the recipe file.
        data: the packs.
        out: the model folder; its checkpoint is removed at the end.
    """
    options, told = dict(recipe["network"]), recipe["train"]
    stills(data)  # refuses what are no packs
    learnt, _ = pictures(data)
    names = sorted({item.name for item in learnt})
    text = load_text(recipe["text"])
    targets, rgba = name_vectors(text, names), cut_outs(learnt)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(learnt):
        rows[item.name].append(row)
    index = {name: i for i, name in enumerate(names)}
    asked = [name for name in OBJECTS if name in rows]

    kind = options.pop("type")
    torch.random.default_generator.manual_seed(told["seed"])
    network: Any = NETWORKS[kind](**options)
    network.centre.copy_(targets.mean(0))
    optimiser = torch.optim.AdamW(network.parameters(), told["rate"], weight_decay=told["decay"])
    state, checkpoint = State(network, optimiser), out / "checkpoint.safetensors"
    if checkpoint.is_file():
        state.load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    began, total, size = time.monotonic(), told["steps"], told["batch"]
    for step in range(state.step, total):
        rng = np.random.default_rng((told["seed"], step))
        drawn = [asked[i] for i in rng.integers(len(asked), size=round(size * told["asked"]))]
        drawn += [names[i] for i in rng.integers(len(names), size=size - len(drawn))]
        chosen = [rows[name][rng.integers(len(rows[name]))] for name in drawn]
        x = augmented(rgba[chosen], torch.Generator().manual_seed(told["seed"] * total + step))
        rate = told["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / total))
        for group in optimiser.param_groups:
            group["lr"] = rate
        truth = torch.tensor([index[name] for name in drawn])
        loss = F.cross_entropy(network.logits(x, targets), truth, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        state.step += 1
        if state.step % told["every"] == 0 or state.step == total:
            state.save(checkpoint)
            spent = time.monotonic() - began
            sys.stderr.write(f"step {state.step}/{total} loss {loss.item():.3f} {spent:.0f} s\n")
    network.eval()
    config = {
        "modality": "image", "kind": "judge", "text": recipe["text"],
        "network": {"type": kind, **network.config},
        "side": SIDE, "trained_on": {"pictures": len(learnt), "names": len(names)},
    }  # fmt: skip
    storage.save(out, network, config, torch.float16)
    checkpoint.unlink(missing_ok=True)


def record(out: Path, data: Path, count: int = 24) -> dict[str, Any]:
    """Measures a trained judge on held-out pictures and on real scenes, and writes that into its folder.

    Args:
        out: the model folder.
        data: the packs.
        count: real scenes of each kind of prompt.

    Returns: the config that was written.
    """
    real, (learnt, tested) = stills(data), pictures(data)
    judge, config = namer(OBJECTS, out)
    text = load_text(config["text"])
    every = sorted({item.name for item in learnt})
    config["held_out_pictures"] = {"all names": accuracy(judge.network, tested, text, every),
                                   "asked names": accuracy(judge.network, tested, text, OBJECTS)}  # fmt: skip
    config["real_scenes"] = real_scenes(judge, real, count)
    with storage.replacing(out / REFERENCE) as beside:
        found = reference(judge, real, count)
        save_file({key: rows.half() for key, rows in found.items()}, beside)
    storage.save(out, judge.network, config, torch.float16)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the judge as its recipe says."""
    parser = Parser(prog="python -m modalities.image.judge_train", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the packs")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--recipe", type=Path, help="a recipe.toml; none to measure again what --out holds")
    try:
        told = parser.parse_args(argv)
        if told.recipe:
            train(tomllib.loads(told.recipe.read_text("utf-8")), told.data, told.out)
        found = record(told.out, told.data)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
