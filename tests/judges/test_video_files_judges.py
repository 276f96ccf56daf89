"""Our clips as others read them: ffprobe and ffmpeg, PIL, a reader of sprite sheets by the letter."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from pytest import approx

from modalities.video.read import on_ground
from modalities.video.save import Clip, save

SETTINGS = {"suite": "0.1.0", "modality": "video", "request": {"prompt": "patches = #1; 🍎", "seed": 7}}
COUNT, FPS = 10, 12.5
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40), (40, 90, 160),
           (128, 128, 128), (250, 210, 60), (140, 84, 208)]  # fmt: skip
STREAM = "codec_name,pix_fmt,color_range,color_space,color_transfer,color_primaries,width,height,r_frame_rate"


def patches():
    """(T, 32, 98, 3) uint8: of ten colours each frame shows seven in turn; the width is no multiple of 16."""
    rows = [np.array(COLOURS)[(np.arange(7) + t) % 10] for t in range(COUNT)]
    return np.stack(rows)[:, None].repeat(32, 1).repeat(14, 2).astype(np.uint8)


def ball():
    """(T, 40, 40, 4) uint8: a disc that moves, on nothing."""
    y, x = np.mgrid[:40, :40]
    alpha = np.stack([255 * (10.5 - np.hypot(x - 12 - t, y - 20)).clip(0, 1) for t in range(COUNT)])
    made = np.empty((*alpha.shape, 4))
    made[..., :3], made[..., 3] = (200, 40, 30), alpha
    return made.round().astype(np.uint8)


def decoded(path, width, height, *before):
    """What ffmpeg makes of a file: (T, H, W, 4) uint8."""
    command = [get_ffmpeg_exe(), "-v", "error", *before, "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-sws_flags", "accurate_rnd+full_chroma_int", "-pix_fmt", "rgba", "-f", "rawvideo", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert not done.stderr, done.stderr
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 4)


def middles(frames):
    """The colour in the middle of each patch, where no neighbour's chroma is."""
    return frames[:, 16, 7::14, :3].astype(int)


