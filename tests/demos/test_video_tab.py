"""The Video tab's handlers, called as Gradio calls them, on a tiny model."""

import base64
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demos import fetch, shared, video
from demos.desk import Made
from modalities.video import VideoRequest, adapter, restore
from modalities.video.read import ffmpeg, opened
from modalities.video.save import Clip
from suite.request import controls
from tests.desks import SESSION, ask, desk_of


@pytest.fixture
def desk(tiny_video_model, words, tmp_path, monkeypatch):
    """The Video tab."""
    shared.pipeline.cache_clear()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    yield desk_of(video.tab, tiny_video_model)
    shared.pipeline.cache_clear()


def sent(desk, start=None, **changed):
    """What the page would send: fields, and pictures by the name of their field."""
    pictures = {part: changed.pop(name, None) for name, part in desk.others.items()}
    return {**ask(desk, start, **{"prompt": "a dog", "num_frames": 4, **changed}), **pictures}


def moments(desk, start=None, **changed):
    return list(desk.making(sent(desk, start, **changed), SESSION))


def made(desk, start=None, **changed):
    """What a run makes."""
    return moments(desk, start, **changed)[-1][desk.history]


def plain(colour):
    return Image.new("RGB", (64, 64), colour)


@pytest.fixture
def shown(desk):
    """A clip of the session."""
    (item,) = made(desk, seed=3)
    return item


@pytest.fixture
def clear(tmp_path):
    """A clip as `keep` saves one: 4 frames at 8 a second, half of each transparent, with sound."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 4), dtype=np.uint8)
    frames[..., 3] = np.where(np.arange(64) < 32, 0, 255)
    samples = (0.3 * np.sin(np.arange(12000) / 9)).astype(np.float32)[None]
    clip, file = Clip(frames, 8, {"request": {"prompt": "a"}}, (samples, 24000), True), tmp_path / "a.mp4"
    return clip, Made(file, video.keep(clip, file), "a", clip.settings)


def test_every_field_of_the_request_is_a_widget_but_the_files(desk):
    known = controls(VideoRequest)
    assert set(known) - set(desk.fields) == {"init", "image", "last_image", "mask"}
    assert set(desk.others) == {"image", "last_image", "mask"}
    assert desk.fields["num_inference_steps"].value == 3 and desk.fields["fps"].maximum == known["fps"].high


def test_the_page_speaks_of_making_clips(desk):
    names, parts = ("label", "info", "value"), desk.blocks.blocks.values()
    words = " ".join(str(getattr(part, name, "")) for part in parts for name in names)
    assert "Say what to make, then press Make or Ctrl+Enter." in words
    assert not {"draw", "drawn", "redraw"} & set(words.lower().replace(".", " ").split())


def test_a_prompt_becomes_clips_in_the_gallery_the_player_and_the_download(desk, monkeypatch):
    monkeypatch.setattr(shared, "GATE", 0)
    told = moments(desk, prompt="a dog!", seed=7, num_videos=2, num_frames=8)
    previews = [moment[desk.live] for moment in told if "<img" in str(moment.get(desk.live))]
    assert len(previews) == 3 and all(picture(one).n_frames == 8 for one in previews)
    first, second = told[-1][desk.history]
    assert (first.file.name, second.file.name) == ("a-dog-7.mp4", "a-dog-8.mp4")
    assert restore(second.file)["seed"] == 8 and "made in" in told[-1][desk.line]
    frames, rate = opened("clip", str(first.file))
    assert (frames.shape, rate) == ((8, 64, 64, 4), 8)
    assert [item["caption"] for item in told[-1][desk.gallery].value] == ["a dog!, seed 7", "a dog!, seed 8"]
    middle = np.asarray(Image.open(first.picture).resize((64, 64))).astype(int)
    assert np.abs(video.kept(first).frames - middle).mean((1, 2, 3)).argmin() == 4
    path, button, ending = fetch.viewed(told[-1][desk.shown])
    assert (path, ending, button.value["path"]) == (str(first.file), ".mp4", path) and button.interactive


def picture(html):
    """The picture inside a preview's element."""
    return Image.open(io.BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0])))


