"""README's blocks run as printed, on the tiny models in place of the shipped ones."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import trimesh
from PIL import Image

from modalities.mesh.render import turntable
from suite import cli

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
CONSOLE = re.findall(r"^```console\n(.*?)^```", TEXT, re.M | re.S)


@pytest.fixture(autouse=True)
def shipped(
    tiny_model, tiny_audio_model, tiny_mesh_model, tiny_video_model, words, monkeypatch, tmp_path
):
    folders = [model.parent for model in (tiny_model, tiny_audio_model, tiny_mesh_model, tiny_video_model)]
    monkeypatch.setattr("suite.storage.roots", lambda: folders)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    """What a reader has: a photo, a mesh, photos of a turn."""
    thing = trimesh.creation.icosphere()
    thing.export(tmp_path / "scan.obj")
    (tmp_path / "turntable").mkdir()
    for i, shown in enumerate(turntable(thing, 4, 64, pitch=0)):
        Image.fromarray(shown).save(tmp_path / "turntable" / f"{i}.png")
    for name in ("photo", "apple"):
        Image.fromarray(shown).save(tmp_path / f"{name}.png")


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("block", CONSOLE, ids=range(len(CONSOLE)))
def test_console_blocks_run(block, files):
    for line in block.splitlines():
        command, *argv = shlex.split(line.removeprefix("$ "))
        assert command == "suite"
        if ".usdz" in line and not find_spec("pxr"):
            continue
        assert cli.main(argv) == 0, line


def test_every_command_and_option_named_is_one(capsys):
    for medium in ("image", "audio", "mesh", "video"):
        with pytest.raises(SystemExit):
            cli.main([medium, "--help"])
        known = capsys.readouterr().out
        lines = [line for block in CONSOLE for line in block.splitlines() if f"suite {medium}" in line]
        assert lines and all(option in known for option in re.findall(r"--[a-z-]+", " ".join(lines)))
