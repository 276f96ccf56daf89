"""`suite eval video`: draws prompts of motions and colours that training never had of an object, and judges.

What is measured of the frames tells how something moves and its colour; the network that names objects in
pictures tells what it is. Both are judged themselves on real objects that move as the same prompts ask, and
as others do, which is chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalities.judging import (
    SHARES,
    Verdict,
    asked_for,
    mean,
    others,
    parser,
    publish,
    scores,
    share,
    told,
)
from modalities.video import VideoRequest, adapter
from suite import storage

if TYPE_CHECKING:
    from modalities.image.measure import Namer
    from modalities.video.compose import Array
    from modalities.video.prompts import Prompt

    Draw = Callable[..., Array]  # (prompt, **fields of the request) -> frames (T, H, W, 3) uint8

SURE = 0.5  # probability above which a name is told, as of pictures
LOOKS = 6  # frames of a clip that are named; the surest counts, for what is faint has no name
LOOPS, LONG = 10, 96  # clips that are closed; frames of a clip whose colours may drift
FIXED = ("prompt", "negative_prompt", "seed", "init", "strength", "mask", "image", "last_image",
         "interpolate", "transparent", "sound", "loop", "num_videos", "num_frames")  # fmt: skip


def verdict(prompt: Prompt, frames: Array, namer: Namer) -> Verdict:
    """Judges one clip; it is named right if in some frame its name is likelier than all others together."""
    import numpy as np
    from PIL import Image

    from modalities.image import measure
    from modalities.video.measure import moves

    sure, largest, colour = 0.0, 0, None
    for number in np.linspace(0, len(frames) - 1, LOOKS).round().astype(int):
        picture = Image.fromarray(frames[number])
        for part in measure.parts(picture)[:1]:
            score = namer.scores([measure.crop(picture, part, namer.side)])[0, namer.names.index(prompt.name)]
            sure = max(sure, float(score.exp()))
            if (area := int(part.mask.sum())) > largest:
                largest, colour = area, measure.colour(picture, part)
    seen = moves(frames, prompt.motion) and prompt.colour in (None, colour)
    return Verdict(sure > SURE, seen, seen and sure > SURE)


def table(asked: Sequence[Prompt], verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """The scores of each kind and their mean, and of each motion."""
    rows = scores([prompt.kind for prompt in asked], verdicts)
    by_motion = scores([prompt.motion for prompt in asked], verdicts)
    return {**rows, **{name: row for name, row in by_motion.items() if name != "mean"}}


def main(argv: Sequence[str]) -> int:
    """Runs the evaluation; a bad request is a ValueError, which `suite` tells in one sentence."""
    options = parser(adapter, "Judges how a model moves objects that it never saw move so.", FIXED)
    options.set_defaults(judge="image-judge")
    given = options.parse_args(list(argv))
    fields = asked_for(given, VideoRequest, FIXED)
    model = fields.pop("model", VideoRequest(prompt="a check").model)
    storage.find(model)

    from modalities.image.measure import namer as load_namer
    from modalities.image.prompts import OBJECTS, stills
    from modalities.video import load

    real = stills(given.data) if given.data else None
    namer, _ = load_namer(OBJECTS, given.judge)
    pipe = load(model, given.device, given.dtype)

    def draw(prompt: str, **more: Any) -> Array:
        more["seed"] %= 2**32
        frames: Array = pipe(prompt, **{**fields, **more}).videos[0].frames
        return frames

    report = evaluate(draw, namer, given.count, given.seed, sheet=given.sheet)
    made = report.pop("clips")
    if real:
        report["real"] = beside_real(made, namer, real, given.data, given.count, given.seed)
    used = pipe.request("a check", **fields)
    report |= {"model": model, "request": used.model_dump(mode="json", exclude=set(FIXED))}
    publish(report, markdown(report), given.json)
    return 0


def evaluate(draw: Draw, namer: Namer, count: int, seed: int, sheet: Path | None = None) -> dict[str, Any]:
    """Every figure that needs clips drawn.

    Args:
        draw: (prompt, **fields) to frames.
        namer: names objects.
        count: prompts of each kind.
        seed: of the prompts; clip i has seed + i.
        sheet: where to save the contact sheet.
    Returns: scores, single verdicts, flicker, seams of loops, drift of long clips, and the clips.
    """
    from modalities.video.flow import warping_error
    from modalities.video.measure import drift, seam
    from modalities.video.motion import ROUND
    from modalities.video.prompts import prompts

    asked = prompts(count, seed)
    clips = [draw(prompt.text, seed=seed + i) for i, prompt in enumerate(told("prompts", asked))]
    verdicts = [verdict(*pair, namer) for pair in zip(asked, clips, strict=True)]
    if sheet:
        contact_sheet(asked, clips, verdicts, sheet)
    turning = [i for i, prompt in enumerate(asked) if prompt.motion in ROUND][:LOOPS]
    closed = [draw(asked[i].text, seed=seed + i, loop=True) for i in told("loops", turning)]
    long = [draw(asked[i].text, seed=seed + i, num_frames=LONG) for i in told("long clips", turning[::3])]
    return {
        "seed": seed,
        "scores": table(asked, verdicts),
        "flicker": mean([warping_error(clip) for clip in clips]),
        "seam": {"clips": len(closed), "loop": mean([seam(clip) for clip in closed]),
                 "open": mean([seam(clips[i]) for i in turning])},
        "drift": {"clips": len(long), "frames": LONG, "long": mean([drift(clip) for clip in long])},
        "prompts": [{**asdict(p), **asdict(v)} for p, v in zip(asked, verdicts, strict=True)],
        "clips": clips,
    }  # fmt: skip


def beside_real(
    made: Sequence[Array],
    namer: Namer,
    stills: Mapping[str, Sequence[Path]],
    data: Path,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """The same measures of real objects that move as the prompts ask, and the distance to them.

    Returns: scores of what is `asked` and of other prompts: `chance`; flicker of them and of animations that
        training never shows; the Frechet distance of what was drawn, and of others that are real.
    """
    from modalities.video.flow import warping_error
    from modalities.video.measure import frechet
    from modalities.video.prompts import animations, prompts, real_clip

    asked, (frames, size) = prompts(count, seed), made[0].shape[:2]
    clips = [real_clip(p, stills, size, frames, seed + i) for i, p in enumerate(told("real clips", asked))]
    strange = [clips[i] for i in others([prompt.kind for prompt in asked])]
    ways = {"asked": clips, "chance": strange}
    found = {
        way: table(asked, [verdict(*pair, namer) for pair in zip(asked, each, strict=True)])
        for way, each in ways.items()
    }
    again = [real_clip(p, stills, size, frames, seed + i + 10_000) for i, p in enumerate(asked)]
    shown = animations(data, size, frames)
    return {**found, "flicker": mean([warping_error(clip) for clip in clips]),
            "flicker of animations": mean([warping_error(clip) for clip in shown]), "animations": len(shown),
            "frechet": {"of the model": frechet(clips, made, namer),
                        "of real clips": frechet(clips, again, namer)}}  # fmt: skip


def contact_sheet(asked: Sequence[Prompt], clips: Sequence[Array], verdicts: Sequence[Verdict], path: Path
                  ) -> None:  # fmt: skip
    """Writes frames of each clip in a row under its prompt, two rows side by side; red is wrong."""
    from PIL import Image, ImageDraw, ImageFont

    from modalities.image.sheet import FOOT, GAP, GROUND
    from modalities.video.sheet import strip, tiled

    rows, font = [], ImageFont.load_default(size=12)
    for prompt, clip, judged in zip(asked, clips, verdicts, strict=True):
        shown = strip(clip, 8, 64)
        row = Image.new("RGB", (shown.width, shown.height + FOOT // 2), GROUND)
        row.paste(shown, (0, FOOT // 2))
        ImageDraw.Draw(row).text((2, 1), prompt.text, (20, 20, 24) if judged.right else (200, 30, 40), font)
        rows.append(row)
    with storage.replacing(path) as part:
        tiled(rows[:64], 2, GAP, GROUND).save(part, "PNG", optimize=True)


def markdown(report: Mapping[str, Any]) -> str:
    """The report as the model card shows it."""
    real = report.get("real", {})
    heads = ["prompts", "number", "right", "object", "motion and colour"]
    heads += ["real: right", "object", "motion and colour", "chance"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, row in report["scores"].items():
        beside, chance = (real.get(way, {}).get(name) for way in ("asked", "chance"))
        cells = [(row, "named"), (row, "seen"), *((beside, what) for what in SHARES), (chance, "right")]
        shown = " | ".join(f"{one[what]:.2f}" if one else "-" for one, what in cells)
        lines.append(f"| {name} | {row['prompts']} | {share(row['right'], row['prompts'])} | {shown} |")
    seam, drift, flicker = report["seam"], report["drift"], f"- flicker: {1e4 * report['flicker']:.2f}e-4"
    if real:
        also = f"{real['animations']} held-out animations {1e4 * real['flicker of animations']:.2f}e-4"
        flicker += f" (real objects that move so {1e4 * real['flicker']:.2f}e-4, {also})"
    both = f"{seam['loop']:.2f} times a usual step; of the same clips not closed {seam['open']:.2f}"
    lines += ["", flicker, f"- seam of {seam['clips']} loops: {both}"]
    longer = f"{drift['clips']} clips of {drift['frames']} frames"
    lines.append(f"- colours of {longer} drift by a Delta E of {drift['long']:.1f}")
    if real:
        far = real["frechet"]
        both = f"{far['of the model']:.1f} (real clips to others {far['of real clips']:.1f})"
        lines.append(f"- Frechet distance to real clips, by the features of the judge of pictures: {both}")
    return "\n".join(lines) + "\n"
