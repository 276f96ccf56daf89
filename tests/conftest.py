"""What many tests stand on: tiny models of random weights, and a text encoder that needs no weights."""

import json
import zlib

import pytest
import torch
from PIL import Image

from suite import storage, train
from suite.nn import NETWORKS
from suite.text import Conditioning

torch.set_num_threads(1)  # the tests' networks are tiny; more threads only wait for each other

UNET = {"type": "unet", "channels": 4, "widths": [16, 32], "blocks": 1, "attention": [False, True]}
AUTOENCODER = {
    "type": "autoencoder",
    "latent_channels": 4,
    "widths": [16, 16],
    "encoder_widths": [16, 16],
    "blocks": 1,
}
DEFAULTS = {"width": 64, "height": 64, "num_inference_steps": 3, "guidance_scale": 3.0}


class Words:
    """A text encoder whose token for a word is noise seeded by the word; "words 280" is 280 wide."""

    width, limit = 8, 64

    def __init__(self, name="words"):
        self.width = int(name.partition(" ")[2] or Words.width)

    def encode(self, prompts):
        def token(word):
            return torch.randn(self.width, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))

        rows = [torch.stack([token(word) for word in ["", *prompt.split()]])[None] for prompt in prompts]
        return Conditioning.cat(
            [Conditioning(row, row.new_ones(row.shape[:2], dtype=torch.bool)) for row in rows]
        )

    def to(self, device):
        return self


def randomised(network, seed):
    """Fills every matrix with noise that keeps the size of what passes through it."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.dim() > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return network


def write_models(root, text, width):
    """A diffusion model `image` and its autoencoder `image-vae`: factor 8, sizes in steps of 16."""
    unet = {**UNET, "context_width": width}
    first = {"kind": "autoencoder", "network": AUTOENCODER, "scaling_factor": 1.0, "shift_factor": 0.0}
    second = {"kind": "diffusion", "network": unet, "schedule": {"name": "flow"}, "prediction": "flow"}
    second |= {"latent": "image-vae", "text": {"name": text, "width": width}, "defaults": DEFAULTS}
    return written(root, "image", {"image-vae": first, "image": second})


def write_audio_models(root, text, width):
    """A diffusion model `audio`, its autoencoder of spectrograms and its vocoder: 1024 samples a latent."""
    vae = {**AUTOENCODER, "channels": 100, "dims": 1, "patch": 2}
    first = {"kind": "vocoder", "network": {"type": "vocoder", "width": 8, "blocks": 1}}
    second = {"kind": "autoencoder", "network": vae, "vocoder": "audio-vocoder"}
    second |= {"scaling_factor": 1.0, "shift_factor": 0.0}
    third = {"kind": "diffusion", "network": {**UNET, "dims": 1, "context_width": width}, "window": 120}
    third |= {"schedule": {"name": "flow"}, "prediction": "flow", "latent": "audio-vae"}
    third |= {"text": {"name": text, "width": width}}
    third |= {"defaults": {"num_inference_steps": 3, "guidance_scale": 3.0}}
    return written(root, "audio", {"audio-vocoder": first, "audio-vae": second, "audio": third})


def write_mesh_models(root, text, width):
    """A diffusion model `mesh` and the components of its grids, of which 32 stand for 8 cells a side."""
    grids = {"type": "principal", "channels": 4, "latent_channels": 32, "patch": 8, "width": 8, "blocks": 1}
    first = {"kind": "autoencoder", "network": {**grids, "dims": 3}}
    first |= {"scaling_factor": 1.0, "shift_factor": 0.0}
    network = {**UNET, "channels": 32, "dims": 3, "positions": 4, "context_width": width}
    second = {"kind": "diffusion", "network": network, "latent": "mesh-vae"}
    second |= {"schedule": {"name": "flow"}, "prediction": "flow", "text": {"name": text, "width": width}}
    second |= {"defaults": {"num_inference_steps": 3, "guidance_scale": 3.0}}
    return written(root, "mesh", {"mesh-vae": first, "mesh": second})


def write_video_models(root, text, width):
    """A diffusion model `video`, which sees 8 frames at once, and the autoencoder of its frames."""
    first = {"kind": "autoencoder", "network": AUTOENCODER, "scaling_factor": 1.0, "shift_factor": 0.0}
    network = {**UNET, "context_width": width, "time": ["alone", "joint"]}
    second = {"kind": "diffusion", "network": network, "latent": "image-vae", "window": 8}
    second |= {"schedule": {"name": "flow"}, "prediction": "flow", "text": {"name": text, "width": width}}
    second |= {"defaults": {**DEFAULTS, "num_frames": 8}}
    return written(root, "video", {"image-vae": first, "video": second})


def written(root, medium, models):
    """The folder of the last of some models of random weights."""
    for seed, (name, settings) in enumerate(models.items(), start=1):
        options = {key: value for key, value in settings["network"].items() if key != "type"}
        network = randomised(NETWORKS[settings["network"]["type"]](**options), seed)
        if name == "audio-vae":
            network.decoder[-1].weight.data *= 0.2  # or there would be deafening spectrograms
        if name == "mesh-vae":  # a surface that is nothing but noise would take minutes to finish
            network.leave.weight.data *= 0
            even = network.basis.unflatten(0, (4, -1)).mean(1).repeat_interleave(8**3, 0)
            network.basis.copy_(16**2 * even)
        storage.save(root / name, network, {"modality": medium, **settings})
    return root / medium


def in_stages(medium, recipes, data, root, monkeypatch):
    """Trains models of a medium on a folder, one after the other; of each the first loss and the last."""
    monkeypatch.setattr("suite.train.load_text", lambda name, limit=None: Words(name))
    real, first_and_last = train.train, {}
    for name, text in recipes.items():
        out, losses = root / name, []
        out.mkdir(parents=True)
        common = "batch = 4\nlearning_rate = 5e-3\nwarmup = 2\nsave_every = 3\n"
        table = "[data]\n" if "[data]" not in text else ""
        text = text.replace("[network]", f"{table}pool = 8\nworkers = 0\n[network]")
        (out / "recipe.toml").write_text(f'modality = "{medium}"\n{text}{common}')

        def watched(*args, losses=losses):
            for state, loss in real(*args):
                losses.append(loss)
                yield state, loss

        with monkeypatch.context() as patch:
            patch.setattr("suite.train.train", watched)
            told = ["--data", str(data), "--out", str(out), "--recipe", str(out / "recipe.toml")]
            assert train.main(medium, told) == 0
        first_and_last[name] = losses[0], losses[-1]
        assert (out / "sheet.png").is_file() and (out / "model.safetensors").is_file()
    return first_and_last


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a tiny image model that reads `Words`."""
    return write_models(tmp_path_factory.mktemp("models"), "words", Words.width)


