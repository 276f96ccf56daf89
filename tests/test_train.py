"""Training resumes exactly, learns, runs in several processes and gives a folder that draws."""

import json
import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import torch

from modalities import image
from suite import storage, train
from suite.latent import IdentityLatent
from suite.pool import Pool, prepare, read_pool

AUTOENCODER = """
modality = "image"
kind = "autoencoder"
[data]
size = 32
pool = 12
workers = 0
[network]
type = "autoencoder"
latent_channels = 4
widths = [16, 16]
encoder_widths = [16, 16]
blocks = 1
[train]
steps = 6
batch = 4
crop = 16
learning_rate = 2e-3
warmup = 2
kl_weight = 1e-4
save_every = 2
"""
DIFFUSION = """
modality = "image"
kind = "diffusion"
latent = "image-vae"
prediction = "flow"
prompts = ["a red disc"]
[schedule]
name = "flow"
[text]
name = "words"
[defaults]
width = 64
height = 64
num_inference_steps = 2
[data]
size = 64
pool = 12
workers = 0
[network]
type = "unet"
channels = 4
widths = [16, 32]
blocks = 1
attention = [false, true]
context_width = 8
[train]
steps = 6
batch = 4
learning_rate = 2e-3
save_every = 2
"""
FLAT = np.linspace(-0.8, 0.8, 12, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 32, 32), np.float32)


@pytest.fixture
def recipes(tmp_path):
    """The two recipes as files."""
    for name, text in (("vae.toml", AUTOENCODER), ("image.toml", DIFFUSION)):
        (tmp_path / name).write_text(text)
    return tmp_path


def pool_of(count=12):
    generator = torch.Generator().manual_seed(0)
    return Pool(torch.randn(count, 3, 32, 32, generator=generator).clamp(-1, 1).numpy())


def weights_after(recipe, pool, out, stops):
    """Trains in as many runs as there are stops, each cut off once that many steps are done."""
    out.mkdir()
    for stop in stops:
        with closing(train.train(recipe, pool, out)) as steps:
            for state, _ in steps:
                if state.step == stop:
                    break
    return state


@pytest.mark.parametrize("stops", [(5, 6), (1, 3, 6)])
def test_a_killed_run_goes_on_to_the_very_same_weights(recipes, tmp_path, stops):
    recipe, pool = train.read_recipe(recipes / "vae.toml"), pool_of()
    whole = weights_after(recipe, pool, tmp_path / "whole", (6,))
    killed = weights_after(recipe, pool, tmp_path / "killed", stops)
    for (name, a), b in zip(whole.network.named_parameters(), killed.network.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(whole.mean[name], killed.mean[name]), name


def test_a_handful_of_pictures_is_learned(recipes, tmp_path):
    recipe = train.read_recipe(recipes / "vae.toml")
    recipe["train"] |= {"steps": 60, "crop": 32, "save_every": 60}
    losses = [loss for _, loss in train.train(recipe, Pool(FLAT), tmp_path)]
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])


def test_accumulated_parts_weigh_as_one_batch(recipes, tmp_path):
    recipe, pool = train.read_recipe(recipes / "vae.toml"), pool_of(1)
    recipe["train"] |= {"steps": 1, "crop": 0, "batch": 2, "kl_weight": 0.0}
    losses = []
    for accumulate in (1, 2):
        recipe["train"]["accumulate"] = accumulate
        out = tmp_path / str(accumulate)
        out.mkdir()
        losses.append(next(train.train(recipe, pool, out))[1])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # one picture: only the latent's noise differs


def test_training_on_an_imagefolder_gives_a_model_that_draws(
    recipes, pictures, tmp_path, words, monkeypatch
):
    monkeypatch.setattr("suite.train.load_text", lambda name, limit=None: words)
    for recipe, name in (("vae.toml", "image-vae"), ("image.toml", "mine")):
        told = ["--data", str(pictures), "--recipe", str(recipes / recipe), "--out", str(tmp_path / name)]
        assert train.main("image", told) == 0
        assert (tmp_path / name / "recipe.toml").is_file() and (tmp_path / name / "sheet.png").is_file()
    told = storage.config(tmp_path / "image-vae")
    module, _ = storage.load(tmp_path / "image-vae")
    latents = module.encode(read_pool(tmp_path / "image-vae/pool").signal(slice(0, 12)))[0]
    assert latents.std().item() * told["scaling_factor"] == pytest.approx(1, rel=0.02)
    assert image.load(tmp_path / "mine")("shade 3", num_inference_steps=2).images[0].size == (64, 64)


