"""A folder of sounds becomes models: vocoder, autoencoder and diffusion, all by the one training command."""

import json

import numpy as np
import pytest
import soundfile
import torch

from modalities import audio
from suite import storage, train
from suite.nn.autoencoder import Principal
from suite.pool import read_pool
from tests.conftest import in_stages

RECIPES = {
    "audio-vocoder": """
kind = "vocoder"
[network]
type = "vocoder"
width = 8
blocks = 1
[train]
steps = 12
crop = 4096
""",
    "audio-vae": """
kind = "autoencoder"
vocoder = "audio-vocoder"
[data]
form = "mel"
[network]
type = "principal"
latent_channels = 6
width = 16
blocks = 1
[train]
steps = 12
kl_weight = 0
latent_noise = 0.1
""",
    "audio": """
kind = "diffusion"
latent = "audio-vae"
window = 120
prediction = "v_prediction"
prompts = ["a low tone"]
[schedule]
name = "flow"
[text]
name = "words"
[defaults]
num_inference_steps = 2
[network]
type = "unet"
channels = 6
widths = [16, 32]
blocks = 1
attention = [false, true]
context_width = 8
patch = 2
dims = 1
[train]
steps = 6
""",
}  # fmt: skip


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """An audiofolder of eight tones that die away, at another rate than ours."""
    folder, seconds = tmp_path_factory.mktemp("sounds"), np.arange(32000) / 16000
    lines = []
    for i in range(8):
        wave = 0.4 * np.sin(2 * np.pi * 200 * (i + 1) * seconds) * np.exp(-2 * seconds)
        soundfile.write(folder / f"{i}.wav", wave, 16000)
        lines.append(json.dumps({"file_name": f"{i}.wav", "text": f"tone {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_the_three_stages_train_one_after_the_other_and_draw(sounds, tmp_path, words, monkeypatch):
    first_and_last = in_stages("audio", RECIPES, sounds, tmp_path / "models", monkeypatch)
    for name in ("audio-vocoder", "audio-vae"):
        assert first_and_last[name][1] < first_and_last[name][0]
    told = storage.config(tmp_path / "models" / "audio")
    assert (told["window"], told["latent"]) == (120, "audio-vae")
    assert storage.config(tmp_path / "models" / "audio-vae")["vocoder"] == "audio-vocoder"
    (sound,) = audio.load(tmp_path / "models" / "audio", device="cpu")("a low tone", seconds=1).audios
    assert sound.samples.shape == (1, 24000) and np.isfinite(sound.samples).all()


def test_the_components_of_what_a_few_make_up_lose_nothing():
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(3, 20, generator=generator)  # three shapes of a patch of 5 channels and 4 positions
    shares = torch.rand(16, 12, 3, generator=generator)
    signals = (shares @ few).unflatten(-1, (5, 4)).permute(0, 2, 1, 3).flatten(2)
    network = Principal(channels=5, latent_channels=3, patch=4, width=8, blocks=1)
    network.fit(signals)
    with torch.no_grad():
        z, _ = network.encode(signals)
        assert z.shape == (16, 3, 12)
        torch.testing.assert_close(network.decode(z), signals, rtol=1e-4, atol=1e-4)


def test_silence_is_no_part_of_what_is_fitted():
    generator = torch.Generator().manual_seed(0)
    signals = torch.rand(8, 5, 40, generator=generator) - 0.5
    quiet = torch.cat([signals, torch.full((8, 5, 400), -1.0)], dim=-1)
    one, other = (Principal(channels=5, latent_channels=3, patch=4, width=8, blocks=1) for _ in range(2))
    one.fit(signals)
    other.fit(quiet)
    torch.testing.assert_close(one.spread, other.spread)


def test_a_pool_of_sounds_holds_their_steps(sounds, tmp_path):
    recipe = {"data": {"pool": 8, "workers": 0}}
    for _ in train.prepare(recipe, audio.adapter.examples(sounds, 0, {}), tmp_path):
        pass
    pool = read_pool(tmp_path)
    assert pool.signals.dtype == np.int16 and pool.signals.shape == (8, 1, audio.WINDOW)
    assert 0.35 < pool.signal([0]).abs().max() <= 0.45
    mel, caption = audio.adapter.examples(sounds, 0, {"form": "mel"})(1)
    assert mel.shape == (100, 480) and caption == "tone 1"