@pytest.fixture(scope="session")
def tiny_audio_model(tmp_path_factory):
    """The folder of a tiny audio model that reads `Words`."""
    return write_audio_models(tmp_path_factory.mktemp("models"), "words", Words.width)


@pytest.fixture(scope="session")
def tiny_mesh_model(tmp_path_factory):
    """The folder of a tiny mesh model that reads `Words`."""
    return write_mesh_models(tmp_path_factory.mktemp("models"), "words 280", 280)  # as wide as pictures need


@pytest.fixture(scope="session")
def tiny_video_model(tmp_path_factory):
    """The folder of a tiny video model that reads `Words`."""
    return write_video_models(tmp_path_factory.mktemp("models"), "words 280", 280)  # as wide as pictures need


@pytest.fixture
def pictures(tmp_path):
    """An imagefolder of twelve plain pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for i in range(12):
        Image.new("RGB", (40, 50), (20 * i, 255 - 20 * i, 90)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"shade {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def words(monkeypatch):
    """Lets pipelines that are loaded read `Words` in place of a pretrained encoder."""
    monkeypatch.setattr("suite.pipeline.load_text", lambda name, limit=None: Words(name))
    return Words()


@pytest.fixture(scope="session")
def stable(tmp_path_factory):
    """The parts of a tiny Stable Diffusion of random weights, but for the scheduler."""
    pytest.importorskip("diffusers")
    from suite.bench import stable_diffusion

    parts = stable_diffusion(tmp_path_factory.mktemp("clip"), (8, 16)).components
    return {name: part for name, part in parts.items() if name != "scheduler"}
