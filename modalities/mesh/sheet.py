"""Pictures of points, for what is not a surface yet, and sheets of them or of meshes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from modalities.image.sheet import tiled
from modalities.mesh.render import PITCH, YAW, camera, focal

__all__ = ["cloud", "tiled"]

SIDE = 256  # pixels
DISC = 0.035  # the radius of a point's disc, where the points lie in [-1, 1]
GROUND = (244, 244, 246)
FRAME = np.array([[x, y, z] for x in (-0.9, 0.9) for y in (-0.9, 0.9) for z in (-0.9, 0.9)])


def cloud(points: NDArray[Any], side: int = SIDE) -> Image.Image:
    """Coloured points as discs, seen as `render` sees a mesh, the nearest on top.

    Args:
        points: (K, 6) float: position, then sRGB colour, all in [-1, 1].
        side: pixels.
    Returns: RGB.
    """
    finer = 2 * side
    pose = camera(FRAME, 1, YAW, PITCH)
    x, y, z = ((points[:, :3] - pose[:3, 3]) @ pose[:3, :3]).T
    near = focal(finer) / np.maximum(-z, 0.1)
    colours = np.rint((points[:, 3:].clip(-1, 1) + 1) * 127.5 * (0.8 + 0.2 * points[:, 1:2].clip(-1, 1)))
    picture = Image.new("RGB", (finer, finer), GROUND)
    draw = ImageDraw.Draw(picture)
    for i in np.argsort(z):
        across, down, reach = finer / 2 + x[i] * near[i], finer / 2 - y[i] * near[i], DISC * near[i]
        box = (across - reach, down - reach, across + reach, down + reach)
        draw.ellipse(box, fill=tuple(int(c) for c in colours[i]))
    return picture.resize((side, side), Image.Resampling.BOX)
