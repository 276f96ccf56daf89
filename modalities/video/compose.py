"""Clips with exact captions: objects in motion on a ground, animations, and turns on a turntable.

What is held out is decided by a hash of the names, as for pictures; what pictures hold out clips do, too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from modalities.image.compose import Composer as Pictures
from modalities.image.compose import Item, article, cut_out, held_out_object, plain_name
from modalities.packs import held_out, read_rows
from modalities.video.motion import MOTIONS, ROUND, WORDS, State, course
from modalities.video.picture import tokens
from modalities.video.read import on_ground, opened, resized

Array = np.ndarray[Any, Any]
KINDS = {"motion": 0.7, "animated": 0.13, "turntable": 0.12, "turned shape": 0.05}
GIVEN = {"": 0.6, "first": 0.25, "last": 0.03, "both": 0.12}  # frames that go beside the caption
OFTEN = [2 if "spinning" in motion else 1 for motion in MOTIONS]  # no picture shows things turned
LIGHT = 245  # 8-bit, of the brightest of a photo
MARGIN = 2  # pixels around an object, that its edges be soft
ON_TURNTABLE = ("rotating on a turntable", "turning on a turntable", "on a turntable")


@dataclass
class Scene:
    """A clip (T, side, side, 3) uint8, its caption and what moves in it and how."""

    frames: Array
    caption: str
    kind: str
    name: str
    motion: str = ""
    colour: str | None = None


def held_out_motion(name: str, motion: str) -> bool:
    """Whether this object never moves like this in training."""
    return held_out("motion", name, motion)


def held_out_clip(file: str) -> bool:
    """Whether this animation is kept from training, to compare with."""
    return held_out("clip", file, share=0.08)


class Composer:
    """Draws clips from the packs, without the objects, pairs and animations that are held out."""

    def __init__(self, data: Path, size: int = 192, frames: int = 24, objects: Sequence[str] = ()) -> None:
        """Reads the packs' metadata; pictures are read when drawn.

        Args:
            data: the folder of the packs.
            size: of the clips, in pixels.
            frames: of a clip.
            objects: names of what moves and is animated; everything if it is empty. Turntables are of all.
        """
        self.size, self.frames = size, frames
        self.pictures = Pictures(data, size, objects)
        self.shapes = [item for item in self.pictures.items if item.path.suffix == ".npz"]
        self.animated: list[Item] = []
        self.turntables: list[Item] = []
        for row in read_rows(data / "clips") if (data / "clips").is_dir() else ():
            name, turns = plain_name(row), row.get("source") == "fruits360"
            if held_out_object(name) or held_out_clip(row["file_name"]):
                continue
            if turns or not objects or name in objects:
                item = Item(data / "clips" / row["file_name"], name, "3d emoji", 1.0)
                (self.turntables if turns else self.animated).append(item)

    def nth(self, seed: int, number: int) -> Scene:
        """The clip of this number; the same on every machine."""
        return self.scene(random.Random(f"{seed}/{number}"))

    def scene(self, rng: random.Random) -> Scene:
        """One clip: mostly an object that moves as the caption says."""
        kind = rng.choices(tuple(KINDS), tuple(KINDS.values()))[0]
        if kind == "animated" and self.animated:
            return self._animated(rng)
        if kind == "turntable" and self.turntables:
            return self._turntable(rng)
        if kind == "turned shape" and self.shapes:
            return self._turned(rng)
        return self._moving(rng)

    def _moving(self, rng: random.Random) -> Scene:
        motion = rng.choices(MOTIONS, OFTEN)[0]
        for _ in range(50):
            item, cut, colour = self.pictures.either(rng, 0.3)
            if not held_out_motion(item.name, motion):
                break
        phrase = f"{colour} {item.name}" if colour else item.name
        said = motion if rng.random() < 0.6 else rng.choice(WORDS[motion])
        words, ground = self._told(rng, f"{article(phrase)} {said}", item.style, cut, colour)
        frames = moving(cut, motion, rng, ground, self.frames)
        return Scene(frames, words, "motion", item.name, motion, colour)

    def _animated(self, rng: random.Random) -> Scene:
        item = rng.choice(self.animated)
        words = rng.choice((f"an animated {item.name}", f"an animation of {article(item.name)}"))
        cuts = frames_of(item.path, self.frames)
        words, ground = self._told(rng, words, item.style, cuts[0])
        state = State(side=rng.uniform(0.78, 0.94))
        made = np.stack([drawn(cut, state, ground) for cut in cuts])
        return Scene(_from_anywhere(made, rng), words, "animated", item.name)

    def _turntable(self, rng: random.Random) -> Scene:
        name = rng.choice(sorted({item.name for item in self.turntables}))
        item = rng.choice([item for item in self.turntables if item.name == name])
        state, white = State(side=rng.uniform(0.74, 0.92)), np.full((self.size, self.size, 3), 255.0)
        made = np.stack([drawn(cut, state, white) for cut in lit(frames_of(item.path, self.frames))])
        words = f"{article(item.name)} {rng.choice(ON_TURNTABLE)}"
        return Scene(_from_anywhere(made, rng), words, "turntable", item.name)

    def _turned(self, rng: random.Random) -> Scene:
        item, state = rng.choice(self.shapes), State(side=rng.uniform(0.8, 0.95))
        cuts = turned(item.path, self.frames, self.size)
        words = f"{article(item.name)} {rng.choice(ON_TURNTABLE)}"
        words, ground = self._told(rng, words, item.style, cuts[0])
        made = np.stack([drawn(cut, state, ground) for cut in cuts])
        return Scene(_from_anywhere(made, rng), words, "turned shape", item.name)

    def _told(self, rng: random.Random, words: str, style: str, cut: Image.Image, tint: str | None = None
              ) -> tuple[str, Array]:  # fmt: skip
        """The caption with style and ground, and the ground's pixels (side, side, 3) float."""
        words, _, ground = self.pictures.dressed(rng, words, style, [cut], {tint})
        return words, np.asarray(ground, np.float32)