@pytest.mark.parametrize("frames, count, rate", [(8, 8, 8), (48, 24, 4), (36, 24, 8 * 24 / 36)])
def test_a_preview_has_some_frames_of_all_the_clip_and_lasts_as_long(frames, count, rate):
    small = torch.linspace(-1, 1, frames).view(1, 1, -1, 1, 1).expand(2, 3, frames, 8, 8)
    for clip in video.Live().preview(small):
        assert clip.frames.shape == (count, 8, 8, 3) and clip.fps == pytest.approx(rate)
        assert (np.diff(clip.frames[:, 0, 0, 0].astype(int)) > 0).all() and clip.frames[0].max() == 0
        assert clip.frames[-1].min() > 240  # from the end, or the frame before it


def test_a_preview_moves_small_and_goes_on_where_the_one_before_it_was(monkeypatch):
    frames = np.full((8, 120, 120, 3), 30, np.uint8) * np.arange(1, 9, dtype=np.uint8).reshape(-1, 1, 1, 1)
    monkeypatch.setattr(video.time, "monotonic", lambda: 10 + 3 / 8)  # three frames after ten seconds
    shown = picture(video.moving([Clip(frames, 8)] * 2, "step 1 <b>"))
    assert (shown.format, shown.n_frames, shown.size) == ("WEBP", 8, (96, 48))
    seen = []
    for number in range(8):
        shown.seek(number)
        seen.append(shown.convert("L").getpixel((70, 20)))
    assert seen == pytest.approx([30 * (1 + (80 + 3 + i) % 8) for i in range(8)], abs=4)
    assert shown.info["duration"] == 125 and 'alt="Preview: step 1 &lt;b&gt;"' in video.moving(
        [Clip(frames, 8)], "step 1 <b>"
    )


def test_a_clip_begins_and_ends_with_the_pictures_given(desk):
    (item,) = made(desk, image=plain("red"), last_image=plain("blue"))
    frames = video.kept(item).frames
    assert (frames[0] == (255, 0, 0)).all() and (frames[-1] == (0, 0, 255)).all()
    assert not (frames[1] == (255, 0, 0)).all()
    assert (restore(item.file)["image"], restore(item.file)["last_image"]) == ("<Image>", "<Image>")
    told = desk.restore(str(item.file))[desk.line]
    assert "drop the first frame as well; drop the last frame as well; press Make for the same clip" in told


def test_a_clip_is_made_anew_where_the_mask_is_white(desk, clear):
    mask = plain("black")
    mask.paste("white", (0, 0, 64, 16))
    (item,) = made(desk, str(clear[1].file), mask=mask, strength=0.9)
    init, frames = opened("init", str(clear[1].file))[0][..., :3], video.kept(item).frames
    assert (frames[:, 40:] == init[:, 40:]).all() and not (frames[:, :16] == init[:, :16]).all()
    asked = restore(item.file)
    assert (asked["init"], asked["mask"], asked["strength"]) == ("<Clip>", "<Image>", 0.9)
    told = desk.restore(str(item.file))[desk.line]
    assert "drop the clip it started from as well; drop the mask as well; press Make" in told
    assert "paint" not in told


def test_a_still_picture_is_a_clip_to_start_from(desk, tmp_path):
    plain("red").save(tmp_path / "red.png")
    (item,) = made(desk, str(tmp_path / "red.png"), strength=0.5)
    assert restore(item.file)["init"] == "<Image>"


