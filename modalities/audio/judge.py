"""`suite eval audio`: draws prompts whose notes, counts and pairs training never had, and judges the sounds.

Samples tell pitch, number, tempo, length and loudness; a network trained on real sounds tells what a sound
is. Both are judged themselves on real scenes of the same prompts, and on scenes of other prompts, which is
chance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalities.audio import RATE, WINDOW, AudioRequest, adapter, length
from modalities.judging import (
    REFERENCE,
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
from suite import storage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from modalities.audio.prompts import Prompt
    from modalities.audio.save import Sound
    from modalities.audio.sounds import Clip
    from modalities.naming import Namer

    Wave = NDArray[np.float32]
    Draw = Callable[..., Sound]  # (prompt, **fields of the request) -> sound
    Clips = Mapping[str, Sequence[Clip]]

AMONG = 5  # names, of 101
CENTS, TEMPO = 50, 0.05  # how far a note may be off, and a tempo, as a share of it
LENGTHS = (0.5, 1.37, 3.3333, 7.77, 12.0)  # seconds, drawn to see whether a sound is as long as asked
NEAR = 0.5  # LU from the target
FIXED = ("prompt", "negative_prompt", "seed", "init", "strength", "mask", "num_audios", "channels", "loop")


def verdict(prompt: Prompt, wave: Wave, namer: Namer, found: Mapping[str, Any] | None = None) -> Verdict:
    """Judges one sound; it is named right if the names asked for come first.

    Of two at once both must be among the first AMONG, since one hides the other from the network, too.

    Args:
        prompt: what was asked.
        wave: (N,) at RATE.
        namer: names sounds.
        found: what `heard` tells of it, if that is known.
    """
    from modalities.audio import measure

    if not wave.any():
        return Verdict(False, False, False)
    if prompt.kind == "then":
        pieces = [piece for piece in measure.halves(wave) if piece.any()]
    else:
        pieces = [wave]
    likely = namer.scores(pieces)
    if prompt.kind == "over":
        best = likely[0].topk(min(AMONG, len(namer.names))).indices.tolist()
        named = {namer.names[i] for i in best} >= set(prompt.names)
    else:
        named = tuple(namer.names[i] for i in likely.argmax(1).tolist()) == prompt.names
    seen = fits(prompt, heard(prompt, wave) if found is None else found)
    return Verdict(named, seen, named and seen)


def heard(prompt: Prompt, wave: Wave) -> dict[str, Any]:
    """What the samples tell: `keys` of a melody, or `count` and `tempo` of what repeats, as a prompt asks."""
    from modalities.audio import measure

    if prompt.keys:
        return {"keys": measure.pitches(wave)}
    if prompt.tempo:
        times = measure.onsets(wave)
        return {"count": len(times), "tempo": measure.tempo(times)}
    return {"count": len(measure.bursts(wave))} if prompt.count else {}


def fits(prompt: Prompt, found: Mapping[str, Any]) -> bool:
    """Whether that is what was asked: each note within CENTS, the very count, the tempo within TEMPO."""
    near = len(found.get("keys", ())) == len(prompt.keys) and all(
        abs(a - b) * 100 <= CENTS for a, b in zip(found.get("keys", ()), prompt.keys, strict=True)
    )
    pace = found.get("tempo") or math.inf
    timed = not prompt.tempo or abs(pace / prompt.tempo - 1) <= TEMPO
    return near and found.get("count") == prompt.count and timed


def table(asked: Sequence[Prompt], verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """The scores of each kind and their mean; that of what is measured is of the kinds where something is."""
    from modalities.audio.prompts import MEASURED

    found = scores([prompt.kind for prompt in asked], verdicts)
    found["mean"]["seen"] = mean([row["seen"] for kind, row in found.items() if kind in MEASURED])
    return found


def real_scenes(namer: Namer, clips: Clips, count: int = 16, seed: int = 0) -> dict[str, Any]:
    """The judge's own scores: on real scenes of the prompts, and of other prompts of their kind: chance."""
    from modalities.audio.prompts import prompts, real_scene

    asked = prompts(count, seed)
    made = [real_scene(p, clips, random.Random(f"{seed}/{i}")) for i, p in enumerate(asked)]
    ways = {"real": made, "chance": [made[i] for i in others([prompt.kind for prompt in asked])]}
    return {
        way: table(asked, [verdict(p, wave, namer) for p, wave in zip(asked, waves, strict=True)])
        for way, waves in ways.items()
    }


