"""What the evaluations of every medium share: their options, verdicts and the table of them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from suite import storage
from suite.adapter import Adapter
from suite.cli import Parser, options
from suite.request import Request, explain

SHARES = ("right", "named", "seen")
REFERENCE = "reference.safetensors"  # features of real scenes, beside the judge's weights


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


def parser(adapter: Adapter, description: str, fixed: Sequence[str]) -> Parser:
    """The options of a medium's evaluation.

    Args:
        adapter: the medium.
        description: what the evaluation does.
        fixed: fields of the request that are no options.
    """
    medium = adapter.name
    parser = Parser(prog=f"suite eval {medium}", description=description)
    parser.add_argument("--count", type=int, default=16, help="prompts of each kind (default 16)")
    said = "of the prompts and of the first that is drawn (default 0)"
    parser.add_argument("--seed", type=int, default=0, help=said)
    said = f"the network that names things (default {medium}-judge)"
    parser.add_argument("--judge", default=f"{medium}-judge", help=said)
    parser.add_argument("--data", type=Path, help="the packs: measures the judge anew, on what is real")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure and verdict there")
    said = "write a PNG of 64 prompts; red captions are wrong"
    parser.add_argument("--sheet", type=Path, metavar="FILE", help=said)
    options(parser, adapter, fixed)
    return parser


def asked_for(given: argparse.Namespace, kind: type[Request], fixed: Sequence[str]) -> dict[str, Any]:
    """The request's fields that an evaluation was given.

    Args:
        given: the options, with `count`, `seed`, `data`, `json` and `sheet` among them.
        kind: the medium's request.
        fixed: its fields that are no options.
    Raises: ValueError, in one sentence, for what cannot be asked.
    """
    fields = {name: getattr(given, name) for name in kind.model_fields if name not in fixed and name in given}
    try:
        kind(prompt="a check", seed=given.seed, **fields)
    except ValidationError as error:
        raise ValueError(explain(error, kind.model_fields)) from None
    if not 1 <= given.count <= 500:
        raise ValueError(f"count is {given.count}; it must be 1 to 500")
    for name, path, suffix in (("json", given.json, ".json"), ("sheet", given.sheet, ".png")):
        if path and (path.suffix != suffix or not path.parent.is_dir()):
            raise ValueError(f"{name} is '{path}'; it must be a {suffix} file in a folder that exists")
    if given.data and not given.data.is_dir():
        raise ValueError(f"data is '{given.data}'; there is no such folder")
    return fields


def publish(report: Mapping[str, Any], shown: str, path: Path | None) -> None:
    """Prints what is shown of a report, and writes all of it as JSON if there is a path."""
    sys.stdout.write(shown)
    if path:
        with storage.replacing(path) as part:
            part.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


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