def test_a_broken_clip_is_refused_by_its_name(desk, tmp_path):
    (tmp_path / "notes.mp4").write_text("no clip")
    with pytest.warns(UserWarning, match="^init is &#x27;notes.mp4&#x27;; it must be a video or a picture"):
        (*_, last) = moments(desk, str(tmp_path / "notes.mp4"))
    assert set(last) == {desk.line}


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"prompt": ""}, "prompt is &#x27;&#x27;; it must say what to draw"),
        ({"mask": plain("white")}, "mask is given without init"),
        ({"fps": 99}, "fps is 99; it must be at most 60"),
        ({"model": "nosuch"}, "model &#x27;nosuch&#x27; was not found"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_sentence(desk, changed, sentence):
    with pytest.warns(UserWarning):
        last = moments(desk, **changed)[-1]
    assert set(last) == {desk.line} and sentence in last[desk.line]


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_each_format_holds_the_clip_and_its_settings_which_restore_it(desk, shown, ending):
    waiting, button = fetch.fetched(video.written, shown, ending)
    assert not waiting.interactive and button.interactive
    path, several = Path(button.value["path"]), ending in (".frames", ".json")
    assert path.name == (f"a-dog-3-{ending[1:]}.zip" if several else f"a-dog-3{ending}")
    told = desk.restore(str(path))
    assert told[desk.fields["seed"]] == 3 and "press Make for the same clip" in told[desk.line]
    if several:
        with zipfile.ZipFile(path) as packed:
            packed.extractall(path.parent / "out")
        path = path.parent / "out" / f"a-dog-3{'.png' if ending == '.json' else ending}"
    frames, rate = opened("clip", str(path))
    if ending == ".json":  # a sheet of two by two
        frames, rate = frames[0].reshape(2, 64, 2, 64, 4).swapaxes(1, 2).reshape(4, 64, 64, 4), 8
    found, wanted = frames[..., :3], video.kept(shown).frames
    assert (found.shape, rate) == ((4, 64, 64, 3), 8)
    if ending in (".mp4", ".webm", ".gif"):  # which lose much of noise; of another clip it were 0
        assert np.corrcoef(found.mean(-1).ravel(), wanted.mean(-1).ravel())[0, 1] > 0.6
    else:
        assert (found == wanted).all()


def test_what_no_mp4_holds_is_in_the_other_formats(clear):
    clip, shown = clear
    frames, _ = opened("clip", str(video.written(shown, ".webp")))
    assert (frames[..., 3] == clip.frames[..., 3]).all()
    assert (frames[..., 32:, :] == clip.frames[..., 32:, :]).all()
    film = video.written(shown, ".webm")
    said = subprocess.run([ffmpeg(), "-i", film], capture_output=True, text=True).stderr
    assert "Audio: opus" in said and opened("clip", str(film))[0][..., 3].min() < 20
    again = video.kept(shown)
    assert (again.sound[0] == clip.sound[0]).all() and (again.sound[1], again.loop) == (24000, True)


@pytest.mark.parametrize("name, text", [("a.txt", ""), ("a.json", "{}"), ("a.json", "no JSON")])
def test_an_archive_without_settings_is_told_by_its_name(desk, tmp_path, name, text):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(name, text)
    with pytest.warns(UserWarning, match="^a.zip is an archive without settings of a clip"):
        desk.restore(str(tmp_path / "a.zip"))


def test_a_broken_archive_is_told(desk, shown):
    path = video.written(shown, ".frames")
    data = path.read_bytes()
    at = data.index(b"settings.json") + 30
    path.write_bytes(data[:at] + bytes(8) + data[at + 8 :])
    with pytest.warns(UserWarning, match="^a-dog-3-frames.zip is an archive without settings"):
        desk.restore(str(path))


def test_settings_clear_the_files_that_they_did_not_have(desk, shown):
    told = desk.restore(str(shown.file))
    assert [told[part] for part in (desk.start, *desk.others.values())] == [None] * 4


def test_a_stopped_run_yields_the_clip_as_far_as_it_came_and_no_more_work(desk, monkeypatch):
    monkeypatch.setattr("modalities.audio.load", lambda: pytest.fail("a stopped clip needs no sound"))
    desk.begin(False, SESSION)
    asked = {"num_inference_steps": 9, "interpolate": 3, "sound": "rain"}
    steps = desk.making(sent(desk, **asked), SESSION)
    while "step" not in next(steps)[desk.line]:
        pass
    desk.halt(SESSION)
    *_, last = steps
    (item,) = last[desk.history]
    assert "stopped at step" in last[desk.line] and item.settings is None
    clip = video.kept(item)
    assert (clip.frames.shape, clip.fps, clip.sound) == ((4, 64, 64, 3), 8, None)
    assert video.written(item, ".gif").name == "a-dog-unfinished-0.gif"


def test_a_clip_whose_ground_cannot_be_taken_away_is_kept_with_a_warning(desk):
    with pytest.warns(UserWarning, match="no plain ground.*; the clip stays as the model made it"):
        last = moments(desk, transparent=True)[-1]
    (item,) = last[desk.history]
    assert "made in" in last[desk.line] and video.kept(item).frames.shape == (4, 64, 64, 3)
    assert restore(item.file)["transparent"] is True


def test_a_clip_that_cannot_be_saved_is_told(desk, monkeypatch):
    def full(self, path):
        raise OSError("no space is left")

    monkeypatch.setattr(video.Clip, "save", full)
    with pytest.warns(UserWarning, match="no space is left"):
        last = moments(desk)[-1]
    assert set(last) == {desk.line} and "no space is left" in last[desk.line]
