"""Grids: how deep inside a mesh each cell is, with which colour, and back to points and surfaces."""

import numpy as np
import pytest
import trimesh

from modalities.mesh.finish import surface_of
from modalities.mesh.grid import (
    CELL,
    CELLS,
    DEEP,
    SHEET,
    cloud_of,
    filled,
    gridded,
    shown,
    stretched,
    surface_points,
)
from modalities.mesh.sample import EXTENT

RED, BLUE = (200, 40, 40), (40, 60, 200)
ALONG = (np.arange(CELLS) + 0.5) * CELL - 1


def ball():
    """A ball, red on its left and blue on its right."""
    made = trimesh.creation.icosphere(subdivisions=4)
    left = made.triangles_center[:, 0] < 0
    made.visual.face_colors = np.where(left[:, None], RED, BLUE).astype(np.uint8)
    return made


def depth(grid):
    """How deep inside each cell is, in [-DEEP, DEEP]."""
    return (grid[0] / 127.5 - 1) * DEEP


def test_depth_is_the_distance_to_the_surface_and_colours_are_those_nearby():
    grid = gridded(ball())
    far = np.linalg.norm(np.stack(np.meshgrid(ALONG, ALONG, ALONG, indexing="ij")), axis=0)
    wanted = (EXTENT / 2 - far).clip(-DEEP, DEEP)
    assert np.abs(depth(grid) - wanted).max() < 0.1 * CELL
    near, left = shown(grid), np.broadcast_to((ALONG < -CELL)[:, None, None], far.shape)
    assert (grid[1:, near & left].T == RED).all() and (grid[1:, ~near] == 128).all()
    right = np.broadcast_to((ALONG > CELL)[:, None, None], far.shape)
    assert (grid[1:, near & right].T == BLUE).all()


@pytest.mark.parametrize("thickness", [0.0, 0.01, 0.03])
def test_what_is_thin_is_as_thick_as_the_least_and_has_no_hole(thickness):
    sheet = trimesh.Trimesh([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], [[0, 2, 1], [0, 3, 2]])
    mesh = trimesh.creation.box((EXTENT, thickness, EXTENT)) if thickness else sheet
    inside = depth(gridded(mesh))
    within = np.abs(ALONG) < 0.8
    columns = inside[within][:, :, within].transpose(0, 2, 1).reshape(-1, CELLS)
    solid = np.trapezoid((columns / CELL + 0.5).clip(0, 1), dx=CELL, axis=1)
    assert solid == pytest.approx(SHEET, abs=0.25 * CELL)
    made = surface_of(gridded(mesh) / 127.5 - 1)
    assert made.is_watertight and len(made.split()) == 1
    assert made.volume == pytest.approx((EXTENT + SHEET) ** 2 * SHEET, rel=0.2)


def test_what_is_thick_stays_as_it_is():
    made = surface_of(gridded(trimesh.creation.box((EXTENT, 0.3, 0.6))) / 127.5 - 1)
    assert made.extents == pytest.approx([EXTENT, 0.3, 0.6], abs=0.5 * CELL)
    assert made.volume == pytest.approx(EXTENT * 0.3 * 0.6, rel=0.05)


def test_points_of_a_grid_lie_on_the_surface_with_outward_normals():
    points, normals, colours = surface_points(gridded(ball()))
    assert np.linalg.norm(points, axis=1) == pytest.approx(EXTENT / 2, abs=0.1 * CELL)
    assert np.sum(normals * points, 1).min() > 0.98 * EXTENT / 2 and len(points) > 1200
    assert (colours[points[:, 0] < -0.1] == RED).all()


def test_colours_reach_into_the_cells_around_and_fade_where_they_are_far():
    grid = filled(gridded(ball()))
    assert (grid[0] == gridded(ball())[0]).all()
    middle = CELLS // 2
    edge = round((1 - EXTENT / 2) / CELL)
    assert np.abs(grid[1:, edge + 1, middle, middle].astype(int) - RED).max() < 2  # two cells inside
    assert (grid[1:, middle, middle, middle] == 128).all() and (grid[1:, 0, 0, 0] == 128).all()


@pytest.mark.parametrize("way", [np.diag([-1.1, 0.9, 1.0]), np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])])
def test_a_stretched_grid_is_the_grid_of_the_stretched_mesh(way):
    post, arm = trimesh.creation.box((0.6, 2, 0.6)), trimesh.creation.box((1.6, 0.5, 0.6))
    mesh = trimesh.util.concatenate([post, arm])
    mesh.vertices[8:] += (0.5, 0.7, 0)
    mesh.visual.face_colors = [RED] * 12 + [BLUE] * 12
    found = stretched(filled(gridded(mesh)), way)
    mesh.vertices = mesh.vertices @ way.T
    if np.linalg.det(way) < 0:
        mesh.invert()
    wanted = filled(gridded(mesh))
    clear = np.abs(depth(wanted)) > 0.5 * CELL
    assert ((depth(found) > 0) == (depth(wanted) > 0))[clear].mean() > 0.999
    far = np.abs(found[1:].astype(int) - wanted[1:])[:, shown(wanted)]
    assert np.median(far) < 3 and (far < 20).mean() > 0.85


def test_a_cloud_is_the_cells_of_the_surface():
    cloud = cloud_of(filled(gridded(ball()))[:, ::2, ::2, ::2] / 127.5 - 1)
    assert np.linalg.norm(cloud[:, :3], axis=1) == pytest.approx(EXTENT / 2, abs=4 * CELL)
    nothing = np.full((4, 8, 8, 8), -1.0)
    nothing[0, 4, 4, 4] = -0.5
    assert len(cloud_of(nothing)) == 1  # the likeliest place, if nothing is inside
