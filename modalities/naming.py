"""Networks that name what a picture shows or a sound holds: asked, trained, compared with what is real.

Shapes: B batch, N names, D features.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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


def distances(
    far: Callable[[Tensor, Tensor], float], features: Tensor, real: Mapping[str, Tensor], splits: int = 20
) -> dict[str, float]:
    """A distance of what was drawn to real scenes, and what it is at best.

    Args:
        far: of two sets of features.
        features: (N, D) of what was drawn.
        real: `held out` (M, D), the scenes measured against; `asked` (L, D), real scenes of the prompts.
        splits: random draws of N of `asked` or of half of it, for its mean distance and standard deviation.
    """
    generator = torch.Generator().manual_seed(0)
    against, asked = real["held out"].float(), real["asked"].float()
    count, values = min(len(features), len(asked) // 2), []
    for _ in range(splits):
        order = torch.randperm(len(asked), generator=generator)
        values.append(far(asked[order[:count]], against))
    spread = torch.tensor(values)
    return {"of the model": far(features, against), "of real scenes": float(spread.mean()),
            "of real scenes, deviation": float(spread.std())}  # fmt: skip


class Namer:
    """The network that names things, and the names it chooses from."""

    def __init__(
        self, network: Any, text: TextEncoder, names: Sequence[str], tensor: Callable[[Sequence[Any]], Tensor]
    ) -> None:
        """Takes the network, the encoder of the names, the names, and what makes a batch of things."""
        self.network, self.names, self.tensor = network, list(names), tensor
        self.vectors = name_vectors(text, self.names)

    @torch.no_grad()
    def scores(self, things: Sequence[Any]) -> Tensor:
        """Log-probability (B, N) of each name for each thing."""
        if not things:
            return torch.zeros(0, len(self.names))
        found: Tensor = self.network.logits(self.tensor(things), self.vectors).log_softmax(-1)
        return found

    @torch.no_grad()
    def features(self, things: Sequence[Any]) -> Tensor:
        """(B, D), for the distance to real scenes."""
        found: Tensor = self.network.features(self.tensor(things))
        return found


def namer(
    model: str | Path, names: Sequence[str], tensor: Callable[[Sequence[Any]], Tensor]
) -> tuple[Namer, dict[str, Any]]:
    """A judge of these names, and its config."""
    network, config = storage.load(storage.find(model))
    if config.get("kind") != "judge":
        raise storage.ModelError(f"{model} is of kind {config.get('kind')!r}; it must be 'judge'")
    return Namer(network, load_text(config["text"]), names, tensor), config


def name_vectors(text: TextEncoder, names: Sequence[str]) -> Tensor:
    """Vectors (N, D) of names: the mean of their tokens."""
    cond = text.encode(list(names))
    kept = cond.mask[..., None].float()
    return (cond.tokens * kept).sum(1) / kept.sum(1)


def train(
    recipe: Mapping[str, Any],
    targets: Tensor,
    draw: Callable[[int], tuple[Tensor, Tensor]],
    out: Path,
    facts: Mapping[str, Any],
) -> None:
    """Trains a classifier and writes its folder; one that was killed goes on to the same weights.

    Args:
        recipe: `text`, `[network]` and `[train]` of the recipe file.
        targets: (N, D) vectors of the names.
        draw: a step's number to its examples (B, C, *S) and their names: numbers (B,), or shares (B, N).
        out: the model folder; its checkpoint is removed at the end.
        facts: what else its config says.
    """
    told, sizes = recipe["train"], dict(recipe["network"])
    torch.random.default_generator.manual_seed(told["seed"])
    network: Any = NETWORKS[sizes.pop("type")](**sizes)
    network.centre.copy_(targets.mean(0))
    optimiser = torch.optim.AdamW(network.parameters(), told["rate"], weight_decay=told["decay"])
    state, checkpoint = State(network, optimiser), out / "checkpoint.safetensors"
    if checkpoint.is_file():
        state.load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    began, total = time.monotonic(), told["steps"]
    for step in range(state.step, total):
        x, truth = draw(step)
        rate = told["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / total))
        for group in optimiser.param_groups:
            group["lr"] = rate
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
    built = {"type": recipe["network"]["type"], **network.config}
    config = {"kind": "judge", "text": recipe["text"], "network": built, **facts}
    storage.save(out, network, config, torch.float16)
    checkpoint.unlink(missing_ok=True)


def command(
    prog: str,
    description: str,
    train: Callable[[dict[str, Any], Path, Path], None],
    record: Callable[[Path, Path], dict[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a judge's training as its options say, and measures what came of it; returns the exit code."""
    parser = Parser(prog=prog, description=description.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the packs")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--recipe", type=Path, help="a recipe.toml; none to measure again what --out holds")
    try:
        asked = parser.parse_args(argv)
        if asked.recipe:
            train(tomllib.loads(asked.recipe.read_text("utf-8")), asked.data, asked.out)
        found = record(asked.out, asked.data)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(json.dumps(found, indent=1) + "\n")
    return 0
