"""A folder of meshes becomes models: the components and the diffusion, by one command."""

import json

import numpy as np
import pytest
import torch
import trimesh

from modalities import mesh
from suite import storage
from suite.pool import read_pool
from tests.conftest import in_stages

RECIPES = {
    "mesh-vae": """
kind = "autoencoder"
[network]
type = "principal"
channels = 4
latent_channels = 32
patch = 8
width = 16
blocks = 1
dims = 3
weights = [4.0, 1.0, 1.0, 1.0]
[train]
steps = 12
kl_weight = 0
crop = 32
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
pictures = true
[network]
type = "unet"
channels = 32
widths = [16, 32]
blocks = 1
attention = [false, true]
context_width = 280
dims = 3
positions = 4
[train]
steps = 60
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
    assert first_and_last["mesh-vae"][1] < 0.1  # components of four shapes hold them all but exactly
    assert first_and_last["mesh"][1] < 0.9 * first_and_last["mesh"][0]
    told = storage.config(tmp_path / "models" / "mesh-vae")
    network, _ = storage.load(tmp_path / "models" / "mesh-vae")
    x = read_pool(tmp_path / "models" / "mesh-vae" / "pool").signal(slice(0, 8))
    with torch.no_grad():
        z, _ = network.float().encode(x)
        again = network.decode(z)
    latents = (z - told["shift_factor"]) * told["scaling_factor"]
    assert latents.std().item() == pytest.approx(1, abs=0.01) and abs(latents.mean().item()) < 0.01
    assert ((again[:, 0] > 0) == (x[:, 0] > 0)).float().mean() > 0.98  # of a box and balls
    told = read_pool(tmp_path / "models" / "mesh" / "pool")
    lengths = np.diff(told.ends, prepend=0).tolist()  # tokens: of "" 1, of "a box" 3, of a picture up to 16
    assert min(lengths) <= 3 and max(lengths) > 3
    (made,) = mesh.load(tmp_path / "models" / "mesh")("a box", texture="0", triangles=500).meshes
    assert trimesh.Trimesh(made.mesh.vertices, made.mesh.faces).is_watertight
