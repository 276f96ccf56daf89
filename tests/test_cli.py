import json
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
from PIL import Image

from modalities.image import restore
from suite import cli
from suite.pipeline import Pipeline
from tests.conftest import write_models


@pytest.fixture
def draw(tiny_model, words, tmp_path, monkeypatch):
    """Runs `suite image` in an empty folder."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    def run(*argv, model=tiny_model):
        return cli.main(["image", "--model", str(model), "--device", "cpu", *map(str, argv)])

    return run


def test_a_prompt_becomes_the_same_file_twice(draw, capsys):
    for name in ("a.png", "b.png"):
        assert draw("a red apple", "--seed", 7, "-o", name) == 0
    with open("a.png", "rb") as a, open("b.png", "rb") as b:
        assert a.read() == b.read()
    assert Image.open("a.png").size == (64, 64)
    assert "step 3/3" in capsys.readouterr().err


def test_settings_of_a_file_draw_it_again_and_options_win(draw):
    assert (
        draw("a red apple", "--steps", 2, "--sampler", "heun", "--negative-prompt", "blue", "-o", "a.png")
        == 0
    )
    assert draw("--from", "a.png", "-o", "b.png") == 0
    assert draw("--from", "a.png", "--seed", 9, "-o", "c.png") == 0
    a, b, c = (restore(f"{name}.png") for name in "abc")
    assert a == b and c == {**a, "seed": 9}
    assert Image.open("a.png").tobytes() == Image.open("b.png").tobytes() != Image.open("c.png").tobytes()


def test_every_field_is_an_option(draw):
    Image.new("RGB", (64, 64), "red").save("init.png")
    Image.new("L", (64, 64), 255).save("mask.png")
    asked = {
        "negative_prompt": "blue",
        "seed": 3,
        "num_inference_steps": 4,
        "guidance_scale": 2.5,
        "guidance": "apg",
        "guidance_rescale": 0.5,
        "guidance_low": 0.1,
        "guidance_high": 0.9,
        "sampler": "ddim",
        "spacing": "shifted",
        "shift": 2.0,
        "eta": 0.5,
        "init": "init.png",
        "strength": 0.5,
        "mask": "mask.png",
        "width": 80,
        "height": 96,
        "num_images": 2,
    }
    argv = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert draw("a red apple", *argv, "--loop", "-o", "a.webp") == 0
    first, second = restore("a-0.webp"), restore("a-1.webp")
    assert {name: first[name] for name in asked} == {**asked, "num_images": 1}
    assert first["loop"] is True and second == {**first, "seed": 4}


REFUSED = {
    "zero steps": (["x", "--steps", "0"], "num_inference_steps is '0'; it must be at least 1"),
    "negative": (["x", "--guidance-scale", "-3"], "guidance_scale is '-3'; it must be at least 1"),
    "nan": (["x", "--strength", "nan"], "strength is 'nan'; it must be a finite number"),
    "sampler": (["x", "--sampler", "magic"], "sampler is 'magic'; it must be one of euler"),
    "size": (["x", "--width", "70"], "width is '70'; it must be a multiple of 16 (try 64)"),
    "empty prompt": ([""], "prompt is ''; it must say what to draw"),
    "no prompt": ([], "prompt is missing; it must be given"),
    "no picture": (["x", "--init", "text.txt"], "init is 'text.txt'; it must be a picture that can be read"),
    "long init": (["x", "--init", "x" * 5000], "there is no such file"),
    "no init": (["x", "--init", "gone.png"], "init is 'gone.png'; there is no such file"),
    "mask alone": (["x", "--mask", "text.txt"], "mask is given without init"),
    "device": (["x", "--device", "abacus"], "device is 'abacus'; this machine has"),
    "option": (["x", "--frobnicate", "1"], "unrecognized arguments: --frobnicate 1"),
    "eta": (["x", "--eta", "0.5"], "eta is 0.5 but sampler 'euler' takes none"),
    "strength": (
        ["x", "--init", "red.png", "--strength", "0.01"],
        "leaves none of 3 steps; it must be at least 0.3334",
    ),
    "from": (["--from", "text.txt"], "text.txt is no picture whose settings can be read"),
    "from plain": (["--from", "red.png"], "red.png carries no settings"),
}


@pytest.mark.parametrize("argv, sentence", REFUSED.values(), ids=REFUSED)
def test_a_bad_request_is_refused_in_one_sentence(draw, capsys, argv, sentence):
    with open("text.txt", "w") as file:
        file.write("no picture")
    Image.new("RGB", (64, 64), "red").save("red.png")
    assert draw(*argv, "-o", "a.png") == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
    assert sorted(os.listdir()) == ["red.png", "text.txt"]


@pytest.mark.parametrize(
    "output, sentence",
    [
        ("a.bmp", "its ending must be one of .png, .jpg, .jpeg, .webp"),
        ("a", "its ending must be one of"),
        ("no/such/a.png", "there is no folder no/such"),
        ("folder.png", "is a folder"),
        ("/proc/a.png", "cannot be written"),
        ("x" * 300 + ".png", "cannot be written"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(draw, capsys, monkeypatch, output, sentence):
    monkeypatch.setattr("suite.pipeline.load", None)
    os.mkdir("folder.png")
    assert draw("x", "-o", output) == 2
    assert sentence in capsys.readouterr().err and os.listdir() == ["folder.png"]


def test_a_missing_or_corrupt_model_is_refused(draw, capsys, tiny_model, tmp_path):
    assert draw("x", "-o", "a.png", model="nosuch") == 2
    assert "model 'nosuch' was not found at" in capsys.readouterr().err
    broken = write_models(tmp_path / "broken", "words", 8)
    with open(broken / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    assert draw("x", "-o", "a.png", model=broken) == 2
    told = capsys.readouterr().err
    assert "is corrupt" in told and told.count("\n") == 1 and not os.listdir()


def test_ctrl_c_leaves_no_file(draw, capsys, monkeypatch):
    def interrupted(self, request):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Pipeline, "trace", interrupted)
    assert draw("x", "-o", "a.png") == 130
    assert not os.listdir() and "cancelled" in capsys.readouterr().err


def test_training_that_is_cancelled_says_that_it_can_go_on(capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "suite.train", SimpleNamespace(main=interrupted))
    assert cli.main(["train", "image"]) == 130
    assert capsys.readouterr().err == "suite: cancelled; the same command goes on\n"


def test_no_step_is_taken_if_one_of_several_files_cannot_be_written(draw, capsys, monkeypatch):
    monkeypatch.setattr("suite.pipeline.load", None)
    os.mkdir("a-1.png")
    assert draw("x", "--num-images", 2, "-o", "a.png") == 2
    assert "output is 'a-1.png', which is a folder" in capsys.readouterr().err
    assert os.listdir() == ["a-1.png"]


def test_memory_that_does_not_suffice_is_told_in_one_sentence(draw, capsys, monkeypatch):
    def greedy(self, x, sigma, cond):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr("suite.denoiser.Denoiser.__call__", greedy)
    assert draw("x", "-o", "a.png") == 1
    told = capsys.readouterr().err
    assert told.startswith("suite: there is not enough memory; ask for fewer") and told.count("\n") == 1


def test_warnings_are_shown_by_whoever_showed_them_before(capsys):
    before = warnings.showwarning
    cli.main(["frob"])
    assert warnings.showwarning is before


def test_nan_is_told_and_nothing_written(draw, capsys, monkeypatch):
    monkeypatch.setattr("suite.denoiser.Denoiser.__call__", lambda self, x, sigma, cond: x * float("nan"))
    assert draw("x", "-o", "a.png") == 1
    assert "NaN" in capsys.readouterr().err and not os.listdir()


def test_models_are_listed_and_shown(tiny_model, monkeypatch, capsys):
    monkeypatch.setattr("suite.storage.roots", lambda: [tiny_model.parent])
    assert cli.main(["models", "list"]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert rows == [["image", "image", "diffusion"], ["image-vae", "image", "autoencoder"]]
    assert cli.main(["models", "show", "image"]) == 0
    assert '"prediction": "flow"' in capsys.readouterr().out


def test_inspect_prints_what_a_file_carries(draw, capsys):
    draw("a red apple", "-o", "a.jpg")
    capsys.readouterr()
    assert cli.main(["inspect", "a.jpg"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "a red apple"
    for name in ("gone.png", "a.xyz"):
        assert cli.main(["inspect", name]) == 2


@pytest.mark.parametrize(
    "argv",
    [
        ["frob"], ["train"], ["train", "song"], ["train", "image", "--frob"], ["eval"], ["bench", "--frob"],
        ["models"], ["models", "frob"],
    ],
)
def test_an_unknown_command_is_refused_in_one_sentence(argv, capsys):
    assert cli.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_draws_with_the_pretrained_text_encoder(tmp_path):
    model = write_models(tmp_path / "models", "all-MiniLM-L6-v2", 384)
    command = [
        sys.executable,
        "-m",
        "suite.cli",
        "image",
        "a red apple",
        "--model",
        model,
        "-o",
        tmp_path / "a.png",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert restore(tmp_path / "a.png")["prompt"] == "a red apple"


@pytest.mark.parametrize(
    "argv, module, told",
    [
        (["train", "image", "--out", "x"], "suite.train", ("image", ["--out", "x"], "train")),
        (["distill", "image", "--out", "x"], "suite.train", ("image", ["--out", "x"], "distill")),
        (["eval", "image", "--quick"], "modalities.image.judge", (["--quick"],)),
        (["bench", "--steps", "3"], "suite.bench", (["--steps", "3"],)),
        (["app", "--port", "1"], "demos.app", (["--port", "1"],)),
    ],
)
def test_what_stands_apart_is_called_with_its_own_options(argv, module, told, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(main=lambda *args: calls.append(args)))
    assert cli.main(argv) == 0
    assert calls == [told]
