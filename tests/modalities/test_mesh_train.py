"""A folder of meshes becomes models: the network of surfaces and the diffusion, by one command."""

import json

import numpy as np
import pytest
import torch
import trimesh

from modalities import mesh
from suite import storage
from suite.nn.surface import ordered
from suite.pool import read_pool
from tests.conftest import in_stages

RECIPES = {
    "mesh-vae": """
kind = "surface"
[data]
points = 2048
queries = 2048
[network]
type = "surface"
anchors = 32
latent_channels = 8
width = 16
depth = 1
local = 8
near = 4
points = 2048
queries = 2048
cells = 16
[train]
steps = 12
kl_weight = 1e-4
latent_noise = 0.1
""",
    "mesh": """
kind = "diffusion"
latent = "mesh-vae"
prediction = "v_prediction"
prompts = ["a box"]
[schedule]
name = "flow"
[text]
name = "words 280"
[defaults]
num_inference_steps = 2
[data]
points = 2048
queries = 2048
pictures = true
[network]
type = "transformer"
channels = 8
width = 16
depth = 1
context_width = 280
dims = 1
[train]
steps = 12
""",
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of four captioned meshes."""
    folder, lines = tmp_path_factory.mktemp("shapes"), []
    for i in range(4):
        made = trimesh.creation.box((1, 1 + i, 1)) if i % 2 else trimesh.creation.icosphere(radius=1 + i)
        made.visual.face_colors = (200, 40 * i, 60)
        made.export(folder / f"{i}.ply")
        lines.append(json.dumps({"file_name": f"{i}.ply", "text": "a box" if i % 2 else "a ball"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_both_stages_train_and_draw(shapes, tmp_path, words, monkeypatch):
    first_and_last = in_stages("mesh", RECIPES, shapes, tmp_path / "models", monkeypatch)
    assert all(last < first for first, last in first_and_last.values())
    told = storage.config(tmp_path / "models" / "mesh-vae")
    assert told["scaling_factor"] == 1.0 and 0 <= told["iou"] <= 1
    network, _ = storage.load(tmp_path / "models" / "mesh-vae")
    pool = read_pool(tmp_path / "models" / "mesh-vae" / "pool")
    with torch.no_grad():
        features = network.float().encode(pool.signal(slice(0, 8)))[0][:, 3:]
    torch.testing.assert_close(features.std((0, 2)), torch.ones(5), atol=0.05, rtol=0)
    torch.testing.assert_close(features.mean((0, 2)), torch.zeros(5), atol=0.05, rtol=0)
    told = read_pool(tmp_path / "models" / "mesh" / "pool")
    lengths = np.diff(told.ends, prepend=0).tolist()  # tokens: of "" 1, of "a box" 3, of a picture up to 16
    assert min(lengths) <= 3 and max(lengths) > 3
    (made,) = mesh.load(tmp_path / "models" / "mesh")("a box", texture="0", triangles=500).meshes
    assert trimesh.Trimesh(made.mesh.vertices, made.mesh.faces).is_watertight


def test_points_are_halved_by_height_then_width_then_depth():
    places = torch.rand(2, 16, 3, generator=torch.Generator().manual_seed(0))
    tree = places.gather(1, ordered(places)[..., None].expand(-1, -1, 3))
    lower, upper = tree.chunk(2, 1)
    assert (lower[..., 1].amax(1) <= upper[..., 1].amin(1)).all()
    for half in (lower, upper):
        left, right = half.chunk(2, 1)
        assert (left[..., 0].amax(1) <= right[..., 0].amin(1)).all()
    shuffled = places[:, torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    again = shuffled.gather(1, ordered(shuffled)[..., None].expand(-1, -1, 3))
    assert torch.equal(tree, again)
    assert sorted(ordered(torch.rand(1, 6, 3))[0].tolist()) == list(range(6))  # no power of two
