"""Trains the judge that names sounds: composed scenes against the text vectors of what is heard in them.

`python -m modalities.audio.judge_train --recipe FILE --data DIR --out DIR`. A step's examples follow from its
number, so a run that was killed goes on from its checkpoint to the same weights.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from modalities import naming
from modalities.audio.compose import ROOM, Composer, finish, held_out_note, play
from modalities.audio.judge import real_scenes, reference
from modalities.audio.measure import namer, tensor
from modalities.audio.notes import INSTRUMENTS
from modalities.audio.prompts import HEARD, NAMES, recordings, sounding
from modalities.audio.sounds import Clip
from modalities.judging import REFERENCE, told
from modalities.naming import Namer, name_vectors
from suite import storage
from suite.nn.vocoder import SPAN
from suite.text import load as load_text

KINDS = (  # of scenes, in turn
    *[("event", "count", "texture")] * 3,
    ("then", "over"),
    *[("note", "notes", "chord", "repeat")] * 2,
)
MIXED = 0.5  # share of the examples that another is laid over, if each holds one sound
STEPS = 115  # of a stored spectrogram, in one unit of a computed one
SILENCE = -1.0


def scenes(data: Path, count: int, seed: int) -> dict[str, Tensor]:
    """Composed scenes of NAMES, as the judge hears them.

    Args:
        data: the packs.
        count: how many.
        seed: of the scenes.
    Returns: `mel` (N, M, L) int8, in 1 / STEPS; `heard` (N, names) uint8, 1 where one of NAMES is heard.
    """
    composers = [Composer(data, kinds) for kinds in KINDS]
    for composer in composers:
        composer.clips = {name: composer.clips[name] for name in HEARD}
    found, heard = [], torch.zeros(count, len(NAMES), dtype=torch.uint8)
    for number in told("scenes", range(count)):
        scene = composers[number % len(KINDS)].nth(seed, number)
        found.append((tensor([scene.wave])[0, 0] * STEPS).round().clamp(-128, 127).to(torch.int8))
        for event in scene.events:
            heard[number, NAMES.index(event.name)] = 1
    return {"mel": torch.stack(found), "heard": heard}


def augmented(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted in time and a little in pitch, louder or softer, filtered, blurred, with noise and gaps.

    Args:
        mel: (B, M, L) int8, in 1 / STEPS.
        generator: on the CPU.
    Returns: (B, 1, M, L) float32.
    """
    count, bands, length = mel.shape

    def draw(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low)[:, None, None]

    time = torch.arange(length) - draw(-0.1 * length, 0.1 * length).round().long()
    band = torch.arange(bands)[:, None] - draw(-1.5, 1.5).round().long()
    row = torch.arange(count)[:, None, None]
    x = mel[row, band.clamp(0, bands - 1), time % length].float() / STEPS
    place = torch.linspace(0, 1, bands)[:, None]
    curve = draw(-0.08, 0.08) + draw(-0.1, 0.1) * (place - 0.5)
    curve = curve + draw(-0.06, 0.06) * torch.cos(torch.pi * (draw(1, 3) * place + draw(0, 2)))
    x = torch.where(x > SILENCE, x + curve, x)
    floor = draw(-1.5, -0.65) + draw(-0.3, 0.3) * (place - 0.5)
    x = torch.logaddexp(SPAN * x, SPAN * (floor + 0.1 * torch.randn(x.shape, generator=generator))) / SPAN
    soft = F.avg_pool2d(x[:, None], 3, 1, 1, count_include_pad=False)
    x = torch.lerp(x[:, None], soft, draw(-0.5, 1).clamp(0)[..., None]).clamp(min=SILENCE)
    bands_out = (torch.arange(bands)[:, None] - draw(0, bands)).abs() < draw(-6, 8)
    times_out = (torch.arange(length) - draw(0, length)).abs() < draw(-12, 16)
    return x.masked_fill((bands_out | times_out)[:, None], SILENCE)


