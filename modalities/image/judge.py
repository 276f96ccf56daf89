"""`suite eval image`: draws prompts whose combinations training never showed, and judges what was drawn.

Pixels tell number, colour and place; a network trained on real pictures tells what an object is. Both are
judged themselves on real scenes of the same prompts, and on scenes of other prompts, which is chance.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from modalities.image import ImageRequest, adapter
from suite import storage
from suite.request import explain

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from modalities.image.measure import Namer
    from modalities.image.prompts import Prompt

Draw = Callable[..., "Image"]  # (prompt, **fields of the request) -> picture
Stills = Mapping[str, Sequence[Path]]
REFERENCE = "reference.safetensors"  # features of real scenes, beside the judge's weights
NEGATED = {  # objects of which at least half has this colour in the 3d picture they are learned from
    "cat": "orange", "cheese wedge": "yellow", "dolphin": "blue", "eggplant": "purple", "flamingo": "pink",
    "fox": "orange", "lemon": "yellow", "lobster": "red", "pretzel": "orange", "rose": "red",
    "strawberry": "red", "whale": "blue",
}  # fmt: skip
SURE = 0.5  # probability above which a name is told: 99 in 100 real scenes have it, blobs do not
SHARES = ("right", "named", "seen")
FIXED = ("prompt", "negative_prompt", "seed", "init", "strength", "mask", "num_images")


@dataclass(frozen=True)
class Verdict:
    """What was drawn as asked.

    Attributes:
        named: the judge names every object as asked.
        seen: by pixels alone, whatever the objects are, their number, colours and places can be as asked.
        right: the number is as asked, and the very objects named have the colours and places asked of them.
    """

    named: bool
    seen: bool
    right: bool


def verdict(prompt: Prompt, picture: Image, namer: Namer) -> Verdict:
    """Judges one picture; an object is named right if its name is likelier than all others together."""
    from modalities.image import measure

    parts = measure.parts(picture)[:8]
    if len(parts) < len(prompt.things):
        return Verdict(False, False, False)
    scores = namer.scores([measure.crop(picture, part, namer.side) for part in parts]).exp()
    wanted = [namer.names.index(name) for name, _ in prompt.things]
    number = len(parts) == len(wanted) * prompt.count
    if prompt.count > 1:
        named = float(scores[:, wanted[0]].mean()) > SURE
        return Verdict(named, number, named and number)
    asked = [colour for _, colour in prompt.things]
    shown = [measure.colour(picture, part) if any(asked) else None for part in parts]

    def likely(places: tuple[int, ...]) -> float:
        return sum(float(scores[place, name]) for place, name in zip(places, wanted, strict=True))

    def fits(places: tuple[int, ...]) -> bool:
        painted = all(c in (None, shown[place]) for c, place in zip(asked, places, strict=True))
        ends = [parts[place] for place in places]
        return painted and (prompt.relation is None or measure.stands(ends[0], ends[1], prompt.relation))

    ways = list(permutations(range(len(parts)), len(wanted)))
    places = max(ways, key=likely)
    named = all(float(scores[place, name]) > SURE for place, name in zip(places, wanted, strict=True))
    return Verdict(named, number and any(map(fits, ways)), named and number and fits(places))


def scores(prompts: Sequence[Prompt], verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """For each kind of prompt and for the kinds' mean: how many, and the shares of `SHARES`."""
    table: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(prompt.kind for prompt in prompts):
        those = [v for p, v in zip(prompts, verdicts, strict=True) if p.kind == kind]
        shares = {what: _mean([getattr(v, what) for v in those]) for what in SHARES}
        table[kind] = {"prompts": len(those), **shares}
    mean = {what: _mean([row[what] for row in table.values()]) for what in SHARES}
    return {**table, "mean": {"prompts": len(prompts), **mean}}


def real_scenes(namer: Namer, stills: Stills, count: int = 16, seed: int = 0) -> dict[str, Any]:
    """The judge's own scores: on real scenes of the prompts, and of other prompts of their kind: chance."""
    from modalities.image.prompts import prompts, real_scene

    asked = prompts(count, seed)
    drawn = [real_scene(p, stills, random.Random(f"{seed}/{i}")) for i, p in enumerate(asked)]
    others = []
    for i, prompt in enumerate(asked):
        group = [j for j, other in enumerate(asked) if other.kind == prompt.kind]
        others.append(drawn[group[(group.index(i) + 1) % len(group)]])
    ways = {"real": drawn, "chance": others}
    return {
        way: scores(asked, [verdict(p, d, namer) for p, d in zip(asked, pictures, strict=True)])
        for way, pictures in ways.items()
    }


