"""Trains the judge that names shapes: views of points of real shapes against the text vectors of their names.

`python -m modalities.mesh.judge_train --recipe FILE --data DIR --out DIR`. A step's examples follow from its
number, so a run that was killed goes on from its checkpoint to the same weights.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalities import naming
from modalities.image.colour import COLOURS
from modalities.judging import mean, told
from modalities.mesh.compose import MATERIALS, made_of, moved, tinted
from modalities.mesh.judge import looks, real_scenes
from modalities.mesh.measure import Cloud, namer, tensor
from modalities.mesh.prompts import NAMES, parted, prompts, real_shapes
from modalities.mesh.sample import Sampled, sampled
from modalities.mesh.shapes import Shape
from modalities.naming import Namer, name_vectors
from suite import storage
from suite.text import load as load_text

POINTS = 4096  # sampled once of each shape
FEW = 1024, 2049  # of them, of an example
SKEW = 0.06  # standard deviation of what turns, stretches and shears
ROUGH, BENT = 0.03, 0.03  # of points, at most: noise of each, and waves through all
SPECKS, TONED = 10.0, 30.0  # of colours in sRGB, likewise
TINTED, OF_MATERIAL = 0.3, 0.15  # shares of the examples


def pool(shapes: Sequence[Shape], points: int = POINTS) -> list[Sampled]:
    """Points of each shape, sampled once."""
    return [sampled(shape.path, np.random.default_rng(0), points) for shape in told("shapes", shapes)]


def varied(drawn: Sampled, rng: np.random.Generator) -> Cloud:
    """Some points of a shape as a model might make it: skewed, mirrored, painted, rough, bent, blotched."""
    way = np.eye(3) + rng.normal(0, SKEW, (3, 3))
    way[:, 0] *= rng.choice((-1, 1))
    made, kind = moved(drawn, way, rng, int(rng.integers(*FEW))), rng.random()
    painted = None
    if kind < TINTED:
        painted = tinted(made.colours, COLOURS[rng.integers(len(COLOURS))])
    elif kind < TINTED + OF_MATERIAL:
        painted = made_of(made.colours, tuple(MATERIALS)[rng.integers(len(MATERIALS))])
    waves = np.sin(made.points @ rng.normal(0, 3, (3, 6)) + rng.uniform(0, 2 * np.pi, 6))
    noise = rng.standard_normal(waves.shape)
    rough, bent, specks, toned = rng.random(4) * (ROUGH, BENT, SPECKS, TONED)
    points = made.points + rough * noise[:, :3] + bent * waves[:, :3]
    colours = (made.colours if painted is None else painted) + specks * noise[:, 3:] + toned * waves[:, 3:]
    return points.clip(-1, 1).astype(np.float32), colours.clip(0, 255).astype(np.uint8)


def train(recipe: dict[str, Any], data: Path, out: Path) -> None:
    """Trains by a recipe and writes the model folder.

    Args:
        recipe: `[network]` and `[train]` of the recipe file.
        data: the packs.
        out: the model folder; its checkpoint is removed at the end.
    """
    options, (shapes, _) = recipe["train"], parted(data)
    drawn = pool(shapes)
    of = np.array([NAMES.index(shape.name) for shape in shapes])
    count = Counter(of.tolist())
    weights = np.array([count[name] ** -0.5 for name in of.tolist()])

    def draw(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((options["seed"], step))
        rows = rng.choice(len(of), options["batch"], p=weights / weights.sum())
        return tensor([varied(drawn[row], rng) for row in rows]), torch.from_numpy(of[rows])

    facts = {"modality": "mesh", "trained_on": {"shapes": len(shapes), "names": len(count)}}
    naming.train(recipe, name_vectors(load_text(recipe["text"]), NAMES), draw, out, facts)


def accuracy(judge: Namer, clouds: Sequence[Cloud], names: Sequence[str]) -> dict[str, Any]:
    """How often the right name of all is first, and among the first five."""
    best = [look["names"] for look in looks(clouds, judge)]
    hits: Mapping[str, list[bool]] = {
        "top1": [name == of[0] for name, of in zip(names, best, strict=True)],
        "top5": [name in of for name, of in zip(names, best, strict=True)],
    }
    return {"shapes": len(clouds), "names": len(judge.names), "asked": len(set(names)),
            **{key: round(mean(hit), 3) for key, hit in hits.items()}}  # fmt: skip


def record(out: Path, data: Path, count: int = 24) -> dict[str, Any]:
    """Measures a trained judge on held-out and on other real shapes, and writes that into its folder.

    Args:
        out: the model folder.
        data: the packs.
        count: prompts of each kind.
    Returns: the config that was written.
    """
    _, kept = parted(data)
    judge, config = namer(NAMES, out)
    clouds = [(each.points, each.colours) for each in pool(kept, 2048)]
    config["held_out"] = accuracy(judge, clouds, [shape.name for shape in kept])
    asked = prompts(count)
    real = {i: (each.points, each.colours) for i, (_, each) in real_shapes(asked, data).items()}
    config["real_scenes"] = real_scenes(judge, asked, real)
    storage.save(out, judge.network, config, torch.float16)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the judge as its recipe says."""
    return naming.command("python -m modalities.mesh.judge_train", __doc__, train, record, argv)


if __name__ == "__main__":
    sys.exit(main())
