"""Seconds of a finished mesh by step, wall time on every core, as shares of the ten that one may take."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from modalities.mesh import adapter, load
from modalities.mesh.finish import decimated, finish, surface_of, watertight, with_normals, without_floaters
from modalities.mesh.unwrap import baked, unwrapped
from suite.bench import Row, least

BUDGET = 10.0  # seconds, from a prompt to a file, and for finishing a mesh of MANY triangles
MANY = 100_000


def rows(quick: bool, model: str = "mesh") -> Iterator[Row]:
    """Every step from a prompt to a GLB, then of finishing a large mesh from elsewhere."""
    repeats, cores = (1, 3)[not quick], f"wall time on {os.cpu_count()} cores"

    def row(name: str, call: Any, against: float = BUDGET, target: float | None = None, note: str = cores
            ) -> Row:  # fmt: skip
        (best,) = least([call], repeats, clock=time.perf_counter)
        return Row("assets", name, best, against, "s", target, repeats, note)

    pipe = load(model, "cpu")
    request = pipe.request("a wooden chair", **({"num_inference_steps": 2} if quick else {}))
    kept: list[Any] = []
    decode, end = pipe.latent.decode, adapter.finish
    latents = [step.denoised for step in pipe.trace(request)][-1]
    field = decode(latents)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "chair.glb")
        yield row("prompt to GLB", lambda: pipe.run(request).items[0].save(whole), target=1.0)
        yield row("of it: decoding", partial(decode, latents))
        yield row("of it: surface", lambda: surface_of(field[0].numpy()))
        yield row("of it: surface and finishing", lambda: kept.append(end(field, request)))
        yield row("of it: saving", lambda: kept[0][0].save(whole))
    large = bumpy(8_000 if quick else MANY)
    told = f"of {len(large.faces)} triangles, {cores}"
    yield row("finish a mesh", partial(finish, large), target=1.0, note=told)
    yield row("of it: watertight", partial(watertight, large), note=told)
    closed = without_floaters(watertight(large))
    yield row("of it: decimation", partial(decimated, closed, 20_000), note=told)
    fewer = decimated(closed, 20_000)
    few = f"of {len(fewer.faces)} triangles, {cores}"
    yield row("of it: unwrapping", partial(unwrapped, fewer), note=few)
    unfolded = with_normals(unwrapped(fewer))
    yield row("of it: baking", partial(baked, unfolded, large, 1024), note="1024 texels a side, " + cores)
    if find_spec("xatlas"):
        import xatlas

        start = time.perf_counter()  # once: it takes minutes
        xatlas.parametrize(large.vertices.astype(np.float32), large.faces.astype(np.uint32))
        theirs = time.perf_counter() - start
        yield row("unwrap it undecimated, against xatlas", partial(unwrapped, large), theirs, note=told)


def bumpy(triangles: int) -> trimesh.Trimesh:
    """A closed, coloured surface with bumps and a handle, of about so many triangles."""
    cells = round((triangles / 3.3) ** 0.5)
    x, y, z = np.meshgrid(*[(np.arange(cells) + 0.5) * 2 / cells - 1] * 3, indexing="ij")
    ball = 0.55 + 0.03 * np.sin(20 * x) * np.sin(20 * y) * np.sin(20 * z) - np.sqrt(x**2 + y**2 + z**2)
    handle = 0.07 - np.hypot(np.hypot(x - 0.55, y) - 0.3, z)
    return surface_of(np.stack([np.maximum(ball, handle) * cells, x, y, z]).astype(np.float32))