def probed(path, *asked):
    ffprobe = shutil.which("ffprobe")
    if ffprobe is None:
        pytest.skip("there is no ffprobe")
    command = [ffprobe, "-v", "error", "-count_frames", "-of", "json", *asked, str(path)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("ending, codec", [(".mp4", "h264"), (".webm", "vp9")])
def test_ffprobe_says_codec_size_rate_count_and_colours(tmp_path, ending, codec):
    sound = (np.zeros((2, 16000), np.float32), 16000)
    save(Clip(patches(), FPS, sound=sound), tmp_path / f"a{ending}", SETTINGS)
    shown = "stream=nb_read_frames,codec_type," + STREAM + ":stream_tags:format=duration:format_tags"
    told = probed(tmp_path / f"a{ending}", "-show_entries", shown)
    video, audio = told["streams"]
    wanted = [codec, "yuv420p", "tv", "bt709", "bt709", "bt709", 98, 32, "25/2"]
    assert [video[name] for name in STREAM.split(",")] == wanted
    assert int(video["nb_read_frames"]) == COUNT
    assert audio["codec_name"] == ("aac" if ending == ".mp4" else "opus")
    assert float(told["format"]["duration"]) == approx(COUNT / FPS, abs=0.03)
    tags = {name.lower(): text for name, text in told["format"]["tags"].items()}
    assert tags["title"] == "patches = #1; 🍎" and json.loads(tags["comment"]) == SETTINGS


def test_ffmpeg_says_the_same_of_an_mp4(tmp_path):
    save(Clip(patches(), FPS), tmp_path / "a.mp4", SETTINGS)
    command = [get_ffmpeg_exe(), "-i", str(tmp_path / "a.mp4"), "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, check=True).stderr.decode()
    assert re.search(r"Video: h264.*yuv420p\(tv, bt709, progressive\), 98x32.*12.50 fps", told), told
    assert re.search(r"frame= *10 ", told)


def test_an_mp4_starts_at_once(tmp_path):
    save(Clip(patches(), FPS), tmp_path / "a.mp4", SETTINGS)
    data, at, boxes = (tmp_path / "a.mp4").read_bytes(), 0, []
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert boxes.index(b"moov") < boxes.index(b"mdat") and boxes[0] == b"ftyp"


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_colours_come_back_by_their_tags_and_are_stored_by_bt709(tmp_path, ending):
    save(Clip(patches(), FPS), tmp_path / f"a{ending}", {})
    assert np.abs(middles(decoded(tmp_path / f"a{ending}", 98, 32)) - middles(patches())).max() <= 5
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(tmp_path / f"a{ending}"), "-f", "rawvideo", "-"]
    raw = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    luma = raw.reshape(COUNT, -1)[:, : 98 * 32].reshape(COUNT, 32, 98)[:, 16, 7::14]
    wanted = 16 + 219 / 255 * (middles(patches()) @ [0.2126, 0.7152, 0.0722])
    assert np.abs(luma - wanted).max() <= 3


def test_a_webm_has_alpha_where_it_is_asked_for(tmp_path):
    save(Clip(ball(), FPS), tmp_path / "a.webm", {})
    shown = "stream=nb_read_frames,color_space,color_range:stream_tags=alpha_mode"
    video = probed(tmp_path / "a.webm", "-show_entries", shown)["streams"][0]
    assert {name.lower(): text for name, text in video["tags"].items()} == {"alpha_mode": "1"}
    assert (video["color_space"], video["color_range"]) == ("bt709", "tv")
    frames = decoded(tmp_path / "a.webm", 40, 40, "-c:v", "libvpx-vp9")
    assert np.abs(frames[..., 3].astype(int) - ball()[..., 3]).mean() < 1
    solid = (frames[..., 3] == 255) & (ball()[..., 3] == 255)
    assert np.abs(frames[solid].astype(int) - (200, 40, 30, 255)).mean() < 3


@pytest.mark.parametrize("clip", [patches, ball])
@pytest.mark.parametrize("ending", [".gif", ".webp", ".png"])
def test_pil_shows_every_frame_of_an_animation_for_ever(tmp_path, ending, clip):
    frames = clip()
    save(Clip(frames, FPS), tmp_path / f"a{ending}", SETTINGS)
    with Image.open(tmp_path / f"a{ending}") as picture:
        assert picture.n_frames == COUNT and picture.info["loop"] == 0
        for number, frame in enumerate(frames):
            picture.seek(number)
            shown = np.asarray(picture.convert("RGBA"))
            assert picture.info["duration"] == 80
            whole = np.asarray(Image.fromarray(frame).convert("RGBA"))
            if ending == ".gif":
                assert (shown[..., 3] == 255 * (whole[..., 3] >= 128)).all()
            else:
                assert (shown[..., 3] == whole[..., 3]).all()
            seen = shown[..., 3] == 255
            assert np.abs(shown[seen].astype(int) - whole[seen])[:, :3].max() <= 3


@pytest.mark.parametrize("clip", [patches, ball])
@pytest.mark.parametrize("ending, form", [(".gif", "gif"), (".png", "apng")])
def test_ffmpeg_sees_the_same_animation(tmp_path, ending, form, clip):
    frames = clip()
    save(Clip(frames, FPS), tmp_path / f"a{ending}", SETTINGS)
    shown = decoded(tmp_path / f"a{ending}", frames.shape[2], frames.shape[1], "-f", form)
    assert shown.shape[0] == COUNT
    if frames.shape[3] == 3:
        assert np.abs(shown[..., :3].astype(int) - frames).max() <= 3
    else:
        wanted = frames.copy()
        if form == "gif":
            wanted[..., 3] = 255 * (frames[..., 3] >= 128)
        off = on_ground(shown, "lime").astype(int) - on_ground(wanted, "lime")
        assert np.abs(off).max() <= 3
    if shutil.which("ffprobe"):
        asked = "stream=codec_name,r_frame_rate,nb_read_frames"
        video = probed(tmp_path / f"a{ending}", "-show_entries", asked)["streams"][0]
        assert (video["codec_name"], video["r_frame_rate"], video["nb_read_frames"]) == (form, "25/2", "10")


def test_a_gif_of_few_colours_has_them_exactly_and_a_gradient_nearly(tmp_path):
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([np.stack([40 + 3 * x, 60 + 2 * y, 200 - x - y + t], -1) for t in range(4)])
    save(Clip(smooth.astype(np.uint8), 10), tmp_path / "a.gif", {})
    shown = decoded(tmp_path / "a.gif", 64, 64)[..., :3].astype(int)
    assert np.abs(shown - smooth).mean() < 4 and np.abs(shown - smooth).max() < 24
    still = np.abs(np.diff(shown, axis=0)).mean()
    assert still < 3, "colours flicker"
