"""What moves in a clip of one subject on a plain ground, and how like real clips a set of clips is.

Shapes: T frames, H W picture, N clips, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.transform import warp_polar
from torch import Tensor

from modalities.audio.measure import frechet_distance
from modalities.image.measure import DISTANCE, SPECK, Namer, ground

Frames = NDArray[np.uint8]
Array = NDArray[np.float64]
LEAST = 8.0  # difference from the ground, 8-bit RGB, at which a pixel of a faint frame can be the subject's
UNSEEN = 16.0  # below which a frame's strongest difference shows nothing,
DIM = 0.35  # or below this share of the strongest frame's
TURN = 50  # degrees that a subject may turn from frame to frame; more looks like less, backwards, of a wheel
RINGS = 32  # radii at which a turn is looked for
TRAVEL = 0.3  # of the frame's width or height, which is a flight, a rise or a fall
SWING = 0.08  # of it, which a stroke to and fro has at least, and what keeps its place has not
WANDER = 0.2  # of it, which the centre of what spins about another point may move
GROWTH, BEAT = math.log(1.45), math.log(1.1)  # in log scale: what grows does, and a stroke of what pulses
SAME, VARIED = math.log(1.2), math.log(1.3)  # what stands has less, and what moves, spins or fades
FADE, GLOW = 0.6, 0.25  # of the strongest contrast: a fade, and what none has
ROUND, TILT = 270.0, 45.0  # degrees: a whole turn, and what is none


@dataclass(frozen=True)
class Track:
    """Where the subject is in each frame.

    Attributes:
        x: (T,) of its centre, 0 at the left border, 1 at the right.
        y: (T,) of its centre, 0 at the upper border, 1 at the lower.
        scale: (T,) root of the share of the frame that it covers.
        contrast: (T,) mean difference from the ground, in 8-bit RGB, where it is in any frame.
        turned: (T,) degrees that it has turned in the picture plane since the first frame; clockwise is +.
    """

    x: Array
    y: Array
    scale: Array
    contrast: Array
    turned: Array


def track(frames: Frames) -> Track | None:
    """Follows the subject; None where there is none. Where it is too faint to be seen it keeps its place.

    Args:
        frames: (T, H, W, 3) uint8.
    Raises: ValueError for frames of another shape or type.
    """
    _check(frames)
    signed = frames - ground(np.median(frames, 0))
    far = np.linalg.norm(signed, axis=-1)
    masks = _masks(far)
    seen = np.flatnonzero(masks.any((1, 2)))
    if not len(seen):
        return None
    ever = masks.any(0)
    height, width = ever.shape
    places = np.array([ndimage.center_of_mass(masks[i]) for i in seen])
    scales = np.array([math.sqrt(masks[i].mean()) for i in seen])
    rings = [_rings(signed[i], masks[i], place) for i, place in zip(seen, places, strict=True)]
    turns = np.cumsum([0.0, *(_turn(one, other) for one, other in pairwise(rings))])
    every = np.arange(len(frames))
    y, x = ((places[:, i] + 0.5) / size for i, size in enumerate((height, width)))
    held = (np.interp(every, seen, values) for values in (x, y, scales))
    return Track(*held, far[:, ever].mean(1), np.interp(every, seen, turns))


def moves(frames: Frames, motion: str) -> bool:
    """Whether a clip shows one of `MOTIONS`.

    Raises: ValueError for another motion, or for frames of another shape or type than (T, H, W, 3) uint8.
    """
    if motion not in MOTIONS:
        raise ValueError(f"motion is {motion!r}; it must be one of {', '.join(MOTIONS)}")
    found = track(frames)
    return found is not None and MOTIONS[motion](found)


def seam(frames: Frames) -> float:
    """How much farther the first frame is from the last than neighbours are: 1 where a clip loops unseen.

    Returns: the root mean square difference of the two, over the median of that of neighbours.
    """
    _check(frames)
    ring = [*frames.astype(np.float32), frames[0]]
    steps = [float(np.sqrt(np.square(after - before).mean())) for before, after in pairwise(ring)]
    return steps[-1] / max(float(np.median(steps[:-1])), 0.1)  # a tenth of a level: what stands still


def drift(frames: Frames) -> float:
    """How far the subject's colour is in the last eighth of a clip from what it was in the first.

    Returns: Delta E, the distance of the mean colours in CIE Lab; 0 where there is no subject.
    """
    _check(frames)
    count = max(1, len(frames) // 8)
    masks = _masks(np.linalg.norm(frames - ground(np.median(frames, 0)), axis=-1))
    ends = []
    for end in (slice(None, count), slice(-count, None)):
        shown = [rgb2lab(frame)[mask] for frame, mask in zip(frames[end], masks[end], strict=True)]
        ends.append(np.concatenate(shown))
    return float(np.linalg.norm(ends[1].mean(0) - ends[0].mean(0))) if all(map(len, ends)) else 0.0


def features(clips: Sequence[Frames], namer: Namer) -> Tensor:
    """(N, 2 D) of clips: of the namer's D of each frame the mean, and the mean absolute step in time."""
    found = []
    for clip in clips:
        seen = namer.features([Image.fromarray(frame) for frame in clip])
        found.append(torch.cat([seen.mean(0), seen.diff(dim=0).abs().mean(0)]))
    return torch.stack(found)