def moving(cut: Image.Image, motion: str, rng: random.Random, ground: Array, frames: int) -> Array:
    """An RGBA object in motion: (frames, side, side, 3) uint8; what comes round again ends before it does."""
    way, last = course(motion, rng), frames - (motion not in ROUND)
    return np.stack([drawn(cut, way(i / max(last, 1)), ground) for i in range(frames)])


@lru_cache(maxsize=256)
def frames_of(path: Path, frames: int) -> tuple[Image.Image, ...]:
    """The frames of an animation, RGBA, so many from the first on; a white ground around it is taken away."""
    cuts = []
    with Image.open(path) as file:
        count = int(getattr(file, "n_frames", 1))
        for number in range(frames):
            file.seek(number * count // frames)
            cut = file.convert("RGBA")
            opaque = cut.getchannel("A").getextrema()[0] == 255
            cuts.append(cut_out(cut.convert("RGB")) if opaque else cut)
    return tuple(cuts)


def lit(cuts: Sequence[Image.Image]) -> list[Image.Image]:
    """RGBA photos of one thing, all made as much brighter as brings its brightest hundredth to LIGHT."""
    shown = [np.asarray(cut)[np.asarray(cut.getchannel("A")) > 127] for cut in cuts]
    brightest = np.percentile(np.concatenate(shown)[:, :3].max(1), 99)
    levels = np.minimum(np.arange(256) * max(1.0, LIGHT / max(brightest, 1)), 255).round().tolist()
    return [cut.point([*levels * 3, *range(256)]) for cut in cuts]


@lru_cache(maxsize=256)
def turned(path: Path, frames: int, side: int) -> tuple[Image.Image, ...]:
    """A mesh of the packs in one whole turn, RGBA."""
    from modalities.mesh.read import opened as opened_mesh
    from modalities.mesh.render import turntable

    return tuple(map(Image.fromarray, turntable(opened_mesh("shape", path), frames, side, 18.0)))


def _from_anywhere(frames: Array, rng: random.Random) -> Array:
    """A clip that comes round again, from some other frame on."""
    return np.roll(frames, rng.randrange(len(frames)), 0)


def drawn(cut: Image.Image, state: State, ground: Array) -> Array:
    """An RGBA object on a ground (side, side, 3) float, at fractions of pixels: (side, side, 3) uint8."""
    whole = len(ground)
    near = min(1.0, state.side * whole / max(cut.size))  # first made smaller, then put at its place
    size = (math.ceil(cut.width * near), math.ceil(cut.height * near))
    cut = ImageOps.expand(cut.convert("RGBa").resize(size, Image.Resampling.BICUBIC), MARGIN)
    scale, angle = state.side * whole / (max(cut.size) - 2 * MARGIN), math.radians(state.angle)
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    x, y = state.x * whole, state.y * whole
    there = (c, s, cut.width / 2 - c * x - s * y, -s, c, cut.height / 2 + s * x - c * y)
    size, how = (whole, whole), Image.Transform.AFFINE
    drawn = np.asarray(cut.transform(size, how, there, Image.Resampling.BICUBIC), np.float32)
    mixed = drawn[..., :3] * state.opacity + ground * (1 - drawn[..., 3:] * (state.opacity / 255))
    made: Array = mixed.round().clip(0, 255).astype(np.uint8)
    return made


class Drawing:
    """The n-th training example of a folder: a clip composed from the packs, or one of captioned clips."""

    def __init__(self, data: Path, seed: int, size: int = 192, frames: int = 24,
                 objects: Sequence[str] = ()) -> None:  # fmt: skip
        """Takes the folder, the seed, and the recipe's options as of `Composer`."""
        self.data, self.seed, self.size, self.frames = data, seed, size, frames
        packs = not (data / "metadata.jsonl").is_file()
        self.composer = Composer(data, size, frames, objects) if packs else None
        self.rows = [] if packs else read_rows(data)
        if not packs and not self.rows:
            raise ValueError(f"{data / 'metadata.jsonl'} names no clip")

    def __call__(self, number: int) -> tuple[Array, str, Array]:
        """The clip (3, T, size, size) uint8, its caption, and tokens of frames that are given, or zeros."""
        if self.composer is not None:
            scene = self.composer.nth(self.seed, number)
            frames, caption = scene.frames, scene.caption
        else:
            row = self.rows[number % len(self.rows)]
            whole, _ = opened("file_name", str(self.data / row["file_name"]))
            whole = whole[np.arange(self.frames) * len(whole) // self.frames]
            frames, caption = on_ground(resized(whole, self.size, self.size), "white"), row["text"]
        given = random.Random(f"given/{self.seed}/{number}").choices(tuple(GIVEN), tuple(GIVEN.values()))[0]
        first = Image.fromarray(frames[0]) if given in ("first", "both") else None
        last = Image.fromarray(frames[-1]) if given in ("last", "both") else None
        return np.ascontiguousarray(frames.transpose(3, 0, 1, 2)), caption, tokens(first, last)
