"""A picture of one thing as tokens beside those of the text: what a mesh is to look like from somewhere.

All that is kept is a thumbnail of SIDE pixels, colour and coverage, cut to the thing: so a splat of coloured
points, by which a model learns, is as good as a photo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from modalities.image.read import opened as open_picture
from modalities.mesh.render import camera, focal

Array = NDArray[Any]
SIDE, PATCH = 32, 8  # pixels of the thumbnail and of a token's patch
TOKENS = (SIDE // PATCH) ** 2
YAW, PITCH = (-60.0, 60.0), (0.0, 40.0)  # degrees of the cameras that a model learns from
AMBIENT = (0.45, 0.75)  # of the light
FAR = 28.0  # of 441, how far from the border's colours a pixel is no ground
LEAST = 0.004  # of the picture, that a thing covers


def tokens(picture: Array) -> Array:
    """(SIDE, SIDE, 4) uint8 to tokens (TOKENS, 272) float32: a patch's colours, coverage and place."""
    light = picture / 127.5 - 1
    light[..., :3] *= picture[..., 3:] / 255
    across = SIDE // PATCH
    cells = light.reshape(across, PATCH, across, PATCH, 4).swapaxes(1, 2).reshape(TOKENS, -1)
    return np.concatenate([cells, 2 * np.eye(TOKENS)], 1).astype(np.float32)


def splat(points: Array, normals: Array, colours: Array, rng: np.random.Generator) -> Array:
    """Points (N, 3), normals (N, 3), sRGB (N, 3) as a camera in front sees them, in light from above.

    Returns: (SIDE, SIDE, 4) uint8.
    """
    finer = 2 * SIDE
    pose = camera(points, 1, rng.uniform(*YAW), rng.uniform(*PITCH))
    to = pose[:3, 3] - points
    seen = np.flatnonzero((to * normals).sum(1) > 0)
    x, y, z = ((points[seen] - pose[:3, 3]) @ pose[:3, :3]).T
    near = focal(finer) / -z
    lamp = pose[:3, :3] @ [rng.uniform(-1, 1), 1.0, rng.uniform(0.3, 1)]
    ambient = rng.uniform(*AMBIENT)
    shade = ambient + (1 - ambient) * (normals[seen] @ (lamp / np.linalg.norm(lamp))).clip(0)
    shaded = np.concatenate([colours[seen] * shade[:, None], np.full((len(seen), 1), 255)], 1)
    image = np.zeros((finer, finer, 4), np.uint8)
    order = np.argsort(z)  # the nearest is painted last
    column, row = (finer / 2 + x * near)[order], (finer / 2 - y * near)[order]
    places = [np.stack([row + down, column + right], 1) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    at = np.stack(places, 1).reshape(-1, 2).astype(int).clip(0, finer - 1)
    image[at[:, 0], at[:, 1]] = np.repeat(shaded[order], len(places), 0)
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))


def opened(source: Any) -> Image.Image:
    """The picture of a path or in memory; ValueError, in one sentence, if it is none or shows nothing."""
    picture = open_picture("image", source)
    cut(picture)
    return picture


def cut(picture: Image.Image) -> Array:
    """The thing that a picture shows, cut out: (SIDE, SIDE, 4) uint8.

    What is transparent is ground; of an opaque picture, all that is connected to the border in its colours.

    Args:
        picture: any, of one thing on a plain or transparent ground.
    Raises: ValueError, in one sentence, if nothing stands out.
    """
    image = picture.convert("RGBA")
    image.thumbnail((256, 256))
    pixels = cut_out(image)
    shown = pixels[..., 3] > 127
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    box = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(box.shape[:2])  # as far as the points of a splat reach
    square = Image.new("RGBA", (side, side))
    square.paste(Image.fromarray(box), ((side - box.shape[1]) // 2, (side - box.shape[0]) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX))


def cut_out(picture: Image.Image) -> Array:
    """An RGBA picture (H, W, 4) uint8 whose ground is transparent.

    Raises: ValueError, in one sentence, if nothing stands out.
    """
    pixels = np.array(picture)
    if pixels[..., 3].min() > 127:
        pixels[..., 3] = _object(pixels[..., :3].astype(np.float32))
    shown = pixels[..., 3] > 127
    if shown.mean() < LEAST or shown.all():
        raise ValueError(
            "image shows nothing that stands out; it must be of one thing on a plain or transparent ground"
        )
    return pixels


def _object(pixels: Array) -> Array:
    """(H, W) 255 where a picture is not its ground: what its colours do not reach from the border."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle = np.median(border, axis=0)
    alike = np.linalg.norm(pixels - middle, axis=-1) < FAR
    parts, _ = ndimage.label(alike)
    reached = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    ground = np.isin(parts, reached[reached > 0])
    whole = ndimage.binary_opening(~ground, np.ones((3, 3)))
    parts, count = ndimage.label(whole)
    if count > 1:  # specks and shadows beside the thing
        sizes = np.bincount(parts.ravel())[1:]
        whole = np.isin(parts, np.flatnonzero(sizes > 0.1 * sizes.max()) + 1)
    return 255.0 * whole