def reference(namer: Namer, clips: Clips, count: int = 24, draws: int = 3) -> dict[str, Tensor]:
    """Features (N, D) of real scenes of the prompts, for the Frechet distance.

    Args:
        namer: gives the features.
        clips: as `modalities.audio.prompts.recordings` finds them.
        count: prompts of each kind.
        draws: scenes for each prompt.
    Returns: `held out`: those measured against; `asked`: others, as a perfect model would draw them.
    """
    import torch

    from modalities.audio.prompts import prompts, real_scene

    found: dict[str, list[Tensor]] = {"held out": [], "asked": []}
    for i, prompt in enumerate(prompts(count)):
        for n in range(draws):
            for key, rows in found.items():
                rows.append(namer.features([real_scene(prompt, clips, random.Random(f"{key}/{i}/{n}"))]))
    return {key: torch.cat(rows) for key, rows in found.items()}


def exactness(sounds: Sequence[Sound]) -> dict[str, float]:
    """How exactly sounds have the length, the loudness and the ceiling that their settings ask for.

    Returns: the shares that have the very number of samples, that are within NEAR of the loudness, and that
        are below the ceiling; the mean and largest distance from the loudness in LU, and how far the highest
        peak is over the ceiling in dB.
    """
    from modalities.audio.loudness import loudness, true_peak

    long, far, over = [], [], []
    for sound in sounds:
        request = AudioRequest(**(sound.settings or {})["request"])
        long.append(sound.samples.shape[1] == length(request) and sound.sample_rate == RATE)
        if request.normalize:
            far.append(abs(loudness(sound.samples, sound.sample_rate) - request.loudness))
            over.append(true_peak(sound.samples, sound.sample_rate) - request.ceiling)
    found = {"sounds": len(sounds), "length": mean(long)}
    if far:
        found |= {"loudness": mean([each <= NEAR for each in far]), "mean from the loudness": mean(far),
                  "largest from the loudness": max(far), "largest over the ceiling": max(over),
                  "below the ceiling": mean([each <= 0 for each in over])}  # fmt: skip
    return found


def main(argv: Sequence[str]) -> int:
    """Runs the evaluation; a bad request is a ValueError, which `suite` tells in one sentence."""
    options = parser(adapter, "Judges what a model plays of combinations it never had.", FIXED)
    said = "measured if --data is given (default audio-vocoder)"
    options.add_argument("--vocoder", default="audio-vocoder", help=said)
    given = options.parse_args(list(argv))
    fields = asked_for(given, AudioRequest, FIXED)
    model = fields.pop("model", AudioRequest(prompt="a check").model)
    storage.find(model)

    from modalities.audio import load
    from modalities.audio.measure import frechet_distance, vocoding
    from modalities.audio.measure import namer as load_namer
    from modalities.audio.prompts import HEARD, NAMES, recordings
    from modalities.audio.sounds import clip
    from modalities.naming import distances

    real = recordings(given.data) if given.data else None
    namer, config = load_namer(NAMES, given.judge)
    pipe = load(model, given.device, given.dtype)
    fields.setdefault("seconds", WINDOW / RATE)

    def draw(prompt: str, **more: Any) -> Sound:
        more["seed"] %= 2**32
        sound: Sound = pipe(prompt, **{**fields, **more}).items[0]
        return sound

    report = evaluate(draw, namer, given.count, given.seed, sheet=given.sheet)
    own = real_scenes(namer, real, given.count, given.seed) if real else config.get("real_scenes", {})
    features = report.pop("features")
    beside = storage.find(given.judge) / REFERENCE
    if real or beside.is_file():
        from safetensors.torch import load_file

        known = reference(namer, real) if real else load_file(beside)
        report["frechet distance"] = distances(frechet_distance, features, known)
    if real:
        waves = [clip(one.path)[:WINDOW] for name in HEARD for one in real[name]]
        vocoder, _ = storage.load(storage.find(given.vocoder))
        report["vocoder"] = {"sounds": len(waves), **vocoding(waves, vocoder)}
    used = pipe.request("a check", **fields)
    report |= {"model": model, "request": used.model_dump(mode="json", exclude=set(FIXED)),
               "judge": {"held_out": config.get("held_out"), **own}}  # fmt: skip
    publish(report, markdown(report), given.json)
    return 0