def test_no_linear_preview_is_nearer_to_the_pool(recipes, tmp_path):
    recipe = train.read_recipe(recipes / "vae.toml")
    state, _ = next(train.train(recipe, Pool(FLAT), tmp_path))
    module = state.averaged()
    train.finished_autoencoder(module, Pool(FLAT))
    x = torch.from_numpy(FLAT)
    small = torch.nn.functional.interpolate(x, (4, 4), mode="area")
    latents = module.encode(x)[0]
    rest = module.preview(latents) - small  # of a least-squares fit: without mean, orthogonal to what it saw
    assert rest.mean((0, 2, 3)).abs().max() < 1e-5
    scale = latents.abs().sum((0, 2, 3)).max()
    assert torch.einsum("bchw,bzhw->cz", rest, latents).abs().max() < 1e-2 * scale


def test_a_pool_goes_on_where_it_was_left(tmp_path, words):
    drawn = []

    def draw(number):
        drawn.append(number)
        return np.full((3, 8, 8), number, np.float32), f"number {number}"

    recipe = {"data": {"pool": 150, "workers": 0}}
    with closing(prepare(recipe, draw, tmp_path, IdentityLatent(), words)) as parts:
        assert next(parts) == 64
    assert list(prepare(recipe, draw, tmp_path, IdentityLatent(), words))[-1] == 150
    pool = read_pool(tmp_path)
    assert pool.signal([0, 70, 149])[:, 0, 0, 0].tolist() == [0, 70, 149]
    alone = words.encode(["number 70"])
    cond = pool.text([70, 3])
    assert torch.allclose(cond.select([0]).tokens, alone.tokens, atol=1e-3)
    assert drawn.count(149) == 1
    for changed in ({"data": {"pool": 160, "workers": 0}}, {"seed": 1}, {"latent": "finer"}):
        other = {**recipe, **changed}
        with pytest.raises(ValueError, match="another recipe"):
            next(prepare(other, draw, tmp_path, IdentityLatent(), words))


def test_a_long_caption_is_kept_whole(tmp_path, words):
    recipe, caption = {"data": {"pool": 2, "workers": 0}}, "a red apple " * 40
    list(prepare(recipe, lambda number: (np.zeros((3, 8, 8), np.float32), caption), tmp_path, None, words))
    assert read_pool(tmp_path).text([0]).mask.sum() == words.encode([caption]).mask.sum() > 100


def test_a_pool_of_many_parts_keeps_no_file_open(tmp_path):
    recipe = {"data": {"pool": 640, "workers": 0}}
    list(prepare(recipe, lambda number: (np.zeros((3, 8, 8), np.float32), ""), tmp_path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    pool = read_pool(tmp_path)
    assert len(pool.signals) == 640
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


@pytest.mark.parametrize("workers", (0, 1))
def test_what_cannot_be_drawn_is_told_in_its_own_words(tmp_path, workers):
    def draw(number):
        raise ValueError(f"line {number + 1} names no picture")

    with pytest.raises(ValueError, match=r"^line 1 names no picture$"):
        next(prepare({"data": {"pool": 4, "workers": workers}}, draw, tmp_path))


def test_a_run_killed_while_it_wrote_its_model_writes_it_when_it_goes_on(
    recipes, pictures, tmp_path, monkeypatch
):
    told = ["--data", str(pictures), "--recipe", str(recipes / "vae.toml"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(storage, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.main("image", told)
    assert not (tmp_path / "out/model.safetensors").exists()
    assert train.main("image", [*told, "--batch", "4"]) == 0
    storage.load(tmp_path / "out")
    logged = [json.loads(line)["step"] for line in (tmp_path / "out/log.jsonl").open()]
    assert logged == [6]
    assert (tmp_path / "out/recipe.toml").read_text() == "# with --batch 4\n" + AUTOENCODER


@pytest.mark.parametrize("broken", ("network", "file", "crop"))
def test_what_does_not_fit_the_recipe_is_refused_in_a_sentence(recipes, tmp_path, broken):
    recipe, pool = train.read_recipe(recipes / "vae.toml"), pool_of()
    weights_after(recipe, pool, tmp_path / "out", (6,))
    if broken == "network":
        recipe["network"]["latent_channels"] = 8
    elif broken == "file":
        (tmp_path / "out/checkpoint.safetensors").write_bytes(b"no")
    recipe["train"] |= {"steps": 7, "crop": 64 if broken == "crop" else 16}
    sentence = {"network": "do not fit", "file": "corrupt", "crop": "crop is 64; the examples are 32 x 32"}
    with pytest.raises(ValueError, match=sentence[broken]):
        next(train.train(recipe, pool, tmp_path / "out"))


def test_two_processes_train_together(recipes, pictures, tmp_path):
    # accelerate's own launcher starts several processes on GPUs only; on the CPU it reads what torchrun sets
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "-m", "suite.cli", "train", "image", "--data", str(pictures),
               "--recipe", str(recipes / "vae.toml"), "--out", str(tmp_path / "out")]  # fmt: skip
    told = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "ACCELERATE_USE_CPU": "true"}
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert "in 2 processes" in told.stderr and "step 6/6" in told.stderr
    storage.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('kind = "autoencoder"', 'kind = "sort"'), "must be autoencoder or vocoder or diffusion"),
        (("[train]", "[gain]"), r"lacks steps in \[train\]"),
        (("= 32", "= = 32"), "cannot be read"),
        (("pool = 12", ""), r"lacks pool in \[data\]"),
        (("kl_weight = 1e-4", ""), "lacks kl_weight"),
        (("batch = 4", 'batch = "four"'), "batch = 'four'.*positive number"),
        (("steps = 6", "steps = 0"), "steps = 0.*positive number"),
        (('type = "autoencoder"', 'type = "net"'), "must be one of"),
        (("blocks = 1", "block = 1"), "cannot be built"),
    ],
)
def test_a_bad_recipe_is_refused_in_a_sentence(recipes, change, sentence):
    (recipes / "vae.toml").write_text(AUTOENCODER.replace(*change))
    with pytest.raises(ValueError, match=sentence):
        train.read_recipe(recipes / "vae.toml")


