"""A coloured triangle mesh as a picture: points of its surface, shaded, the nearest on top."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

LIGHT = np.array([0.35, 0.8, 0.5]) / np.linalg.norm([0.35, 0.8, 0.5])
POINTS_PER_PIXEL = 8


def render(path: Path, side: int, yaw: float = 30.0, pitch: float = 22.0) -> Image.Image:
    """Draws a mesh in parallel projection from in front, a little to the right and above.

    Args:
        path: of the `.npz`: vertices (V, 3) uint16 over bounds (2, 3), faces (F, 3), colors (F, 3) sRGB.
        side: of the picture, in pixels.
        yaw: degrees by which the mesh is turned about its height.
        pitch: degrees from above.

    Returns: RGBA, on a transparent ground.
    """
    with np.load(path) as file:
        low, high = file["bounds"]
        vertices = low + file["vertices"] / 65535 * (high - low)
        faces, colours = file["faces"], file["colors"]
    turn, tilt = np.radians(yaw), np.radians(pitch)
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    corners = (vertices @ (about_x @ about_y).T)[faces]
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    corners = (corners - (low + high) / 2) / (high - low)[:2].max()  # x, y within [-0.5, 0.5], z towards us
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    facing = np.abs(normals @ LIGHT) / np.maximum(areas, 1e-12)
    shaded = colours * (0.55 + 0.5 * facing)[:, None]

    rng = np.random.default_rng(0)
    count = POINTS_PER_PIXEL * side * side
    share = np.abs(normals[:, 2]) + 0.1 * areas  # as much as a face shows, and some for those seen edge on
    chosen = np.sort(rng.choice(len(faces), count, p=share / share.sum()))
    a, b = rng.random((2, count, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    first, second, third = corners[chosen].transpose(1, 0, 2)
    points = first + a * (second - first) + b * (third - first)
    order = np.argsort(points[:, 2])  # far to near: where points meet, the last one written stays
    places = np.array([points[:, 0], -points[:, 1]]) * (side - 1) + side / 2
    columns, rows = places.clip(0, side - 1).astype(int)
    picture = np.zeros((side, side, 4), np.uint8)
    picture[rows[order], columns[order], :3] = shaded[chosen[order]].clip(0, 255)
    picture[rows[order], columns[order], 3] = 255
    return Image.fromarray(picture).filter(ImageFilter.MedianFilter(3))  # closes what no point has met