def evaluate(draw: Draw, namer: Namer, count: int, seed: int, sheet: Path | None = None) -> dict[str, Any]:
    """Every figure that needs sounds drawn.

    Args:
        draw: (prompt, **fields) to a sound.
        namer: names sounds.
        count: prompts of each kind.
        seed: of the prompts; sound i has seed + i.
        sheet: where to save the contact sheet.
    Returns: scores, single verdicts, how exact lengths and loudness are, the sounds' features.
    """
    from modalities.audio.prompts import prompts
    from modalities.audio.read import mono

    asked = prompts(count, seed)
    drawn = [draw(p.text, seed=seed + i) for i, p in enumerate(told("prompts", asked))]
    waves = [mono(sound.samples, sound.sample_rate, RATE) for sound in drawn]
    found = [heard(p, wave) for p, wave in zip(asked, waves, strict=True)]
    verdicts = [verdict(*each[:2], namer, each[2]) for each in zip(asked, waves, found, strict=True)]
    if sheet:
        from modalities.image.sheet import contact_sheet

        contact_sheet(asked, [sound.picture() for sound in drawn], [v.right for v in verdicts], sheet)
    for i, seconds in enumerate(told("lengths", LENGTHS)):
        drawn.append(draw(asked[i % len(asked)].text, seed=seed + i, seconds=seconds, channels=1 + i % 2))
    return {
        "seed": seed,
        "scores": table(asked, verdicts),
        "exactness": exactness(drawn),
        "prompts": [
            {**asdict(p), **asdict(v), "heard": what}
            for p, v, what in zip(asked, verdicts, found, strict=True)
        ],
        "features": namer.features(waves),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as the model card shows it."""
    from modalities.audio.prompts import MEASURED

    judge = report["judge"]
    lines = ["| prompts | number | right | named | measured | real: right | named | measured | chance |",
             "| --- " * 9 + "|"]  # fmt: skip
    for kind, row in report["scores"].items():
        real, chance = (judge.get(way, {}).get(kind) for way in ("real", "chance"))
        cells = [(row, "named"), (row, "seen"), *((real, what) for what in SHARES), (chance, "right")]
        measured = kind in (*MEASURED, "mean")
        shown = [f"{one[what]:.2f}" if one and (what != "seen" or measured) else "-" for one, what in cells]
        shown.insert(0, share(row["right"], row["prompts"]))
        lines.append(f"| {kind} | {row['prompts']} | {' | '.join(shown)} |")
    lines.append("")
    for which, held in (judge["held_out"] or {}).items():
        if held["sounds"]:
            best = f"first {held['top1']:.2f}, among the first five {held['top5']:.2f}"
            of = f"{held['sounds']} of {held['asked']} kinds, {held['names']} names"
            lines.append(f"- judge, held-out {which}: the right name is {best} of the time ({of})")
    if "frechet distance" in report:
        far, near, spread = report["frechet distance"].values()
        least = f"{near:.2f} ± {spread:.2f} for others"
        lines.append(f"- Frechet distance to real scenes of the prompts: {far:.2f} ({least})")
    exact = report["exactness"]
    lines.append(f"- {exact['sounds']} sounds: the length is exact in {exact['length']:.2f}")
    if "loudness" in exact:
        lines[-1] += (
            f", the loudness within {NEAR} LU in {exact['loudness']:.2f} (at most "
            f"{exact['largest from the loudness']:.2f} off), the true peak below the ceiling in "
            f"{exact['below the ceiling']:.2f}"
        )
    if "vocoder" in report:
        number = report["vocoder"]["sounds"]
        lines += ["", f"| {number} held-out sounds, there and back | multi-resolution STFT | mel, dB |",
                  "| --- " * 3 + "|"]  # fmt: skip
        for way, row in report["vocoder"].items():
            if way != "sounds":
                lines.append(f"| {way} | {row['STFT']:.3f} | {row['mel']:.2f} |")
    return "\n".join(lines) + "\n"