def reference(namer: Namer, stills: Stills, count: int = 24, draws: int = 3) -> dict[str, Tensor]:
    """Features (N, D) of real scenes, for the kernel distance.

    Args:
        namer: gives the features.
        stills: as `modalities.image.prompts.stills` finds them.
        count: prompts of each kind.
        draws: scenes for each prompt.

    Returns: `held out`: scenes of objects that no training shows, arranged and painted as the prompts ask;
        `asked`: scenes of the prompts themselves, which a perfect model would draw.
    """
    import torch

    from modalities.image.compose import held_out_object
    from modalities.image.prompts import prompts, real_scene

    strange = sorted(filter(held_out_object, stills))
    found: dict[str, list[Tensor]] = {"held out": [], "asked": []}
    for i, prompt in enumerate(prompts(count)):
        for n in range(draws):
            rng = random.Random(f"reference/{i}/{n}")
            names = rng.sample(strange, len(prompt.things))
            things = tuple((name, colour) for name, (_, colour) in zip(names, prompt.things, strict=True))
            for key, asked in (("held out", replace(prompt, things=things)), ("asked", prompt)):
                found[key].append(namer.features([real_scene(asked, stills, rng)]))
    return {key: torch.cat(rows) for key, rows in found.items()}


def negatives(draw: Draw, namer: Namer, seed: int) -> dict[str, float]:
    """What a negative prompt does to the share of an object that has the colour it names, and to the object.

    Returns: mean shares of the colour, and of objects named right, without and with the negative prompt.
    """
    from modalities.image import measure
    from modalities.image.compose import article

    keys = ("colour without", "colour with", "named without", "named with")
    found: dict[str, list[float]] = {key: [] for key in keys}
    for i, (name, colour) in enumerate(_told("negative prompts", list(NEGATED.items()))):
        for way, negative in (("without", ""), ("with", colour)):
            picture = draw(article(name), seed=seed + i, negative_prompt=negative)
            parts = measure.parts(picture)[:1]
            crops = [measure.crop(picture, part, namer.side) for part in parts]
            sure = namer.scores(crops).exp()[:, namer.names.index(name)] > SURE
            found[f"colour {way}"] += [measure.colours(picture, part).get(colour, 0.0) for part in parts]
            found[f"named {way}"].append(bool(sure.any()))
    return {"prompts": len(NEGATED), **{key: _mean(values) for key, values in found.items()}}


def main(argv: Sequence[str]) -> int:
    """Runs the evaluation; a bad request is a ValueError, which `suite` tells in one sentence."""
    return _run(_parser().parse_args(list(argv)))


def _parser() -> argparse.ArgumentParser:
    from suite.cli import Parser, options

    parser = Parser(
        prog="suite eval image", description="Judges what a model draws of combinations it never saw."
    )
    parser.add_argument("--count", type=int, default=16, help="prompts of each kind (default 16)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the prompts and of the first picture (default 0)"
    )
    parser.add_argument(
        "--judge", default="image-judge", help="the network that names objects (default image-judge)"
    )
    parser.add_argument("--data", type=Path, help="the packs: measures the judge anew, on real scenes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure and verdict there")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="write a PNG of 64 prompts; red captions are wrong"
    )
    options(parser, adapter, FIXED)
    return parser


def _run(told: argparse.Namespace) -> int:
    fields = {
        name: getattr(told, name) for name in ImageRequest.model_fields if name not in FIXED and name in told
    }
    try:
        request = ImageRequest(prompt="a check", seed=told.seed, **fields)
    except ValidationError as error:
        raise ValueError(explain(error, ImageRequest.model_fields)) from None
    if not 1 <= told.count <= 500:
        raise ValueError(f"count is {told.count}; it must be 1 to 500")
    for name, path, suffix in (("json", told.json, ".json"), ("sheet", told.sheet, ".png")):
        if path and (path.suffix != suffix or not path.parent.is_dir()):
            raise ValueError(f"{name} is '{path}'; it must be a {suffix} file in a folder that exists")
    if told.data and not told.data.is_dir():
        raise ValueError(f"data is '{told.data}'; there is no such folder")
    storage.find(request.model)

    from modalities.image import load
    from modalities.image.measure import kernel_distances
    from modalities.image.measure import namer as load_namer
    from modalities.image.prompts import OBJECTS, stills

    real = stills(told.data) if told.data else None
    namer, config = load_namer(OBJECTS, told.judge)
    pipe = load(request.model, told.device, told.dtype)
    picked = {k: v for k, v in fields.items() if k != "model"}

    def draw(prompt: str, **more: Any) -> Image:
        more["seed"] %= 2**32
        return pipe(prompt, **{**picked, **more}).items[0]

    report = evaluate(draw, namer, told.count, told.seed, sheet=told.sheet)
    own = real_scenes(namer, real, told.count, told.seed) if real else config.get("real_scenes", {})
    features = report.pop("features")
    beside = storage.find(told.judge) / REFERENCE
    if real or beside.is_file():
        from safetensors.torch import load_file

        scenes = reference(namer, real) if real else load_file(beside)
        report["kernel distance"] = kernel_distances(features, scenes)
    used = pipe.request("a check", **picked)
    report |= {"model": request.model, "request": used.model_dump(mode="json", exclude=set(FIXED)),
               "judge": {"held_out_pictures": config.get("held_out_pictures"), **own}}  # fmt: skip
    sys.stdout.write(markdown(report))
    if told.json:
        with storage.replacing(told.json) as part:
            part.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


