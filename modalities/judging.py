"""What the judges of every medium share: verdicts and their table, a network that names things, its training.

Shapes: B batch, N names, D features.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suite import storage
from suite.text import TextEncoder
from suite.text import load as load_text
from suite.train import State

SHARES = ("right", "named", "seen")


@dataclass(frozen=True)
class Verdict:
    """What was drawn as asked.

    Attributes:
        named: the judge names everything as asked.
        seen: what is measured without names can be as asked.
        right: the very things named are as asked.
    """

    named: bool
    seen: bool
    right: bool


def scores(kinds: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """For each kind of prompt and for the kinds' mean: how many prompts, and the shares of `SHARES`."""
    table: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(kinds):
        those = [v for k, v in zip(kinds, verdicts, strict=True) if k == kind]
        shares = {what: mean([getattr(v, what) for v in those]) for what in SHARES}
        table[kind] = {"prompts": len(those), **shares}
    means = {what: mean([row[what] for row in table.values()]) for what in SHARES}
    return {**table, "mean": {"prompts": len(kinds), **means}}


def others(kinds: Sequence[str]) -> list[int]:
    """For each prompt the number of another of its kind, whose scene is right by chance alone."""
    found = []
    for i, kind in enumerate(kinds):
        group = [j for j, other in enumerate(kinds) if other == kind]
        found.append(group[(group.index(i) + 1) % len(group)])
    return found


def share(part: float, count: float) -> str:
    """A share of a number of prompts with its standard error.

    Source: Agresti and Coull 1998, The American Statistician 52(2): with two more right and two more wrong.
    """
    near = (part * count + 2) / (count + 4)
    return f"{part:.2f} ± {math.sqrt(near * (1 - near) / (count + 4)):.2f}"


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of none."""
    return sum(values) / len(values) if values else 0.0


def told(what: str, every: Sequence[Any]) -> Iterable[Any]:
    """The same, with progress on stderr."""
    for i, one in enumerate(every):
        if i * 10 // len(every) > (i - 1) * 10 // len(every):
            sys.stderr.write(f"{what} {i}/{len(every)}\n")
        yield one


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
    network: Any,
    targets: Tensor,
    draw: Callable[[int], tuple[Tensor, Tensor]],
    told: Mapping[str, Any],
    out: Path,
) -> None:
    """Trains a classifier in place; one that was killed goes on from its checkpoint to the same weights.

    Args:
        network: a `suite.nn.Classifier`.
        targets: (N, D) vectors of the names.
        draw: a step's number to its examples (B, C, *S) and their names: numbers (B,), or shares (B, N).
        told: `[train]` of the recipe.
        out: where the checkpoint is kept; the caller removes it when the weights are saved.
    """
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
