"""The motions that captions speak of: where an object is, how large, turned and opaque, at any moment."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

Course = Callable[[float], "State"]  # of the time, 0 to 1


@dataclass(frozen=True)
class State:
    """An object at a moment.

    Attributes:
        x, y: its middle, as shares of the picture, y downwards.
        side: its longer side, likewise.
        angle: degrees by which it is turned clockwise.
        opacity: 0 to 1.
    """

    x: float = 0.5
    y: float = 0.5
    side: float = 0.6
    angle: float = 0.0
    opacity: float = 1.0


def course(motion: str, rng: random.Random) -> Course:
    """One way in which an object moves as the motion's words say."""
    made: Course = _COURSES[motion](rng)
    return made


def _across(rng: random.Random, way: int, upright: bool) -> Course:
    side, beside, reach = rng.uniform(0.46, 0.56), 0.5 + rng.uniform(-0.1, 0.1), rng.uniform(0.22, 0.26)

    def at(time: float) -> State:
        along = 0.5 + way * reach * (2 * time - 1)
        return State(beside, along, side) if upright else State(along, beside, side)

    return at


def _bouncing(rng: random.Random) -> Course:
    side, high, x = rng.uniform(0.46, 0.54), rng.uniform(0.34, 0.4), 0.5 + rng.uniform(-0.06, 0.06)
    return lambda time: State(x, 0.7 - high * abs(math.sin(2 * math.pi * time)), side)


def _spinning(rng: random.Random, way: int) -> Course:
    side = rng.uniform(0.6, 0.7)
    return lambda time: State(side=side, angle=way * 360 * time)


def _sized(rng: random.Random, grows: bool) -> Course:
    low, high = rng.uniform(0.3, 0.38), rng.uniform(0.8, 0.9)
    return lambda time: State(side=low + (high - low) * (time if grows else 1 - time))


def _fading(rng: random.Random, appears: bool) -> Course:
    side = rng.uniform(0.6, 0.8)
    return lambda time: State(side=side, opacity=time if appears else 1 - time)


def _swinging(rng: random.Random) -> Course:
    side, wide, y = rng.uniform(0.48, 0.56), rng.uniform(0.19, 0.22), 0.5 + rng.uniform(-0.06, 0.06)
    return lambda time: State(0.5 + wide * math.sin(2 * math.pi * time), y, side)


def _pulsing(rng: random.Random) -> Course:
    side, share = rng.uniform(0.54, 0.64), rng.uniform(0.22, 0.3)
    return lambda time: State(side=side * (1 + share * math.sin(4 * math.pi * time)))


def _still(rng: random.Random) -> Course:
    side = rng.uniform(0.6, 0.84)
    return lambda time: State(side=side)


_COURSES: dict[str, Callable[[random.Random], Course]] = {
    "flying from left to right": lambda rng: _across(rng, 1, False),
    "flying from right to left": lambda rng: _across(rng, -1, False),
    "rising": lambda rng: _across(rng, -1, True),
    "falling": lambda rng: _across(rng, 1, True),
    "bouncing": _bouncing,
    "spinning clockwise": lambda rng: _spinning(rng, 1),
    "spinning counterclockwise": lambda rng: _spinning(rng, -1),
    "growing": lambda rng: _sized(rng, True),
    "shrinking": lambda rng: _sized(rng, False),
    "fading in": lambda rng: _fading(rng, True),
    "fading out": lambda rng: _fading(rng, False),
    "swinging from side to side": _swinging,
    "pulsing": _pulsing,
    "standing still": _still,
}
MOTIONS = tuple(_COURSES)
ROUND = {  # these end where they began
    "bouncing", "spinning clockwise", "spinning counterclockwise", "swinging from side to side", "pulsing",
}  # fmt: skip
WORDS = {  # other words for the same
    "flying from left to right": ("moving from left to right", "flying to the right"),
    "flying from right to left": ("moving from right to left", "flying to the left"),
    "rising": ("flying up", "moving up", "taking off"),
    "falling": ("dropping down", "moving down"),
    "bouncing": ("jumping up and down",),
    "spinning clockwise": ("spinning", "rotating clockwise"),
    "spinning counterclockwise": ("rotating counterclockwise",),
    "growing": ("getting bigger",),
    "shrinking": ("getting smaller",),
    "fading in": ("appearing",),
    "fading out": ("disappearing",),
    "swinging from side to side": ("moving back and forth", "swinging"),
    "pulsing": ("beating",),
    "standing still": ("not moving",),
}
