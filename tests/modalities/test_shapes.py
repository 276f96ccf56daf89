"""A rendered mesh shows its near side, whole, upright and centred."""

import numpy as np
import pytest

from modalities.image.colour import colour_of
from modalities.image.compose import sprite
from modalities.image.shapes import render

QUAD = np.array([[0, 1, 2], [0, 2, 3]])


def write(path, quads):
    """A mesh of coloured quads, each four corners in the unit cube."""
    vertices = np.concatenate([np.array(corners) for corners, _ in quads])
    np.savez(
        path,
        vertices=(vertices * 65535).round().astype(np.uint16),
        bounds=np.array([[0, 0, 0], [1, 1, 1]], np.float32),
        faces=np.concatenate([QUAD + 4 * i for i in range(len(quads))]).astype(np.uint16),
        colors=np.repeat(np.array([colour for _, colour in quads], np.uint8), 2, axis=0),
    )
    return path


def square(z, bottom=0.0, top=1.0):
    return [(0, bottom, z), (1, bottom, z), (1, top, z), (0, top, z)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_face_hides_the_farther_in_whatever_order_they_come(tmp_path, order):
    quads = [(square(1.0), (220, 30, 30)), (square(0.0), (30, 60, 220))]
    path = write(tmp_path / "two.npz", [quads[i] for i in order])
    assert colour_of(render(path, 64, yaw=0, pitch=0), 0.97) == "red"
    assert colour_of(render(path, 64, yaw=180, pitch=0), 0.97) == "blue"


def test_up_is_up_and_no_hole_is_left(tmp_path):
    quads = [(square(0.5, 0, 0.5), (30, 160, 60)), (square(0.5, 0.5, 1), (220, 30, 30))]
    pixels = np.asarray(render(write(tmp_path / "tree.npz", quads), 64, yaw=0, pitch=0))
    assert (pixels[4:-4, 4:-4, 3] == 255).all()
    assert (pixels[4:28, 4:-4, 0] > pixels[4:28, 4:-4, 1]).all()
    assert (pixels[36:-4, 4:-4, 0] < pixels[36:-4, 4:-4, 1]).all()


def test_a_mesh_is_a_sprite_like_any_picture(tmp_path):
    path = write(tmp_path / "bar.npz", [(square(0.5, 0.4, 0.6), (220, 30, 30))])
    picture = sprite(path, 80)
    assert max(picture.size) == 80 and picture.mode == "RGBA"
    assert picture.width > 2 * picture.height
