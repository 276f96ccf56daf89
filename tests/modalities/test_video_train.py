"""A folder of clips becomes models: the autoencoder of pictures' frames and a network grown in time."""

import json

import numpy as np
import pytest

from modalities import video
from modalities.video import adapter
from modalities.video.save import Clip
from suite.pool import read_pool
from tests.conftest import AUTOENCODER, in_stages, written

RECIPE = """
kind = "diffusion"
latent = "image-vae"
prediction = "v_prediction"
prompts = ["a square"]
window = 4
[schedule]
name = "flow"
shared = 0.5
[text]
name = "words 280"
[defaults]
width = 64
height = 64
num_frames = 4
num_inference_steps = 2
[data]
size = 32
frames = 4
[network]
type = "unet"
channels = 4
widths = [16, 24]
blocks = 1
attention = [true, true]
context_width = 280
time = ["alone", "joint"]
[train]
frames = 2
steps = 12
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of three captioned clips, of another shape, rate and length than is trained on."""
    folder, lines = tmp_path_factory.mktemp("clips"), []
    for number in range(3):
        frames = np.full((6, 40, 60, 3), 255, np.uint8)
        for t in range(6):
            frames[t, 10:30, 10 + 5 * t : 30 + 5 * t] = (200, 60 * number, 40)
        Clip(frames, 12.0).save(folder / f"{number}.webp")
        lines.append(json.dumps({"file_name": f"{number}.webp", "text": f"square {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_a_folder_of_captioned_clips_is_trained_on_and_draws(clips, tmp_path, words, monkeypatch):
    first = {"kind": "autoencoder", "network": AUTOENCODER, "scaling_factor": 1.0, "shift_factor": 0.0}
    written(tmp_path / "models", "image", {"image-vae": first})
    losses = in_stages("video", {"video": RECIPE}, clips, tmp_path / "models", monkeypatch)
    assert losses["video"][1] < losses["video"][0]
    pool = read_pool(tmp_path / "models" / "video" / "pool")
    assert pool.signals.shape == (8, 4, 4, 4, 4)  # items, channels, frames, height, width
    drawn = video.load(tmp_path / "models" / "video", device="cpu")("a square")
    assert drawn.videos[0].frames.shape == (4, 64, 64, 3)


def test_clips_of_a_folder_come_whole_at_the_size_and_length_that_are_trained_on(clips):
    draw = adapter.examples(clips, 0, {"size": 32, "frames": 3})
    signal, caption, _ = draw(4)
    assert signal.shape == (3, 3, 32, 32) and caption == "square 1"
    dark = (signal[2] < 150).any(1)  # (T, columns)
    starts = [int(np.flatnonzero(row)[0]) for row in dark]
    assert starts == sorted(starts) and starts[-1] - starts[0] == pytest.approx(4 * 5 * 32 / 40, abs=2)


def test_a_folder_without_clips_is_refused(tmp_path):
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(ValueError, match="names no clip"):
        adapter.examples(tmp_path, 0, {})
