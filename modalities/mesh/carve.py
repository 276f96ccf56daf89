"""Photos of one thing from several sides become a coloured field: the thing is where none shows its ground.

A folder with `transforms.json`, as NeRF's data sets and instant-ngp have it, says where its cameras stood;
any other folder is taken for one turn on a turntable, in the order of the names.

Source: Laurentini 1994, doi 10.1109/34.273735 (the visual hull).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from modalities.image.read import opened
from modalities.mesh.picture import cut_out
from modalities.mesh.render import FIELD
from modalities.mesh.sample import EXTENT

Array = NDArray[Any]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CELLS, PIXELS = 112, 384  # of the field, and of a photo at most, along a side
LEAST, MOST = 3, 200  # photos
STEEP = 8.0  # of the field, in logits a cell
SHARP = 6  # power of the cosine by which a photo counts that sees a place at a slant


def field_of(folder: str | Path, elevation: float = 0.0) -> Array:
    """The field (4, R, R, R) as `finish.surface_of` takes it, of the photos in a folder.

    Args:
        folder: photos of one thing on plain or transparent grounds, and perhaps `transforms.json`.
        elevation: degrees from above, of the camera before a turntable.
    Raises: ValueError, in one sentence, if they cannot be used.
    """
    masks, colours, rays = zip(*_photos(Path(folder), elevation), strict=True)
    low, high = _bounds(masks, rays)
    middle, reach = (low + high) / 2, (high - low).max() / EXTENT
    along = (np.arange(CELLS) + 0.5) * 2 / CELLS - 1
    places = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3) * reach + middle
    inside, open_yet = np.full(len(places), STEEP, np.float32), np.arange(len(places))
    for mask, ray in zip(masks, rays, strict=True):
        x, y, _ = ray(places[open_yet])
        seen = ndimage.map_coordinates(mask, (y, x), order=1, cval=-STEEP)
        inside[open_yet] = np.minimum(inside[open_yet], seen)
        open_yet = open_yet[inside[open_yet] > -STEEP]
    field = inside.reshape(CELLS, CELLS, CELLS)
    away = np.stack(np.gradient(-ndimage.gaussian_filter(field, 1.5)), -1).reshape(-1, 3)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    thing = field > 0
    border = ndimage.binary_dilation(thing, iterations=2) & ~ndimage.binary_erosion(thing, iterations=2)
    near = np.flatnonzero(border)
    total, weights = np.zeros((len(near), 3)), np.full((len(near), 1), 1e-9)
    for mask, colour, ray in zip(masks, colours, rays, strict=True):
        x, y, towards = ray(places[near])
        weight = (away[near] * towards).sum(1).clip(0)[:, None] ** SHARP
        weight *= ndimage.map_coordinates(mask, (y, x), order=1, cval=-STEEP)[:, None] > -STEEP
        seen = [ndimage.map_coordinates(part, (y, x), order=1, mode="nearest") for part in colour]
        total, weights = total + weight * np.stack(seen, 1), weights + weight
    painted = np.zeros((3, len(places)), np.float32)
    painted[:, near] = (total / weights).T / 127.5 - 1
    return np.concatenate([field[None], painted.reshape(3, CELLS, CELLS, CELLS)]).astype(np.float32)


def _photos(folder: Path, elevation: float) -> list[tuple[Array, Array, Camera]]:
    """Of each photo: how deep inside the thing a pixel is, (H, W); its colours (3, H, W); its camera."""
    shown = f"photos is {str(folder)!r}"
    if not folder.is_dir():
        raise ValueError(f"{shown}; it must be a folder of photos")
    known = folder / "transforms.json"
    if known.is_file():
        try:
            told = json.loads(known.read_text("utf-8"))
            angle = float(told["camera_angle_x"])
            frames = [(folder / row["file_path"], np.array(row["transform_matrix"], float).reshape(4, 4))
                      for row in told["frames"]]  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{shown}, whose transforms.json cannot be read ({error})") from None
        frames = [(path if path.suffix else path.with_suffix(".png"), pose) for path, pose in frames]
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        angle = np.radians(FIELD)
        frames = [(path, turned(360 * i / len(paths), elevation)) for i, path in enumerate(paths)]
    if not LEAST <= len(frames) <= MOST:
        raise ValueError(f"{shown}, which holds {len(frames)} photos; they must be {LEAST} to {MOST}")
    found = []
    for path, pose in frames:
        image = opened("photos", str(path)).convert("RGBA")
        image.thumbnail((PIXELS, PIXELS))
        pixels = cut_out(image)
        deep = ndimage.gaussian_filter(pixels[..., 3].astype(np.float32) / 255, 0.5) - 0.5
        colours = pixels[..., :3].astype(np.float32).transpose(2, 0, 1)
        found.append((2 * STEEP * deep, colours, Camera(pose, image.width, image.height, angle)))
    return found


def turned(yaw: float, elevation: float) -> Array:
    """The pose (4, 4) of a camera that sees [-1, 1] about the origin, the thing turned by `yaw` degrees."""
    turn, tilt = np.radians([yaw, elevation])
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    pose = np.eye(4)
    pose[:3, :3] = (about_x @ about_y).T
    pose[:3, 3] = pose[:3, 2] / np.tan(np.radians(FIELD / 2))
    return pose


class Camera:
    """A camera that sees along -z of its axes, x to the right and y up."""

    def __init__(self, pose: Array, width: int, height: int, angle: float) -> None:
        """Takes the pose (4, 4) from its axes to the places', the photo's size, the angle it sees across."""
        self.pose, self.half = pose, np.tan(angle / 2) * max(1.0, height / width)
        self.middle, self.focal = np.array([width, height]) / 2 - 0.5, width / 2 / np.tan(angle / 2)

    def __call__(self, places: Array) -> tuple[Array, Array, Array]:
        """Of places (N, 3) the pixel, x (N,) and y (N,), and the way to the camera (N, 3)."""
        to = self.pose[:3, 3] - places
        x, y, z = (-to @ self.pose[:3, :3]).T
        near, way = self.focal / np.maximum(-z, 1e-6), to / np.linalg.norm(to, axis=1, keepdims=True)
        return self.middle[0] + x * near, self.middle[1] - y * near, way


def _bounds(masks: Any, rays: Any, cells: int = 64) -> tuple[Array, Array]:
    """The corners of a box around what all photos show, where the cameras look."""
    poses = np.stack([ray.pose for ray in rays])
    across = np.eye(3) - poses[:, :3, 2, None] * poses[:, None, :3, 2]
    middle = np.linalg.lstsq(across.sum(0), np.einsum("nij,nj->i", across, poses[:, :3, 3]), rcond=None)[0]
    far = np.linalg.norm(poses[:, :3, 3] - middle, axis=1)
    reach = 1.5 * max(f * ray.half for f, ray in zip(far, rays, strict=True))
    along = (np.arange(cells) + 0.5) * 2 / cells - 1
    places = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3) * reach + middle
    inside = np.ones(len(places), bool)
    for mask, ray in zip(masks, rays, strict=True):
        x, y, _ = ray(places)
        inside &= ndimage.map_coordinates(mask, (y, x), order=1, cval=-STEEP) > -STEEP / 2
    if not inside.any():
        raise ValueError("photos show nothing that all of them have in common; look at their order")
    step = 2 * reach / cells
    return places[inside].min(0) - step, places[inside].max(0) + step
