"""Published pipelines, tiny and of random weights, behind our interface."""

import json
import shutil

import pytest
import torch
from PIL import ImageChops

from modalities import image
from suite import cli
from suite.adapter import find
from suite.noise import Noise
from suite.pipeline import load
from suite.published import pipeline
from suite.storage import ModelError

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def test_a_published_pipeline_draws_the_same_behind_our_interface(stable):
    scheduler = diffusers.EulerDiscreteScheduler(**STABLE, timestep_spacing="trailing")
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    told = {
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "negative_prompt": "a cat",
    }
    ours = pipeline(pipe)("a red cube", seed=7, num_images=2, sampler="euler", **told).images
    latents = Noise(7, 2)(torch.zeros(2, 4, 32, 32))
    theirs = pipe(["a red cube"] * 2, latents=latents, **{**told, "negative_prompt": ["a cat"] * 2}).images
    for a, b in zip(ours, theirs, strict=True):
        assert max(high for _, high in ImageChops.difference(a, b).getextrema()) <= 1
    with pytest.raises(ValueError, match="the prompt has 92 tokens; this model reads 77"):
        pipeline(pipe)("a " * 90, **told)


@pytest.fixture(scope="module")
def saved(stable, tmp_path_factory):
    """The folder of a tiny Stable Diffusion."""
    scheduler = diffusers.EulerDiscreteScheduler(**STABLE, timestep_spacing="trailing")
    folder = tmp_path_factory.mktemp("published") / "stable"
    diffusers.StableDiffusionPipeline(**stable, scheduler=scheduler).save_pretrained(folder)
    return folder


def test_a_saved_published_pipeline_is_loaded_like_a_model_of_ours(stable, saved):
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(saved, subfolder="scheduler")
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=scheduler)
    told = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 3}
    ours = image.load(saved)("a red cube", **told)
    assert ours.images[0].tobytes() == pipeline(pipe)("a red cube", **told).images[0].tobytes()
    assert ours.settings[0]["request"]["model"] == str(saved)


def test_a_published_pipeline_is_shown_as_a_model_of_ours_is(saved, capsys):
    assert cli.main(["models", "show", str(saved)]) == 0
    assert '"_class_name": "StableDiffusionPipeline"' in capsys.readouterr().out


def unconditional():
    levels = {"block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 8}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = diffusers.UNet2DModel(**levels, **blocks)
    return diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())


def test_a_pipeline_of_another_kind_is_refused_in_words(stable, tmp_path):
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    on_flow = diffusers.StableDiffusionPipeline(**stable, scheduler=flow)
    for number, pipe in enumerate((unconditional(), on_flow)):
        words = f"{type(pipe).__name__} is not of the Stable Diffusion 1 or 2 kind"
        with pytest.raises(ValueError, match=words):
            pipeline(pipe)
        pipe.save_pretrained(tmp_path / str(number))
        with pytest.raises(ModelError, match=words):
            image.load(tmp_path / str(number))


@pytest.mark.parametrize(
    "file, text, said",
    [
        ("text_encoder/model.safetensors", "cut", "cannot be used: SafetensorError"),
        ("model_index.json", "{}", "is of kind None, which diffusers"),
        ("model_index.json", "[]", "carries no model config"),
        ("model_index.json", '{"_class_name": "Magic"}', "is of kind 'Magic', which diffusers"),
        ("model_index.json", '{"_class_name": "UNet2DModel"}', "cannot be used: AttributeError"),
    ],
)
def test_a_broken_published_pipeline_is_told_in_one_sentence(saved, tmp_path, file, text, said):
    folder = shutil.copytree(saved, tmp_path / "broken")
    (folder / file).write_text(text)
    with pytest.raises(ModelError) as told:
        image.load(folder)
    assert said in str(told.value) and str(folder) in str(told.value) and "\n" not in str(told.value)


def test_memory_that_does_not_suffice_is_not_taken_for_a_broken_pipeline(saved, monkeypatch):
    def greedy(*args, **told):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", greedy)
    with pytest.raises(MemoryError, match="there is not enough memory"):
        image.load(saved)


@pytest.mark.parametrize("medium", ["audio", "mesh"])
def test_a_published_pipeline_of_pictures_is_no_model_of_another_medium(saved, medium):
    with pytest.raises(ModelError, match=r"which cannot be asked for (audios|meshes); of the published ones"):
        load(find(medium), saved)


def test_code_in_a_published_pipeline_is_refused_before_anything_is_read(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved, tmp_path / "coded")
    (folder / "unet" / "mine.py").write_text("raise SystemExit")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["mine", "Network"]}))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)
    with pytest.raises(ModelError, match=r"brings code of its own, unet/mine\.py; we run none"):
        image.load(folder)


def test_a_hub_id_that_cannot_be_had_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'nobody/nothing' is no folder here and cannot be had from the hub"):
        image.load("nobody/nothing")
