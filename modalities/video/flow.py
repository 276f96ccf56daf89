"""How the picture moves from frame to frame, the frames between, and how much clips flicker.

Shapes: T frames, H W picture, C = 3 colours or 4 with the coverage. A flow (2, H, W) float32 says for each
pixel of one frame how many rows down and columns to the right the same point lies in another.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import optical_flow_tvl1

Frames = NDArray[np.uint8]
Array = NDArray[np.float32]
LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255
AGREE = 25.0  # mean squared difference, 8-bit, of two warped frames of which either may be shown


def flow(one: Frames, other: Frames) -> Array:
    """Where the points of one frame lie in another.

    TV-L1 with fewer turns than scikit-image's own: half the time at 192 px, and frames between
    that are as good.

    Args:
        one: (H, W, C) uint8.
        other: (H, W, C) uint8.
    Returns: (2, H, W) float32, pixels: down, to the right.
    Source: Zach et al. 2007, doi 10.1007/978-3-540-74936-3_22; Wedel et al. 2009.
    """
    found: Array = optical_flow_tvl1(_light(one), _light(other), num_warp=5, num_iter=5, tol=1e-3)
    return found


def warped(values: Array, by: Array) -> Array:
    """What lies, seen from each pixel, where a flow says.

    Args:
        values: (H, W) or (H, W, C) float32.
        by: (2, H, W) float32.
    Returns: as `values`; beyond the border its nearest pixel.
    """
    at = np.mgrid[: values.shape[0], : values.shape[1]] + by
    planes = values.reshape(*values.shape[:2], -1)
    planes = np.moveaxis(planes, -1, 0)
    made = [ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in planes]
    return np.stack(made, -1).reshape(values.shape)


def interpolated(frames: Frames, times: int, loop: bool = False) -> Frames:
    """The clip at a higher rate: between two neighbours, both are moved along the flow and blended.

    The flow of each neighbour to the other is carried to the moment between, which moves both there twice; of
    the two ways the one counts more in which the moved frames agree. Where they do not agree, a point is
    hidden in one of them, and the nearer frame is shown.

    Args:
        frames: (T, H, W, C) uint8, T of 2 or more.
        times: how many frames shall be where one was.
        loop: whether frames are also made between the last and the first.
    Returns: (times * T, H, W, C) uint8 if `loop`, else (times * (T - 1) + 1, H, W, C); the given ones as
        they are.
    Raises: ValueError for frames of another shape or type, or `times` below 1.
    Source: after Niklaus and Liu 2020, arXiv 2003.05534, who weight what meets by brightness constancy too;
        but here the flow is carried forward, and the colours are then fetched backward.
    """
    _check(frames)
    if times < 1:
        raise ValueError(f"times is {times}; it must be 1 or more")
    made: list[Array | Frames] = []
    count = len(frames)
    for i in range(count if loop else count - 1):
        one, other = frames[i], frames[(i + 1) % count]
        made.append(one)
        made.extend(_between(one, other, [n / times for n in range(1, times)]))
    return np.stack(made if loop else [*made, frames[-1]])


def warping_error(frames: Frames) -> float:
    """Flicker: the mean squared difference of each frame to the one before moved onto it, colours in [0, 1].

    Points that are hidden in one of the two do not count: where the flows there and back do not cancel, and
    at the edges of what moves.

    Args:
        frames: (T, H, W, C) uint8, T of 2 or more.
    Raises: ValueError for frames of another shape or type.
    Source: Lai et al. 2018, arXiv 1808.00449, temporal stability; which points are hidden: Ruder et al. 2016,
        arXiv 1604.08610.
    """
    _check(frames)
    errors = []
    for before, frame in pairwise(frames):
        there, back = flow(frame, before), flow(before, frame)
        returned = np.moveaxis(warped(np.moveaxis(back, 0, -1), there), -1, 0)
        lengths = np.square(there).sum(0) + np.square(returned).sum(0)
        bends = np.square(np.gradient(there, axis=(1, 2))).sum((0, 1))
        seen = np.square(there + returned).sum(0) <= 0.01 * lengths + 0.5
        seen &= bends <= 0.01 * np.square(there).sum(0) + 0.002
        differences = np.square(frame / np.float32(255) - warped(before / np.float32(255), there)).mean(-1)
        if seen.any():
            errors.append(float(differences[seen].mean()))
    return float(np.mean(errors)) if errors else 0.0


def _between(one: Frames, other: Frames, moments: list[float]) -> list[Frames]:
    """Frames (H, W, C) at moments in (0, 1) between two."""
    if not moments or np.array_equal(one, other):
        return [one] * len(moments)
    start, end = _weighted(one), _weighted(other)
    there, back = flow(one, other), flow(other, one)
    misses = [np.square(a - warped(b, by)).mean(-1) for a, b, by in ((start, end, there), (end, start, back))]
    made = []
    for t in moments:
        ways = [_carried(there, misses[0], t), -_carried(back, misses[1], 1 - t)]
        total = blend = np.float32(0)
        for way in ways:
            first, second = warped(start, -t * way), warped(end, (1 - t) * way)
            apart = ndimage.gaussian_filter(np.square(first - second).mean(-1), 1)[..., None]
            hidden = apart / (apart + 40 * AGREE)
            part = t + hidden * ((np.sign(t - 0.5) + 1) / 2 - t)  # halfway, neither is nearer
            trust = 1 / (apart + AGREE)
            total, blend = total + trust, blend + trust * ((1 - part) * first + part * second)
        made.append(_plain(blend / total))
    return made


def _carried(by: Array, misses: Array, t: float) -> Array:
    """A flow (2, H, W) as it lies at the moment t of it.

    Of points that meet, the one with the least `misses` (H, W) stays; where there is none, the nearest.
    """
    height, width = misses.shape
    row, column = np.rint(np.mgrid[:height, :width] + t * by).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    order = np.argsort(-misses[inside], kind="stable")  # the last one stays
    at = (row[inside][order], column[inside][order])
    made, empty = np.zeros_like(by), np.ones((height, width), bool)
    made[:, at[0], at[1]] = by[:, inside][:, order]
    empty[at] = False
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return made[:, nearest[0], nearest[1]]


def _light(frame: Frames) -> Array:
    """What the flow is found by, (H, W) in [0, 1]: the light, and of cut-out subjects also where they are."""
    light: Array = frame[..., :3] @ LUMA
    return light if frame.shape[-1] == 3 else frame[..., 3] / np.float32(255) * (0.25 + 0.75 * light)


def _weighted(frame: Frames) -> Array:
    """Colours times their coverage (H, W, C), which may be blended."""
    made = frame.astype(np.float32)
    if made.shape[-1] == 4:
        made[..., :3] *= made[..., 3:] / 255
    return made


def _plain(made: Array) -> Frames:
    """The frame of colours times coverage."""
    if made.shape[-1] == 4:
        made = np.concatenate([made[..., :3] * 255 / np.maximum(made[..., 3:], 1), made[..., 3:]], -1)
    return np.rint(made).clip(0, 255).astype(np.uint8)


def _check(frames: Frames) -> None:
    if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or len(frames) < 2 or frames.dtype != np.uint8:
        must = "it must be (T, H, W, 3 or 4) uint8 with two frames or more"
        raise ValueError(f"frames is {frames.shape} {frames.dtype}; {must}")