def test_training_starts_from_a_model_that_is_given(recipes, tmp_path):
    recipe, pool = train.read_recipe(recipes / "vae.toml"), pool_of()
    state = weights_after(recipe, pool, tmp_path / "first", (6,))
    settings = {"network": {"type": "autoencoder", **state.network.config}}
    storage.save(tmp_path / "given", state.averaged(), settings)
    recipe["train"] |= {"init": str(tmp_path / "given"), "learning_rate": 0.0}
    begun = weights_after(recipe, pool, tmp_path / "second", (1,))
    for name, parameter in begun.network.named_parameters():
        assert torch.equal(parameter, state.mean[name]), name


def test_clips_are_learned_from_so_many_of_their_frames_by_a_network_grown_from_one_of_pictures(
    tmp_path, monkeypatch
):
    network = {"type": "unet", "channels": 3, "widths": [16, 24], "blocks": 1, "attention": [True, True]}
    network |= {"context_width": 8}
    storage.save(tmp_path / "pictures", storage.built(network, ""), {"network": network})
    clips = {**network, "time": ["alone", "joint"]}
    told = {"steps": 2, "batch": 2, "learning_rate": 0.0, "frames": 3, "init": str(tmp_path / "pictures")}
    recipe = {"kind": "diffusion", "schedule": {"name": "flow"}, "prediction": "flow", "network": clips}
    shape = (4, 3, 6, 4, 4)
    signals = np.broadcast_to(np.arange(6, dtype=np.uint8).reshape(1, 1, 6, 1, 1), shape)
    pool = Pool(signals, np.ones((4, 8), np.float16), np.arange(1, 5))
    seen, real = [], train.denoising_loss
    monkeypatch.setattr(train, "denoising_loss", lambda of, x, *rest, **more: seen.append(x) or real(
        of, x, *rest, **more))  # fmt: skip
    states = [state for state, _ in train.train({**recipe, "train": told}, pool, tmp_path)]
    steps = {tuple(x[0, 0, :, 0, 0].add(1).mul(127.5).round().int().tolist()) for x in seen}
    assert steps <= {(0, 2, 4), (1, 3, 5)} and steps
    given = storage.weights(tmp_path / "pictures")
    grown = dict(states[-1].network.named_parameters())
    assert all(torch.equal(grown[name], given[name]) for name in given) and len(grown) > len(given)


def test_a_frozen_encoder_and_its_scale_stay_what_they_are(recipes, pictures, tmp_path):
    told = ["--data", str(pictures), "--recipe", str(recipes / "vae.toml")]
    assert train.main("image", [*told, "--out", str(tmp_path / "first")]) == 0
    more = f'init = "{tmp_path / "first"}"\nfrozen = ["encoder"]\nlatent_noise = 0.4\nsave_every'
    (recipes / "vae.toml").write_text(AUTOENCODER.replace("save_every", more))
    assert train.main("image", [*told, "--out", str(tmp_path / "second")]) == 0
    (first, old), (second, new) = (storage.load(tmp_path / name) for name in ("first", "second"))
    assert [new[key] == old[key] for key in ("scaling_factor", "shift_factor")] == [True, True]
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) == name.startswith("encoder"), name