def evaluate(draw: Draw, namer: Namer, count: int, seed: int, sheet: Path | None = None) -> dict[str, Any]:
    """Every figure that needs pictures drawn.

    Args:
        draw: (prompt, **fields) to a picture.
        namer: names objects.
        count: prompts of each kind.
        seed: of the prompts; picture i has seed + i.
        sheet: where to save the contact sheet.

    Returns: scores, single verdicts, the effect of guidance and of negative prompts, the pictures' features.
    """
    from modalities.image.prompts import prompts

    asked = prompts(count, seed)
    drawn = [draw(p.text, seed=seed + i) for i, p in enumerate(_told("prompts", asked))]
    verdicts = [verdict(p, d, namer) for p, d in zip(asked, drawn, strict=True)]
    if sheet:
        from modalities.image.sheet import contact_sheet

        contact_sheet(asked, drawn, [v.right for v in verdicts], sheet)
    simple = [i for i, p in enumerate(asked) if p.kind in ("one object", "colours")]
    unguided = [
        draw(asked[i].text, seed=seed + i, guidance_scale=1) for i in _told("prompts unguided", simple)
    ]
    at_one = [verdict(asked[i], d, namer).right for i, d in zip(simple, unguided, strict=True)]
    return {
        "seed": seed,
        "scores": scores(asked, verdicts),
        "guidance": {"prompts": len(simple), "scale 1": _mean(at_one),
                     "as asked": _mean([verdicts[i].right for i in simple])},
        "negative prompt": negatives(draw, namer, seed),
        "prompts": [{**asdict(p), **asdict(v)} for p, v in zip(asked, verdicts, strict=True)],
        "features": namer.features(drawn),
    }  # fmt: skip


def markdown(report: Mapping[str, Any]) -> str:
    """The report as the model card shows it."""
    judge = report["judge"]
    lines = [
        "| held-out prompts | number | right | objects | pixels | real scenes | chance | chance, pixels |",
        "| --- " * 8 + "|",
    ]
    for kind, row in report["scores"].items():
        count = row["prompts"] + 4  # Agresti and Coull 1998: with two more right and two more wrong
        share = (row["right"] * row["prompts"] + 2) / count
        error = math.sqrt(share * (1 - share) / count)
        pairs = (("real", "right"), ("chance", "right"), ("chance", "seen"))
        own = [f"{judge[way][kind][what]:.2f}" if way in judge else "-" for way, what in pairs]
        shares = [f"{row['right']:.2f} ± {error:.2f}", f"{row['named']:.2f}", f"{row['seen']:.2f}", *own]
        lines.append(f"| {kind} | {row['prompts']} | {' | '.join(shares)} |")
    lines.append("")
    for which, held in (judge["held_out_pictures"] or {}).items():
        if held["pictures"]:
            best = f"first {held['top1']:.2f}, among the first five {held['top5']:.2f}"
            of = f"{held['pictures']} held-out real pictures, {held['names']} names"
            lines.append(f"- judge, {which}: the right name is {best} of the time ({of})")
    if "kernel distance" in report:
        far, near, spread = report["kernel distance"].values()
        least = f"{near:.4f} ± {spread:.4f} for real scenes of the prompts"
        lines.append(f"- kernel distance to real scenes of held-out objects: {far:.4f} ({least})")
    told = report["guidance"]
    both = f"{told['as asked']:.2f} as asked, {told['scale 1']:.2f} at scale 1"
    lines.append(f"- guidance, {told['prompts']} prompts of one object: right {both}")
    told = report["negative prompt"]
    share = f"share of it goes from {told['colour without']:.2f} to {told['colour with']:.2f}"
    named = f"the object is named right {told['named without']:.2f} before, {told['named with']:.2f} after"
    lines.append(f"- negating an object's colour, {told['prompts']} prompts: its {share}; {named}")
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _told(what: str, every: Sequence[Any]) -> Iterable[Any]:
    """The same, with progress on stderr."""
    for i, one in enumerate(every):
        if i * 10 // len(every) > (i - 1) * 10 // len(every):
            sys.stderr.write(f"{what} {i}/{len(every)}\n")
        yield one
