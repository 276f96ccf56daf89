"""Our sounds as others hear and read them: ffmpeg's EBU R 128 meter, pyloudnorm, ffmpeg's tags."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
from imageio_ffmpeg import get_ffmpeg_exe
from pytest import approx

from modalities.audio import AudioRequest, adapter
from modalities.audio.loudness import normalized, widened
from modalities.audio.read import mono, opened
from modalities.audio.save import Sound

RATE = 24_000
TARGETS = [(-18.0, -1.0), (-23.0, -3.0), (-16.0, 0.0)]


def draw(seconds):
    return np.random.default_rng(0).standard_normal(round(seconds * RATE))


def times(seconds):
    return np.arange(round(seconds * RATE)) / RATE


def barks():
    """Two harmonic bursts with noise in them, 0.15 s each, in three seconds of near silence."""
    time = times(0.3)
    tone = sum(np.sin(2 * np.pi * 550 * k * time * (1 - 0.3 * time)) / k for k in range(1, 9))
    burst = (tone + 0.5 * draw(0.3)) * np.exp(-np.abs(time - 0.03) / 0.04)
    made = 1e-4 * draw(3)
    for start in (0.1, 1.2):
        made[round(start * RATE) :][: len(burst)] += burst
    return made


def knocks():
    """Five low thuds with a hard beginning."""
    time = times(0.25)
    thud = np.sin(2 * np.pi * 150 * time) * np.exp(-time / 0.03) + 0.8 * draw(0.25) * np.exp(-time / 0.004)
    return np.concatenate([thud] * 5)


SOUNDS = {
    "sine": np.sin(2 * np.pi * 440 * times(2)),
    "low sine": np.sin(2 * np.pi * 60 * times(2)),
    "noise": draw(5.12),
    "half a second": draw(0.5) * np.exp(-times(0.5) / 0.2),
    "uneven length": draw(0.777) * np.exp(-times(0.777) / 0.1),
    "barks": barks(),
    "knocks": knocks(),
    "cut at its loudest": 0.5 * np.cos(2 * np.pi * 2900 * times(0.6)) * np.exp(-times(0.6) / 0.15),
    "hum and a loud click": 0.05 * np.sin(2 * np.pi * 200 * times(3)) + np.eye(1, 3 * RATE, RATE)[0],
}


def ebur128(path):
    """Integrated loudness and true peak as ffmpeg tells them, to a tenth."""
    command = [get_ffmpeg_exe(), "-nostats", "-i", str(path), "-af", "ebur128=peak=true", "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr.split("Summary:")[-1]
    return tuple(float(re.search(rf"{name}:\s+(\S+)", told)[1]) for name in ("I", "Peak"))


def pyloud(path):
    samples, rate = soundfile.read(path)
    return pyloudnorm.Meter(rate).integrated_loudness(samples)


def told(target, ceiling):
    request = AudioRequest(prompt="a dog barking 🐕", loudness=target, ceiling=ceiling, seconds=1, bits="24")
    return {"suite": "0.1.0", "modality": "audio", "request": request.model_dump(mode="json")}


@pytest.mark.parametrize("target, ceiling", TARGETS)
@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_two_meters_agree_with_the_target_and_the_peak_is_under_the_ceiling(
    tmp_path, name, target, ceiling, channels
):
    made = SOUNDS[name] / np.abs(SOUNDS[name]).max() * 0.3
    samples = widened(made, RATE) if channels == 2 else made[None]
    Sound(normalized(samples, RATE, target, ceiling), RATE).save(tmp_path / "a.wav", "float")
    found, peak = ebur128(tmp_path / "a.wav")
    assert found == approx(target, abs=0.5) and pyloud(tmp_path / "a.wav") == approx(target, abs=0.5)
    assert peak <= ceiling


@pytest.mark.parametrize("ending", adapter.suffixes)
@pytest.mark.parametrize("name, target, ceiling", [
    ("barks", -18.0, -1.0), ("noise", -18.0, -1.0), ("half a second", -16.0, 0.0), ("knocks", -18.0, -3.0),
])  # fmt: skip
def test_that_holds_for_what_every_format_decodes_to(tmp_path, name, target, ceiling, ending):
    path = tmp_path / f"a{ending}"
    Sound(normalized(SOUNDS[name][None], RATE, target, ceiling), RATE, told(target, ceiling)).save(path)
    found, peak = ebur128(path)
    assert found == approx(target, abs=0.5) and pyloud(path) == approx(target, abs=0.5)
    assert peak <= ceiling


@pytest.mark.parametrize("ending", adapter.suffixes)
@pytest.mark.parametrize("bits", ["16", "24", "float"])
def test_ffmpeg_reads_title_and_settings_and_every_sample(tmp_path, ending, bits):
    path = tmp_path / f"a{ending}"
    Sound(0.1 * draw(1.3)[None].clip(-4, 4), RATE, told(-18, -1)).save(path, bits)
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    tags = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    if ending == ".ogg":  # whose tags are the stream's
        command[-3:-3] = ["-map_metadata", "0:s:0"]
        tags = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    pairs = (line.split("=", 1) for line in re.sub(r"\\(.)", r"\1", tags).splitlines() if "=" in line)
    found = {name.lower(): text for name, text in pairs}
    assert json.loads(found["comment"]) == told(-18, -1) and found["title"] == "a dog barking 🐕"
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert not done.stderr and len(done.stdout) == 4 * round(1.3 * RATE)


DATA = os.environ.get("SUITE_DATA")


@pytest.mark.skipif(not DATA, reason="SUITE_DATA names no folder with the unpacked packs")
@pytest.mark.parametrize("word", ["dog bark", "rooster", "sea waves", "rain", "clock tick", "helicopter"])
def test_two_meters_agree_on_sounds_of_the_packs(tmp_path, word):
    lines = (Path(DATA) / "sounds" / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["text"] == word][:5]
    assert rows
    for row in rows:
        wave = mono(*opened("init", str(Path(DATA) / "sounds" / row["file_name"])), RATE)
        wave = np.pad(wave, (0, -len(wave) % 2400))  # for meters differ over a part of a block at the end
        Sound(normalized(wave[None], RATE, -18, -1), RATE).save(tmp_path / "a.flac")
        found, peak = ebur128(tmp_path / "a.flac")
        assert found == approx(-18, abs=0.5) and pyloud(tmp_path / "a.flac") == approx(-18, abs=0.5)
        assert peak <= -1
