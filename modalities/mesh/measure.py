"""What shows of a mesh to the network that names shapes, how far it is from others, whether its files hold.

Distances are in the scale in which the largest extent is EXTENT, 1.8. Shapes: N and M points of a surface.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from modalities.mesh.read import Array, colours_at
from modalities.mesh.sample import EXTENT, centred, scattered
from modalities.naming import Namer
from modalities.naming import namer as load_namer

Cloud = tuple[Array, Array]  # points (N, 3) float32 in [-1, 1], colours (N, 3) uint8 sRGB
SIDE = 48  # pixels of a look
DOT = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), -1).reshape(-1, 2)  # pixels that a point covers
LOOKS = np.array([  # from the front, from +x, from above; columns: to the right, up, to the eye
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
], np.float32)  # fmt: skip
WITHIN = 0.02 * EXTENT  # of the F-score
SCRIPT = """
import fs from "node:fs";
import { createRequire } from "node:module";
const [modules, ...files] = process.argv.slice(1);
const auditing = modules + "/@khronosgroup/gltf-asset-auditor/";
const validator = createRequire(modules + "/")("gltf-validator");
const { Auditor } = await import(auditing + "dist/Auditor.js");
const told = [];
for (const file of files) {
    const { issues } = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)));
    const auditor = new Auditor();
    await auditor.schema.loadFromFileSystem(auditing + "tests/schemas/khronos-recommended.json");
    auditor.schema.maxPixelsPerMeter.loadValue(-1);  // with 512 texels, small things cannot
    await auditor.model.loadFromFileSystem([file]);
    await auditor.generateReport();
    const failed = auditor.report.getItems().filter(item => item.tested && !item.pass);
    told.push([...issues.messages, ...failed].map(one => (one.name ?? one.code) + ": " + one.message));
}
fs.writeSync(1, JSON.stringify(told));
process.exit(0);
"""


def cloud_of(mesh: trimesh.Trimesh, rng: np.random.Generator, count: int = 2048) -> Cloud:
    """N = `count` points of a mesh, even by area, about the origin with the largest extent EXTENT."""
    mesh = centred(mesh)
    points, faces, weights = scattered(mesh, rng, count)
    return points.astype(np.float32), colours_at(mesh, faces, weights)


def views(points: Array, colours: Array) -> Array:
    """What the judge sees: from the front, the side and above each the depth, the colour and the coverage.

    Args:
        points: (N, 3) float in [-1, 1].
        colours: (N, 3) uint8, sRGB.
    Returns: (15, SIDE, SIDE) float32 in [-1, 1]; where there is nothing, depth and coverage -1, colour 0.
    """
    across, up, depth = np.moveaxis(points.astype(np.float32) @ LOOKS, -1, 0)  # each (3, N)
    order = depth.argsort(1)  # the nearest is put last
    column, row = (((x + 1) * (SIDE / 2)).astype(int)[..., None] for x in (across, -up))
    column, row = ((x + d).clip(0, SIDE - 1) for x, d in zip((column, row), DOT.T, strict=True))
    at = (np.arange(3)[:, None, None] * SIDE + row) * SIDE + column
    front = np.full(3 * SIDE * SIDE, -1)
    front[np.take_along_axis(at, order[..., None], 1).ravel()] = np.repeat(order.ravel(), len(DOT))
    seen = front.reshape(3, -1)
    made = np.zeros((3, 5, SIDE * SIDE), np.float32)
    made[:, 0] = np.take_along_axis(depth, seen.clip(0), 1)
    made[:, 1:4] = np.moveaxis(colours[seen] / np.float32(127.5) - 1, -1, 1)
    made[:, 4] = 1
    empty = np.array([-1, 0, 0, 0, -1], np.float32)[:, None]
    return np.where(seen[:, None] < 0, empty, made).reshape(15, SIDE, SIDE)


def tensor(clouds: Sequence[Cloud]) -> Tensor:
    """The views of clouds, (B, 15, SIDE, SIDE)."""
    return torch.from_numpy(np.stack([views(*cloud) for cloud in clouds]))


def namer(names: Sequence[str], model: str | Path = "mesh-judge") -> tuple[Namer, dict[str, Any]]:
    """The shipped judge for these names, and its config."""
    return load_namer(model, names, tensor)


def nearest(x: Array, y: Array) -> Array:
    """(N,) how far each of x (N, 3) is from the nearest of y (M, 3)."""
    found: Array = cKDTree(y).query(x)[0]
    return found


def chamfer(x: Array, y: Array) -> float:
    """The mean squared distance of points (N, 3), (M, 3) to the nearest of the others, both ways added.

    Source: Yang et al. 2019, arXiv 1906.12320 (PointFlow), section 5.1, of means.
    """
    return float(np.square(nearest(x, y)).mean() + np.square(nearest(y, x)).mean())


def f_score(x: Array, y: Array, within: float = WITHIN) -> float:
    """The harmonic mean of the shares of points (N, 3), (M, 3) that have one of the others so near.

    Source: Knapitsch et al. 2017, doi 10.1145/3072959.3073599; Tatarchenko et al. 2019, arXiv 1905.03678.
    """
    precision, recall = (float((nearest(*pair) < within).mean()) for pair in ((x, y), (y, x)))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def likeness(made: Sequence[Array], real: Sequence[Array]) -> dict[str, float]:
    """How like two sets of shapes are, by the Chamfer distance of each to each.

    Args:
        made: points (N, 3) of each shape that was drawn.
        real: points of as many real ones.
    Returns: `coverage`: the share of the real shapes that are the nearest of one drawn at least, 1 is best;
        `1-NNA`: the share of all whose nearest neighbour is of their own set, 0.5 is best.
    Source: Yang et al. 2019, arXiv 1906.12320 (PointFlow), section 5.1.
    """
    every, count = [*made, *real], len(made)
    trees = [cKDTree(points) for points in every]
    one_way = [[np.square(tree.query(points)[0]).mean() for tree in trees] for points in every]
    far = np.array(one_way) + np.transpose(one_way)
    covered = len(set(far[:count, count:].argmin(1).tolist())) / len(real)
    np.fill_diagonal(far, np.inf)
    of_made = np.arange(len(every)) < count
    return {"coverage": covered, "1-NNA": float((of_made[far.argmin(1)] == of_made).mean())}


def faults_gltf(paths: Sequence[Path]) -> list[list[str]] | None:
    """What Khronos' validator, hints too, and asset auditor find fault with in each GLB file.

    Both are npm packages in the folder SUITE_NODE_MODULES, or ./node_modules; None where they are not there.
    They come by `npm i --ignore-scripts gltf-validator @khronosgroup/gltf-asset-auditor` with `"overrides":
    {"canvas": "npm:@napi-rs/canvas"}` in package.json. The auditor's texels a metre are not asked for.
    """
    node = shutil.which("node")
    modules = Path(os.environ.get("SUITE_NODE_MODULES", "node_modules")).absolute()
    needed = (modules / "@khronosgroup" / "gltf-asset-auditor" / "dist", modules / "gltf-validator")
    if not node or not all(folder.is_dir() for folder in needed):
        return None
    command = [node, "--input-type=module", "-e", SCRIPT, "--", modules, *paths]
    found: list[list[str]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def faults_usd(paths: Sequence[Path]) -> list[list[str]] | None:
    """What OpenUSD's validators find fault with in each USDZ file; None without usd-core."""
    try:
        from pxr import Usd, UsdValidation
    except ImportError:
        return None
    context = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators())
    return [[error.GetMessage() for error in context.Validate(Usd.Stage.Open(str(path)))] for path in paths]


def sound(faults: Sequence[Sequence[str]] | None) -> float | None:
    """The share of files without faults; None of none."""
    return float(np.mean([not found for found in faults])) if faults else None