def frechet(real: Sequence[Frames], made: Sequence[Frames], namer: Namer) -> float:
    """The Frechet distance of clips to real ones, by features of the network that names objects in pictures.

    It is no FVD of the literature, whose network (I3D) is not ours to ship; it compares only with itself.

    Args:
        real: two clips (T, H, W, 3) uint8 or more.
        made: two clips or more.
        namer: `modalities.image.measure.namer`'s; of it `features`.
    Source: Unterthiner et al. 2018, arXiv 1812.01717, with other features.
    """
    return frechet_distance(features(real, namer), features(made, namer))


def _masks(far: Array) -> NDArray[np.bool_]:
    """(T, H, W) where the subject is, from how far (T, H, W) pixels are from the ground.

    As faint as a frame is next to the strongest one, so small a difference counts in it.
    """
    smooth = np.stack([ndimage.gaussian_filter(one, 0.7) for one in far])
    strong = smooth.max((1, 2))
    masks = np.zeros(far.shape, bool)
    for mask, one, peak in zip(masks, smooth, strong, strict=True):
        if peak < max(UNSEEN, DIM * strong.max()) or strong.max() < DISTANCE:
            continue
        labels, found = ndimage.label(one > max(LEAST, DISTANCE * peak / strong.max()), np.ones((3, 3)))
        areas = np.bincount(labels.ravel(), minlength=found + 1)
        areas[0] = 0
        if areas.max() >= SPECK * mask.size:
            kept = areas >= 0.05 * areas.max()  # drops what noise there is
            mask[:] = ndimage.binary_fill_holes(kept[labels])
    return masks


def _rings(signed: Array, mask: NDArray[np.bool_], place: Array) -> Array:
    """The subject about its centre, (360, RINGS, 3): degrees clockwise from the right, radii by its size."""
    radius = 1.5 * math.sqrt(mask.sum() / math.pi)
    shown = signed * mask[..., None]
    found: Array = warp_polar(shown, place, radius=radius, output_shape=(360, RINGS), channel_axis=-1)
    return found * np.sqrt(np.arange(RINGS) + 0.5)[:, None]  # by the area of each ring


def _turn(one: Array, other: Array) -> float:
    """Degrees clockwise from one's rings to the other's, of at most TURN, by their circular correlation."""
    product = np.fft.rfft(one, axis=0).conj() * np.fft.rfft(other, axis=0)
    likeness = np.fft.irfft(product.sum((1, 2)), 360)[np.arange(-TURN, TURN + 1)]
    best = int(likeness.argmax())
    if not 0 < best < 2 * TURN:
        return float(best - TURN)
    before, peak, after = likeness[best - 1 : best + 2]
    bend = 2 * peak - before - after
    return float(best - TURN + (0.5 * (after - before) / bend if bend > 1e-9 * peak else 0))


