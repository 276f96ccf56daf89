import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from suite import storage
from suite.storage import ModelError


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "image")


def test_what_is_saved_is_loaded(model, tmp_path):
    module, settings = storage.load(model)
    storage.save(tmp_path / "copy", module, settings)
    again, told = storage.load(tmp_path / "copy")
    assert told == settings
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert not list((tmp_path / "copy").glob(".*"))


def test_half_precision_on_disk_is_float32_in_memory(model, tmp_path):
    module, settings = storage.load(model)
    storage.save(tmp_path / "half", module, settings, dtype=torch.float16)
    assert {t.dtype for t in load_file(tmp_path / "half" / storage.WEIGHTS).values()} == {torch.float16}
    again, _ = storage.load(tmp_path / "half")
    for a, b in zip(module.parameters(), again.parameters(), strict=True):
        assert b.dtype == torch.float32 and not b.requires_grad
        assert torch.equal(a.half().float(), b)


def test_a_lone_file_carries_its_config(model, tmp_path):
    lone = shutil.copy(model / storage.WEIGHTS, tmp_path / "lone.safetensors")
    assert storage.config(storage.find(lone)) == storage.config(model)
    assert storage.load(lone)[1]["kind"] == "diffusion"


def test_neighbours_come_first(tiny_model):
    assert storage.find("image-vae", near=tiny_model) == tiny_model.parent / "image-vae"


@pytest.mark.parametrize("name", ["nosuch", "no/such", "", "~/nosuch", "~nobody-here/nosuch"])
def test_a_missing_model_is_told_with_the_place_looked_at(name):
    with pytest.raises(ModelError) as told:
        storage.find(name)
    assert not name or name.strip("~/") in str(told.value)


def broken(model, how):
    weights = {
        key: tensor.clone() for key, tensor in load_file(model / storage.WEIGHTS).items()
    }  # off the file
    settings = json.loads((model / storage.CONFIG).read_text())
    first = next(iter(weights))
    if how == "cut":
        data = (model / storage.WEIGHTS).read_bytes()
        (model / storage.WEIGHTS).write_bytes(data[: len(data) // 2])
        return "corrupt"
    if how == "pickle":
        torch.save(weights, model / storage.WEIGHTS)
        return "corrupt"
    if how == "gone":
        (model / storage.WEIGHTS).unlink()
        return "missing"
    if how == "renamed":
        weights["other"] = weights.pop(first)
        save_file(weights, model / storage.WEIGHTS)
        return f"first missing: {first}, first left over: other"
    if how == "shape":
        weights[first] = weights[first][..., :1].contiguous()
        save_file(weights, model / storage.WEIGHTS)
        return f"{first} is"
    if how == "not json":
        (model / storage.CONFIG).write_text("{")
        return "cannot be read"
    if how == "not an object":
        (model / storage.CONFIG).write_text("[1]")
        return "no model config"
    settings["network"] = {"type": "magic"} if how == "type" else {"type": "unet", "wings": 2}
    (model / storage.CONFIG).write_text(json.dumps(settings))
    return "must be one of" if how == "type" else "wings"


HOW = ["cut", "pickle", "gone", "renamed", "shape", "not json", "not an object", "type", "argument"]


@pytest.mark.parametrize("how", HOW)
def test_a_broken_model_is_told_in_one_sentence(model, how):
    expected = broken(model, how)
    with pytest.raises(ModelError) as told:
        storage.load(model)
    assert expected in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"network": [1]},
        {"network": {"type": ["unet"]}},
        {"network": {"type": "unet", "widths": [-16, 32]}},
        {"network": {"type": "unet", "widths": [16, 32], "attention": [True]}},
        {"defaults": 5},
    ],
    ids=str,
)
def test_a_config_that_no_network_can_be_built_from_is_told_in_one_sentence(model, changed):
    settings = json.loads((model / storage.CONFIG).read_text())
    (model / storage.CONFIG).write_text(json.dumps({**settings, **changed}))
    with pytest.raises(ModelError) as told:
        storage.load(model)
    assert str(model) in str(told.value) and "\n" not in str(told.value)


def test_a_config_nested_too_deep_is_told_in_one_sentence(model):
    (model / storage.CONFIG).write_text("[" * 100_000)
    with pytest.raises(ModelError, match="cannot be read as a model's config"):
        storage.config(model)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), storage.replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_shipped_models_have_all_four_files():
    for folder in storage.shipped().values():
        assert {p.name for p in folder.iterdir()} >= {
            storage.CONFIG,
            storage.WEIGHTS,
            "README.md",
            "recipe.toml",
        }