def mixed(x: Tensor, heard: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lays another example, up to 10 dB softer, over MIXED of those that hold one sound.

    Args:
        x: (B, 1, M, L).
        heard: (B, names) 1 where a name is heard.
        generator: on the CPU.
    Returns: the examples, and the share (B, names) of each name in what is heard.
    """
    count = len(x)
    other = (torch.arange(count) + 1) % count
    single = heard.sum(1) == 1
    chosen = single & single[other] & (torch.rand(count, generator=generator) < MIXED)
    softer = torch.rand(count, generator=generator)[:, None, None, None] * 10 * math.log(10) / 20
    both = torch.logaddexp(SPAN * x, SPAN * x[other] - softer) / SPAN
    x = torch.where(chosen[:, None, None, None], both, x)
    heard = torch.where(chosen[:, None], heard | heard[other], heard)
    return x, F.normalize(heard.float(), p=1)


@torch.no_grad()
def accuracy(judge: Namer, waves: Sequence[NDArray[np.float32]], names: Sequence[str]) -> dict[str, Any]:
    """How often the right name of all is first, and among the first five."""
    if not waves:
        return {"sounds": 0}
    logits = torch.cat([judge.scores([wave]) for wave in waves])
    best = logits.topk(min(5, len(judge.names)), 1).indices
    hit = best == torch.tensor([judge.names.index(name) for name in names])[:, None]
    return {"sounds": len(waves), "names": len(judge.names), "asked": len(set(names)),
            "top1": round(hit[:, 0].float().mean().item(), 3),
            "top5": round(hit.any(1).float().mean().item(), 3)}  # fmt: skip


def held_out_sounds(clips: Mapping[str, Sequence[Clip]]) -> tuple[list[NDArray[np.float32]], list[str]]:
    """A scene of each held-out recording of HEARD, and its names."""
    waves, names = [], []
    for name in HEARD:
        for one in clips[name]:
            rng = random.Random(one.path.name)
            wave = sounding(rng, {name: [one]}, name, ROOM)
            waves.append(finish(rng, "event", "", [(0.0, wave, name, None)]).wave)
            names.append(name)
    return waves, names


def held_out_notes() -> tuple[list[NDArray[np.float32]], list[str]]:
    """A scene of each note that training never plays, and its instruments."""
    waves, names = [], []
    for name, instrument in INSTRUMENTS.items():
        for key in instrument.keys:
            if held_out_note(name, key):
                rng = random.Random(f"{name}/{key}")
                wave = play(rng, instrument, [(0.0, rng.uniform(0.4, 3), key)])
                waves.append(finish(rng, "note", "", [(0.0, wave, name, key)]).wave)
                names.append(name)
    return waves, names


def train(recipe: dict[str, Any], data: Path, out: Path) -> None:
    """Trains by a recipe and writes the model folder.

    Args:
        recipe: `[network]` and `[train]` of the recipe file.
        data: the packs.
        out: the model folder; its checkpoint and its scenes are removed at the end.
    """
    options = recipe["train"]
    recordings(data)  # refuses what are no packs
    pool, seed = out / "scenes.safetensors", options["seed"]
    if not pool.is_file():
        drawn = scenes(data, options["scenes"], seed)
        out.mkdir(parents=True, exist_ok=True)
        with storage.replacing(pool) as beside:
            save_file(drawn, beside)
    mel, heard = (load_file(pool)[key] for key in ("mel", "heard"))
    targets = name_vectors(load_text(recipe["text"]), NAMES)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        rows = np.random.default_rng((seed, step)).integers(len(mel), size=options["batch"])
        generator = torch.Generator().manual_seed(seed * options["steps"] + step)
        return mixed(augmented(mel[rows], generator), heard[rows], generator)

    facts = {"modality": "audio", "trained_on": {"scenes": len(mel), "names": len(NAMES)}}
    naming.train(recipe, targets, draw, out, facts)
    pool.unlink(missing_ok=True)


def record(out: Path, data: Path, count: int = 24) -> dict[str, Any]:
    """Measures a trained judge on held-out sounds and on real scenes, and writes that into its folder.

    Args:
        out: the model folder.
        data: the packs.
        count: real scenes of each kind of prompt.

    Returns: the config that was written.
    """
    clips = recordings(data)
    judge, config = namer(NAMES, out)
    config["held_out"] = {"recordings": accuracy(judge, *held_out_sounds(clips)),
                          "notes": accuracy(judge, *held_out_notes())}  # fmt: skip
    config["real_scenes"] = real_scenes(judge, clips, count)
    with storage.replacing(out / REFERENCE) as beside:
        found = reference(judge, clips, count)
        save_file({key: rows.half() for key, rows in found.items()}, beside)
    storage.save(out, judge.network, config, torch.float16)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the judge as its recipe says."""
    return naming.command("python -m modalities.audio.judge_train", __doc__, train, record, argv)


if __name__ == "__main__":
    sys.exit(main())