def _strokes(values: Array, least: float) -> list[float]:
    """How far values go one way and then the other, in turn, where it is so far at least."""
    strokes: list[float] = []
    low = high = end = values[0]
    for value in values:
        if strokes and (value - end) * strokes[-1] >= 0:
            strokes[-1] += value - end
        elif strokes and abs(value - end) >= least:
            strokes.append(value - end)
        elif not strokes:
            low, high = min(low, value), max(high, value)
            if high - low >= least:
                strokes.append(high - low if value == high else low - high)
            else:
                continue
        else:
            continue
        end = value
    return [float(stroke) for stroke in strokes]


def _flies(found: Track, along: Array, across: Array, sign: int) -> bool:
    """One way only, farther than across it, at one size."""
    way = _strokes(along, SWING)
    straight = np.ptp(across) < max(SWING, 0.4 * np.ptp(along))
    return len(way) == 1 and way[0] * sign >= TRAVEL and straight and _still(np.log(found.scale), VARIED)


def _swings(found: Track, along: Array, across: Array) -> bool:
    """To and fro along one axis, keeping its place on the other, and not turning over."""
    aside = max(SWING, 0.5 * np.ptp(along))
    return len(_strokes(along, SWING)) > 1 and np.ptp(across) < aside and _still(found.turned, ROUND)


def _grows(found: Track, sign: int) -> bool:
    way = _strokes(np.log(found.scale), BEAT)
    return len(way) == 1 and way[0] * sign >= GROWTH and _stays(found) and _still(found.turned, ROUND)


def _fades(found: Track, sign: int) -> bool:
    way = _strokes(found.contrast / found.contrast.max(), GLOW)
    same = _still(np.log(found.scale), VARIED) and _still(found.turned, ROUND)
    return len(way) == 1 and way[0] * sign >= FADE and same and _stays(found)


def _spins(found: Track, sign: int) -> bool:
    way = _strokes(found.turned, TILT)
    near = np.ptp(found.x) < WANDER and np.ptp(found.y) < WANDER
    return len(way) == 1 and way[0] * sign >= ROUND and near and _still(np.log(found.scale), VARIED)


def _pulses(found: Track) -> bool:
    beats = len(_strokes(np.log(found.scale), BEAT)) > 1 and not _still(np.log(found.scale), SAME)
    return beats and _stays(found) and _still(found.turned, ROUND)


def _stands(found: Track) -> bool:
    same = _still(np.log(found.scale), SAME) and _still(found.contrast / found.contrast.max(), GLOW)
    return same and _stays(found) and _still(found.turned, TILT)


def _stays(found: Track) -> bool:
    return _still(found.x, SWING) and _still(found.y, SWING)


def _still(values: Array, least: float) -> bool:
    return bool(np.ptp(values) < least)


MOTIONS: dict[str, Callable[[Track], bool]] = {
    "flying from left to right": lambda found: _flies(found, found.x, found.y, 1),
    "flying from right to left": lambda found: _flies(found, found.x, found.y, -1),
    "rising": lambda found: _flies(found, found.y, found.x, -1),
    "falling": lambda found: _flies(found, found.y, found.x, 1),
    "bouncing": lambda found: _swings(found, found.y, found.x),
    "swinging from side to side": lambda found: _swings(found, found.x, found.y),
    "spinning clockwise": lambda found: _spins(found, 1),
    "spinning counterclockwise": lambda found: _spins(found, -1),
    "growing": lambda found: _grows(found, 1),
    "shrinking": lambda found: _grows(found, -1),
    "pulsing": _pulses,
    "fading in": lambda found: _fades(found, 1),
    "fading out": lambda found: _fades(found, -1),
    "standing still": _stands,
}


def _check(frames: Frames) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) < 2 or frames.dtype != np.uint8:
        must = "it must be (T, H, W, 3) uint8 with two frames or more"
        raise ValueError(f"frames is {frames.shape} {frames.dtype}; {must}")
