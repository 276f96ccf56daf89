"""Clips on disk: what a file holds when it is read again, what is refused, what is cut out."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from pytest import approx

from modalities.audio.read import opened as heard
from modalities.video import read as reading
from modalities.video.read import even, on_ground, opened, resized
from modalities.video.save import SUFFIXES, Clip, restore, save, transparent

ASKED = {"prompt": 'a "red" = ball;\n# rolling \\ 50% 🍎 ©cmt', "seed": 7, "list": ["word"] * 4000}
SETTINGS = {"suite": "0.1.0", "modality": "video", "request": ASKED}
T, H, W, RADIUS = 12, 48, 64, 14
EXACT = (".webp", ".png", ".frames")
READ = tuple(ending for ending in SUFFIXES if ending != ".json")


def rolling(ground=None, count=T, height=H, width=W):
    """A ball of a colour that changes from left to right, which rolls: with alpha, or on a ground."""
    y, x = np.mgrid[:height, :width]
    made = np.empty((count, height, width, 4))
    for t in range(count):
        away = np.hypot(x - 18 - 2 * t, y - height / 2)
        made[t] = np.stack([200 + 0 * x, 60 + x, 40 + y, 255 * (RADIUS + 0.5 - away).clip(0, 1)], -1)
    made = made.round().clip(0, 255).astype(np.uint8)
    return made if ground is None else on_ground(made, ground)


def tone(seconds, frequency=1000, rate=44100):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate))[None].astype("f4")


def ffmpeg(*options):
    subprocess.run([get_ffmpeg_exe(), "-v", "error", "-y", *map(str, options)], check=True)


def film(path, *options, seconds=1, rate=30, size="64x48"):
    """A test picture that moves, made by ffmpeg alone."""
    drawn = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}", "-pix_fmt", "yuv420p"]
    ffmpeg(*drawn, *options, path)
    return str(path)


@pytest.mark.parametrize("ground", [None, "navy"])
@pytest.mark.parametrize("ending", SUFFIXES)
def test_settings_come_back_from_every_format_and_saving_leaves_nothing_else(tmp_path, ending, ground):
    Clip(rolling(ground), 12, SETTINGS).save(tmp_path / f"a{ending}")
    assert restore(tmp_path / f"a{ending}") == ASKED
    beside = {"a.png"} if ending == ".json" else set()
    assert {path.name for path in tmp_path.iterdir()} == {f"a{ending}"} | beside


@pytest.mark.parametrize("ending", SUFFIXES)
def test_a_clip_saved_without_settings_has_none(tmp_path, ending):
    Clip(rolling(), 12).save(tmp_path / f"a{ending}")
    with pytest.raises(ValueError, match="carries no settings of diffusion-suite"):
        restore(tmp_path / f"a{ending}")


@pytest.mark.parametrize("fps", [8, 23.976, 30, 48])
@pytest.mark.parametrize("ending", READ)
def test_every_frame_comes_back_at_its_size_and_rate(tmp_path, ending, fps):
    frames = rolling("navy")
    Clip(frames, fps).save(tmp_path / f"a{ending}")
    again, rate = opened("init", str(tmp_path / f"a{ending}"))
    assert again.shape == (T, H, W, 4) and again.dtype == np.uint8 and (again[..., 3] == 255).all()
    assert rate == approx(fps, rel=1e-5 if ending in (".mp4", ".frames") else 0.002)  # of whole milliseconds
    off = np.abs(again[..., :3].astype(int) - frames).mean((1, 2, 3))
    assert off.max() == 0 if ending in EXACT else off.max() < 4, off


@pytest.mark.parametrize("ending", [".webm", ".gif", *EXACT])
def test_what_is_transparent_comes_back(tmp_path, ending):
    frames = rolling()
    save(Clip(frames, 12), tmp_path / f"a{ending}", {})
    again, _ = opened("init", tmp_path / f"a{ending}")
    if ending == ".gif":
        assert (again[..., 3] == 255 * (frames[..., 3] >= 128)).all()
    else:
        off = np.abs(again[..., 3].astype(int) - frames[..., 3])
        assert off.max() <= (0 if ending in EXACT else 60) and off.mean() < 1
    solid = (frames[..., 3] == 255) & (again[..., 3] == 255)
    assert np.abs(again[solid].astype(int) - frames[solid]).max() <= (0 if ending in EXACT else 16)


def test_an_mp4_of_what_is_transparent_is_on_white(tmp_path):
    save(Clip(rolling(), 12), tmp_path / "a.mp4", {})
    again, _ = opened("init", tmp_path / "a.mp4")
    off = again[..., :3] - on_ground(rolling(), "white").astype(int)
    assert (again[:, :4] >= 252).all() and np.abs(off).mean() < 3


@pytest.mark.parametrize("ending", READ)
def test_a_clip_that_stands_still_for_a_while_keeps_its_frames(tmp_path, ending):
    frames = rolling("teal")[[0, 1, 2, 2, 2, 2, 3, 4, 5, 5, 6, 6]]
    save(Clip(frames, 24), tmp_path / f"a{ending}", {})
    again, rate = opened("init", tmp_path / f"a{ending}")
    assert rate == 24 and again.shape[0] == T
    assert np.abs(again[..., :3].astype(int) - frames).mean((1, 2, 3)).max() < 4


@pytest.mark.parametrize("ending", READ)
def test_one_frame_is_a_clip(tmp_path, ending):
    save(Clip(rolling("teal", 1), 24), tmp_path / f"a{ending}", {})
    again, rate = opened("init", tmp_path / f"a{ending}")
    assert again.shape == (1, H, W, 4) and rate == 0


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
@pytest.mark.parametrize("channels, rate, lasting", [(1, 44100, 5), (2, 16000, 1), (2, 48000, 0.5)])
def test_films_carry_the_sound_cut_to_their_length(tmp_path, ending, channels, rate, lasting):
    sound = tone(lasting, 1000, rate).repeat(channels, 0)
    save(Clip(rolling("teal"), 12, sound=(sound, rate)), tmp_path / f"a{ending}", SETTINGS)
    samples, got = heard("init", str(tmp_path / f"a{ending}"))
    assert samples.shape[0] == channels and samples.shape[1] / got == approx(min(lasting, 1), abs=0.03)
    peak = np.abs(np.fft.rfft(samples[0])).argmax() * got / samples.shape[1]
    assert peak == approx(1000, abs=5) and np.abs(samples).max() == approx(0.5, abs=0.1)
    assert opened("init", tmp_path / f"a{ending}")[0].shape[0] == T
    assert restore(tmp_path / f"a{ending}") == ASKED


@pytest.mark.parametrize("ending", SUFFIXES)
def test_the_same_clip_gives_the_same_bytes_and_only_films_take_the_sound(tmp_path, ending):
    clips = [Clip(rolling(), 12, SETTINGS, sound) for sound in (None, None, (tone(1), 44100))]
    held = []
    for number, clip in enumerate(clips):
        (tmp_path / str(number)).mkdir()
        clip.save(tmp_path / str(number) / f"a{ending}")
        files = sorted(path for path in (tmp_path / str(number)).rglob("*") if path.is_file())
        held.append([path.read_bytes() for path in files])
    assert held[0] == held[1] and (held[0] == held[2]) == (ending not in (".mp4", ".webm"))


def test_a_film_of_an_odd_size_is_exact_or_refused(tmp_path):
    frames = rolling("teal", 3, 31, 43)
    with pytest.raises(ValueError, match=r"43x31 pixels; MP4 needs an even width and height \(try 42x30"):
        save(Clip(frames, 12), tmp_path / "a.mp4", {})
    assert not list(tmp_path.iterdir())
    for clip in (frames, rolling(None, 3, 31, 43)):
        save(Clip(clip, 12), tmp_path / "a.webm", {})
        assert opened("init", tmp_path / "a.webm")[0].shape == (3, 31, 43, 4)


def test_another_ending_and_what_is_no_clip_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.avi'; its ending must be one of \.mp4, \.webm, \.gif"):
        save(Clip(rolling(), 12), tmp_path / "a.avi", {})
    for frames, fps, sound, told in [
        (rolling()[0], 12, None, r"frames are \(48, 64, 4\) of uint8; they must be"),
        (rolling() / 255, 12, None, "of float64"),
        (rolling()[:0], 12, None, "they must be"),
        (rolling(), 0, None, "fps is 0; it must be 0.1 to 1000"),
        (rolling(), 12, (np.zeros(8), 8000), r"sound is \(8,\); it must be \(channels, N\)"),
    ]:
        with pytest.raises(ValueError, match=told):
            Clip(frames, fps, sound=sound)


@pytest.mark.parametrize("ending", SUFFIXES)
def test_nothing_is_half_written_and_the_old_file_stays(tmp_path, ending):
    save(Clip(rolling("red"), 12), tmp_path / f"a{ending}", SETTINGS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TypeError):
        save(Clip(rolling("teal"), 12), tmp_path / f"a{ending}", {"request": {"prompt": "", "a": object()}})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == (2 if ending == ".json" else 1)


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_an_encoder_that_fails_leaves_nothing_and_says_why(tmp_path, ending, monkeypatch):
    monkeypatch.setattr("modalities.video.save._H264", ["-c:v", "nothing"])
    monkeypatch.setattr("modalities.video.save._VP9", ["-c:v", "nothing"])
    with pytest.raises(OSError, match=f"{ending[1:]} could not be written: .*nothing"):
        save(Clip(rolling("red"), 12), tmp_path / f"a{ending}", {})
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_place_of_frames_but_of_nothing_else(tmp_path):
    save(Clip(rolling("red"), 12), tmp_path / "a.frames", SETTINGS)
    save(Clip(rolling("red", 3), 10), tmp_path / "a.frames", SETTINGS)
    names = [*(f"000{number}.png" for number in (1, 2, 3)), "settings.json"]
    assert sorted(os.listdir(tmp_path / "a.frames")) == names
    (tmp_path / "a.frames" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files; it must be new, or hold frames alone"):
        save(Clip(rolling("red", 2), 12), tmp_path / "a.frames", {})
    assert sorted(os.listdir(tmp_path / "a.frames")) == sorted([*names, "mine.txt"])


@pytest.mark.parametrize("count, ground", [(1, "red"), (12, "red"), (7, None)])
def test_a_sprite_sheet_says_where_every_frame_is(tmp_path, count, ground):
    frames = rolling(ground, count)
    save(Clip(frames, 24), tmp_path / "ball.json", SETTINGS)
    told = json.loads((tmp_path / "ball.json").read_text("utf-8"))
    sheet = Image.open(tmp_path / told["meta"]["image"])
    assert sheet.size == (told["meta"]["size"]["w"], told["meta"]["size"]["h"])
    assert max(sheet.size) <= 2 * min(sheet.size) and told["meta"]["suite"] == SETTINGS
    assert list(told["frames"]) == told["animations"]["ball"] and len(told["frames"]) == count
    for frame, place in zip(frames, told["frames"].values(), strict=True):
        box = place["frame"]
        found = sheet.crop((box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]))
        assert (np.asarray(found) == frame).all()
        assert not place["rotated"] and not place["trimmed"] and place["sourceSize"] == {"w": W, "h": H}
        assert place["spriteSourceSize"] == {"x": 0, "y": 0, "w": W, "h": H}
    assert sum(place["duration"] for place in told["frames"].values()) == approx(count / 24 * 1000, abs=1)


@pytest.mark.parametrize("ending, most", [(".gif", 50), (".webp", 90), (".png", 90)])
def test_an_animation_too_quick_for_browsers_has_fewer_frames_and_lasts_as_long(tmp_path, ending, most):
    save(Clip(rolling("red", 24), 240), tmp_path / f"a{ending}", {})
    with Image.open(tmp_path / f"a{ending}") as picture:
        lasting = []
        for number in range(picture.n_frames):
            picture.seek(number)
            picture.load()
            lasting.append(picture.info["duration"])
        assert picture.info["loop"] == 0
        assert abs(int(picture.convert("RGB").getpixel((56, H // 2))[0]) - 200) <= 8, "of the end"
    assert len(lasting) == most / 10 and min(lasting) >= 11 and sum(lasting) == approx(100, abs=1)


def test_a_picture_shows_frames_from_the_first_to_the_last():
    clip = Clip(rolling(count=30), 12)
    assert clip.seconds == 2.5
    picture = clip.picture(height=H)
    assert picture.mode == "RGB" and picture.size == (8 * W, H)
    shown = np.asarray(picture).reshape(H, 8, W, 3).swapaxes(0, 1)
    assert (shown[[0, -1]] == on_ground(clip.frames[[0, -1]], "white")).all()
    assert clip.picture(height=24).size == (8 * 32, 24)
    assert Clip(rolling(count=3), 12).picture(height=H).size == (3 * W, H)


@pytest.mark.parametrize("content, told", [
    (None, "does not exist"),
    (b"", "is no clip whose settings can be read"),
    (b"GIF89a", "is no clip whose settings can be read"),
    (b"\0\0\0\x18ftypisom", "is no clip whose settings can be read"),
    (b"\x1a\x45\xdf\xa3", "is no clip whose settings can be read"),
])  # fmt: skip
def test_a_file_without_settings_is_told_in_one_sentence(tmp_path, content, told):
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=told) as raised:
        restore(tmp_path / "a")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"meta": []}', '{"meta": {"suite": 3}}', "{"])
def test_a_json_that_is_no_sheet_of_ours_is_told(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"carries no settings|is no clip whose settings"):
        restore(tmp_path / "a.json")


@pytest.mark.parametrize("ground", ["#f0f0f0", "#78aadc", "black"])
def test_a_plain_ground_becomes_transparent_with_edges_that_have_none_of_it(ground):
    frames = rolling()
    noise = np.random.default_rng(0).normal(0, 2, (*frames.shape[:3], 3))
    laid = (on_ground(frames, ground) + noise).round().clip(0, 255).astype(np.uint8)
    cut = transparent(laid)
    off = np.abs(cut[..., 3].astype(int) - frames[..., 3])
    assert off.mean() < 1 and off.max() < 60
    edge = (frames[..., 3] > 60) & (frames[..., 3] < 255)
    assert np.abs(off[edge]).mean() < 12
    for other in ("magenta", "lime"):
        wanted, got = (on_ground(one, other)[edge].astype(int) for one in (frames, cut))
        assert np.abs(wanted - got).mean() < 8, "what was behind the edge still shines through"
    assert np.abs(on_ground(cut, ground).astype(int) - laid).mean() < 2.5


def test_thin_lines_stay_and_what_the_object_encloses_is_not_the_ground():
    frames = np.full((2, 64, 64, 3), 240, np.uint8)
    frames[:, 20, 8:56] = (20, 60, 200)
    frames[:, 32:56, 16:48] = (200, 30, 20)
    frames[:, 40:48, 24:40] = 240
    cut = transparent(frames)
    assert (cut[:, 20, 8:56] == (20, 60, 200, 255)).all()
    assert (cut[:, 40:48, 24:40] == (240, 240, 240, 255)).all()
    assert (cut[:, 32:56, 16:48, 3] == 255).all() and (cut[:, :18, :, 3] == 0).all()
    assert (cut[:, 30, 20:40] == (200, 30, 20, 0)).all(), "scaled, the edge shows what is beside it"
    assert not cut[:, :17].any(), "what is never seen costs nothing"


def test_what_an_outline_encloses_is_not_taken_for_its_soft_edge():
    frames = np.full((1, 40, 40, 3), 240, np.uint8)
    frames[:, 8:32, 8:32] = 0
    frames[:, 9:31, 9:31] = (250, 220, 60)
    cut = transparent(frames)
    assert (cut[:, 8:32, 8:32, 3] == 255).all() and (cut[:, 9:31, 9:31, :3] == (250, 220, 60)).all()


def test_a_ground_that_is_not_plain_is_refused_in_one_sentence():
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"the frames have no plain ground .*: \d+% of the border is of one"):
        transparent(noise)
    assert (transparent(np.full((1, 1, 5, 3), 9, np.uint8))[..., 3] == 0).all()


def test_an_object_may_touch_the_border():
    frames = np.full((3, 40, 40, 3), 250, np.uint8)
    frames[:, 10:30, 20:] = (30, 90, 40)
    assert (transparent(frames)[..., 3] == 255 * (frames[..., 0] == 30)).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_a_still_picture_is_a_clip_of_one_frame(tmp_path, mode):
    grey = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))
    picture = Image.fromarray(grey if mode != "I;16" else grey.astype(np.uint16) * 257)
    picture = picture if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "a.png")
    for source in (picture, str(tmp_path / "a.png"), tmp_path / "a.png"):
        frames, rate = opened("init", source)
        assert frames.shape == (1, 16, 32, 4) and rate == 0
        assert np.abs(frames[0, ..., 0].astype(int) - grey).max() <= 1 and (frames[..., 3] == 255).all()


def test_a_clip_in_memory_is_read_as_it_is():
    frames, rate = opened("init", Clip(rolling("teal"), 12.5))
    assert rate == 12.5 and (frames[..., :3] == rolling("teal")).all() and (frames[..., 3] == 255).all()


def test_a_photo_and_a_film_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rolling("teal")[0]).save(tmp_path / "a.jpg", exif=exif)
    assert opened("init", tmp_path / "a.jpg")[0].shape == (1, W, H, 4)
    save(Clip(rolling("teal"), 12), tmp_path / "a.mp4", {})
    ffmpeg("-display_rotation", 90, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mov")
    lying, turned = (opened("init", tmp_path / name)[0] for name in ("a.mp4", "b.mov"))
    assert turned.shape == (T, W, H, 4)
    assert np.abs(np.rot90(lying, 1, (1, 2)).astype(int) - turned).mean() < 2


def test_pixels_that_are_not_square_become_so(tmp_path):
    assert opened("init", film(tmp_path / "a.mp4", "-vf", "setsar=2"))[0].shape == (30, 48, 128, 4)


@pytest.mark.parametrize("ending, options", [
    (".mov", ("-c:v", "mjpeg")),
    (".mkv", ("-c:v", "libx264", "-bf", "3")),
    (".webm", ("-c:v", "libvpx")),
    (".mp4", ("-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov")),
])  # fmt: skip
def test_films_of_others_are_read(tmp_path, ending, options):
    frames, rate = opened("init", film(tmp_path / f"a{ending}", *options, rate="30000/1001", seconds=2))
    assert frames.shape == (60, 48, 64, 4) and rate == approx(30000 / 1001, rel=1e-6)
    assert len(np.unique(frames.reshape(60, -1), axis=0)) > 20


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_rate_that_varies_becomes_even(tmp_path, ending):
    save(Clip(rolling("teal"), 12), tmp_path / f"a{ending}", {})
    kept = "select=not(between(n\\,3\\,5)),select=not(eq(n\\,6))"  # frames 3, 4, 5 and another are left out
    ffmpeg("-i", tmp_path / f"a{ending}", "-vf", kept, "-fps_mode", "vfr", tmp_path / f"b{ending}")
    frames, rate = opened("init", tmp_path / f"b{ending}")
    assert len(frames) == T and rate == 12
    same = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3)) < 0.5
    assert same[2:5].all() and same.sum() == 4


@pytest.mark.parametrize("durations, rate, shown", [
    ([100, 100, 100], 10, [0, 1, 2]),
    ([100, 300, 100], 10, [0, 1, 1, 1, 2]),
    ([0, 0, 0], 10, [0, 1, 2]),
    ([40, 80, 40], 25, [0, 1, 1, 2]),
    ([30, 30, 40, 70, 30, 130], 30, [0, 1, 2, 3, 3, 4, 5, 5, 5, 5]),
])  # fmt: skip
def test_a_gif_is_shown_as_browsers_show_it(tmp_path, durations, rate, shown):
    frames = [Image.new("L", (8, 8), 20 * number) for number in range(len(durations))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=durations)
    again, found = opened("init", tmp_path / "a.gif")
    assert found == approx(rate) and (again[:, 0, 0, 0] == [20 * number for number in shown]).all()


def test_times_that_fit_no_rate_are_shown_at_their_mean():
    rate, shown = even(np.array([0, 0.1, 0.23, 0.29]), 0.4, 0.001)
    assert rate == approx(10, rel=0.3) and shown[0] == 0 and shown[-1] == 3 and (np.diff(shown) >= 0).all()


def test_a_frame_that_would_last_for_years_is_refused(tmp_path):
    assert len(even(np.array([0, 0.1, 1e9]), 1e9 + 0.1, 0.001)[1]) == reading.MOST + 1
    frames = [Image.new("L", (8, 8), value) for value in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[20, 600_000, 20])
    with pytest.raises(ValueError, match="which has more than 3000 frames; cut it"):
        opened("init", tmp_path / "a.gif")


def test_the_picture_that_stands_for_an_apng_is_no_frame_of_it(tmp_path):
    still, *frames = [Image.new("L", (8, 8), value) for value in (250, 10, 20, 30)]
    still.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=50)
    again, rate = opened("init", tmp_path / "a.png")
    assert rate == 20 and again[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_a_folder_of_pictures_is_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 1):
        Image.new("L", (8, 8), number).save(tmp_path / f"shot {number}.png")
    (tmp_path / "notes.txt").write_text("")
    frames, rate = opened("init", str(tmp_path))
    assert frames[:, 0, 0, 0].tolist() == [1, 9, 10] and rate == 0
    Image.new("L", (9, 8)).save(tmp_path / "shot 11.png")
    with pytest.raises(ValueError, match=r"of one size, but shot 11.png is 9x8, not 8x8"):
        opened("init", str(tmp_path))


def broken(folder):
    """Name to path of files that are no clips."""
    for ending in (".mp4", ".webm", ".gif", ".webp", ".png"):
        save(Clip(rolling("teal"), 12, sound=(tone(1), 44100)), folder / f"whole{ending}", {})
    data = bytearray((folder / "whole.mp4").read_bytes())
    at = data.index(b"mdat") + 800
    data[at : at + 300] = b"\xff" * 300
    (folder / "torn.mp4").write_bytes(data)
    for path in list(folder.glob("whole.*")):
        data = path.read_bytes()
        (folder / f"half{path.suffix}").write_bytes(data[: len(data) * 7 // 10])
        (folder / f"begun{path.suffix}").write_bytes(data[:60])
        path.unlink()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no film")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    (folder / "sound.mp4").write_bytes(b"")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / "sound.mp4")
    (folder / "empty").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.mp4")
    return sorted(folder.iterdir())


def test_what_is_broken_is_refused_in_one_sentence_that_names_it(tmp_path):
    for path in broken(tmp_path):
        told = "^last_image is .*must be a (video or a picture|folder)"
        with pytest.raises(ValueError, match=told) as raised:
            opened("last_image", str(path))
        assert path.name in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("source, told", [
    ("nowhere.mp4", "^init is 'nowhere.mp4'; there is no such file$"),
    ("a\0b", "there is no such file"),
    ("x" * 5000, "there is no such file"),
    ("<video>", "^init was a video in memory, which settings cannot carry; give it with --init FILE$"),
    (3, "^init is a int; it must be a path, a Clip or a PIL image$"),
])  # fmt: skip
def test_what_is_no_file_is_refused(source, told):
    with pytest.raises(ValueError, match=told):
        opened("init", source)


def test_a_clip_that_is_too_long_or_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_decoded", None)
    monkeypatch.setattr(reading, "MOST", 20)
    path = film(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="which has more than 20 frames; cut it"):
        opened("init", path)
    monkeypatch.setattr(reading, "MOST", 30)
    monkeypatch.setattr(reading, "ROOM", 100_000)
    with pytest.raises(ValueError, match=r"with 30 frames of 64x48, which take 0.0 GB; cut it or scale"):
        opened("init", path)
    for ending in (".gif", ".frames"):
        save(Clip(rolling("teal"), 12), tmp_path / f"b{ending}", {})
        with pytest.raises(ValueError, match="with 12 frames of 64x48"):
            opened("init", tmp_path / f"b{ending}")


def test_a_decoder_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    monkeypatch.setattr(reading, "WAIT", 0.001)
    with pytest.raises(ValueError, match=r"must be a video or a picture that can be read .*timed out"):
        opened("init", path)
    with pytest.raises(ValueError, match="its frames cannot be decoded"):
        reading._decoded("init", [sys.executable, "-c", "import time; time.sleep(60)"], 1)


def test_resized_frames_are_the_middle_and_have_no_fringe():
    frames = np.zeros((2, 20, 60, 4), np.uint8)
    frames[:, :, 20:40] = (200, 100, 50, 255)
    frames[:, :, :20] = (0, 255, 0, 0)
    made = resized(frames, 10, 10)
    assert made.shape == (2, 10, 10, 4) and np.abs(made - [200, 100, 50, 255.0]).max() <= 15
    wide = resized(frames, 30, 10)
    assert (wide[..., 3] > 0).any() and wide[wide[..., 3] > 100][:, 1].max() <= 104
    assert resized(frames[..., :3], 6, 4).shape == (2, 4, 6, 3)


def test_a_ground_shows_as_much_as_a_frame_is_transparent():
    frames = np.array([[[[100, 0, 200, 255], [100, 0, 200, 0], [100, 0, 200, 51]]]], np.uint8)
    assert on_ground(frames, "white").tolist() == [[[[100, 0, 200], [255, 255, 255], [224, 204, 244]]]]
