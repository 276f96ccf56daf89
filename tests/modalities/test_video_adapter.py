"""What may be asked of a clip, how it goes through the one pipeline, and what comes out of it."""

import numpy as np
import pytest
import torch
from PIL import Image

from modalities import video
from modalities.video import VideoRequest, adapter
from modalities.video.picture import TOKENS, tokens
from modalities.video.read import opened
from modalities.video.save import Clip
from modalities.video.sheet import strip
from suite import cli
from tests.conftest import write_video_models


@pytest.fixture
def pipe(tiny_video_model, words):
    return video.load(tiny_video_model, device="cpu")


@pytest.fixture
def clip():
    """A clip of 8 frames whose brightness tells the frame, 4 a second."""
    frames = np.zeros((8, 64, 64, 3), np.uint8) + 30 * np.arange(8, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Clip(frames, 4.0)


def picture(colour, side=64):
    return Image.new("RGB", (side, side), colour)


def refused(capsys, *arguments):
    assert cli.main(["video", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def changed(before, after, frame):
    """Whether a frame of two clips differs by more than rounding."""
    return int(np.abs(before.frames[frame].astype(int) - after.frames[frame]).max()) > 1


def test_a_prompt_becomes_a_clip_of_the_size_and_length_that_was_asked(pipe, tmp_path):
    result = pipe("a red apple rising", num_frames=5, width=80, seed=3)
    made = result.videos[0]
    assert made.frames.shape == (5, 64, 80, 3) and made.fps == 8 and made.seconds == 5 / 8
    assert pipe("a red apple rising").videos[0].frames.shape == (8, 64, 64, 3)  # the model's own
    made.save(tmp_path / "a.png")
    asked = VideoRequest(**video.restore(tmp_path / "a.png"))
    assert asked == VideoRequest(**result.settings[0]["request"]) and asked.seed == 3
    assert (pipe.run(asked).videos[0].frames == made.frames).all()


def test_of_several_each_is_the_clip_of_its_own_seed(pipe):
    second = pipe("a dog", seed=4, num_videos=2).videos[1]
    assert not changed(second, pipe("a dog", seed=5).videos[0], slice(None))
    assert changed(second, pipe("a dog", seed=4).videos[0], slice(None))


def test_the_clip_begins_and_ends_with_the_pictures_that_are_given(pipe):
    ends = {"image": picture("red"), "last_image": picture("blue", 200)}
    free, held = pipe("a dog").videos[0], pipe("a dog", **ends).videos[0]
    assert (held.frames[0] == (255, 0, 0)).all() and (held.frames[-1] == (0, 0, 255)).all()
    assert changed(free, held, 3) and not (held.frames[3] == held.frames[0]).all()
    last = pipe("a dog", last_image=ends["last_image"]).videos[0]
    assert (last.frames[-1] == (0, 0, 255)).all() and not (last.frames[0] == (255, 0, 0)).all()


def test_given_pictures_are_also_told_beside_the_prompt():
    first, last = picture("red"), picture("blue")
    both, one = tokens(first, last), tokens(first, None)
    assert both.shape == (TOKENS, 192 + TOKENS) and (both[:16] == one[:16]).all()
    assert not one[16:].any() and (tokens(None, last)[16:] == both[16:]).all()
    assert len({tuple(row) for row in both}) == TOKENS  # each has its place
    assert adapter.beside(VideoRequest(prompt="a")) is None
    told = adapter.beside(VideoRequest(prompt="a", last_image=last))
    assert torch.equal(told[0], torch.from_numpy(tokens(None, last)))


def test_a_clip_is_where_another_starts_as_far_as_strength_says(pipe, clip):
    def off(strength):
        made = pipe("a dog", init=clip, fps=4, strength=strength, num_inference_steps=10).videos[0]
        assert made.frames.shape == clip.frames.shape
        return np.abs(made.frames.astype(int) - start.frames).mean()

    start = pipe("a dog", init=clip, fps=4, mask=picture("black")).videos[0]  # as the autoencoder gives it
    assert off(0.1) < off(0.5) < off(1.0)


def test_a_clip_s_length_is_that_of_the_init_clip_at_the_rate_that_is_asked(pipe, clip, tmp_path):
    clip.save(tmp_path / "a.gif")
    given = str(tmp_path / "a.gif")
    assert len(pipe("a", init=given, fps=4, strength=0.4).videos[0].frames) == 8
    kept = pipe("a", init=given, fps=2, strength=0.4, mask=picture("black")).videos[0]
    assert [int(frame.mean().round(-1)) for frame in kept.frames] == [0, 60, 120, 180]
    longer = pipe("a", init=given, fps=4, num_frames=10, strength=0.4, mask=picture("black")).videos[0]
    assert [int(frame.mean().round(-1)) for frame in longer.frames[-4:]] == [180, 210, 210, 210]


def test_a_mask_keeps_what_is_black_to_the_last_pixel_in_every_frame(pipe, clip):
    mask = picture("black")
    mask.paste("white", (32, 0, 64, 64))
    made = pipe("a dog", init=clip, fps=4, mask=mask, strength=1.0).videos[0]
    assert (made.frames[:, :, :32] == clip.frames[:, :, :32]).all()
    assert (np.abs(made.frames[:, :, 32:].astype(int) - clip.frames[:, :, 32:]).mean((1, 2, 3)) > 2).all()


def test_frames_between_make_the_same_clip_at_a_higher_rate(pipe):
    plain = pipe("a dog").videos[0]
    finer = pipe("a dog", interpolate=3).videos[0]
    assert finer.fps == 24 and len(finer.frames) == 3 * 7 + 1
    assert (finer.frames[::3] == plain.frames).all()
    looped, loop = pipe("a dog", loop=True).videos[0], pipe("a dog", loop=True, interpolate=2).videos[0]
    assert len(loop.frames) == 16 and (loop.frames[::2] == looped.frames).all()
    assert loop.loop and not plain.loop


def test_a_loop_is_closed_in_time_and_not_in_space(pipe, monkeypatch):
    turned, real = [], torch.roll
    monkeypatch.setattr(torch, "roll", lambda x, shifts, dims: turned.append(dims) or real(x, shifts, dims))
    pipe("a dog", loop=True)
    assert set(turned) == {(2,)}


def test_a_longer_clip_is_drawn_in_windows(pipe, monkeypatch):
    lengths, real = [], pipe.network.forward
    seen = lambda x, *rest: lengths.append(x.shape[2]) or real(x, *rest)  # noqa: E731
    monkeypatch.setattr(pipe.network, "forward", seen)
    assert len(pipe("a dog", num_frames=20, num_inference_steps=1).videos[0].frames) == 20
    assert lengths == [8, 8, 8, 8]


def test_a_plain_ground_is_taken_away_if_that_is_asked():
    pixels = np.full((1, 3, 2, 64, 64), 255, np.uint8)
    pixels[..., 20:40, 20:40] = 0
    decoded = torch.from_numpy(pixels).float() / 127.5 - 1
    (made,) = adapter.finish(decoded, VideoRequest(prompt="a", transparent=True))
    assert made.frames.shape[-1] == 4 and made.frames[0, 0, 0, 3] == 0 and made.frames[0, 30, 30, 3] == 255
    (made,) = adapter.finish(decoded, VideoRequest(prompt="a"))
    assert made.frames.shape[-1] == 3
    noise = torch.rand(decoded.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with pytest.warns(UserWarning, match="no plain ground.*; the clip stays as the model made it"):
        (made,) = adapter.finish(noise, VideoRequest(prompt="a", transparent=True))
    assert made.frames.shape[-1] == 3


def test_a_clip_has_the_sound_that_was_asked_for(pipe, tiny_audio_model, monkeypatch, tmp_path):
    from modalities import audio

    real = audio.load
    monkeypatch.setattr(audio, "load", lambda: real(tiny_audio_model, device="cpu"))
    made = pipe("a dog", sound="a dog barking").videos[0]
    samples, rate = made.sound
    assert samples.shape == (1, rate) and rate == audio.RATE  # eight frames are a second
    made.save(tmp_path / "a.mp4")
    assert video.restore(tmp_path / "a.mp4")["sound"] == "a dog barking"


def test_a_preview_shows_frames_side_by_side():
    small = torch.linspace(-1, 1, 8).view(1, 1, 8, 1, 1).expand(1, 3, 8, 4, 4)
    shown = np.asarray(adapter.preview(small)[0])
    assert shown.shape[1] == 8 * shown.shape[0] and (np.diff(shown[64, 64::128, 0].astype(int)) > 25).all()
    assert strip(np.zeros((3, 20, 40, 3), np.uint8), height=30).size == (3 * 60, 30)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--num-frames", "0"], "num_frames is '0'; it must be at least 1"),
        (["--width", "100"], "width is '100'; it must be a multiple of 16 (try 96)"),
        (["--fps", "0"], "fps is '0'; it must be at least 1"),
        (["--image", "nowhere.png"], "image is 'nowhere.png'; there is no such file"),
        (["--init", "broken.mp4"], "it must be a video or a picture that can be read"),
        (["--mask", "white.png"], "mask is given without init"),
        (["--init", "long.gif", "--fps", "60"], "init has 600 frames at 60 a second; give --num-frames"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 40)
    picture("white").save(tmp_path / "white.png")
    Clip(np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(8, 1).repeat(8, 2).repeat(3, 3), 1.0).save(
        tmp_path / "long.gif")  # fmt: skip
    assert said in refused(capsys, "a dog", *arguments, "-o", "a.mp4")
    assert not (tmp_path / "a.mp4").exists()


def test_a_size_that_the_model_cannot_draw_is_refused(pipe):
    with pytest.raises(ValueError, match="width is 64; this model's must be a multiple of"):
        pipe.latent.factor = 24
        pipe("a", width=64)


def test_the_command_draws_a_clip_and_gives_its_settings_back(tmp_path, monkeypatch, words, capsys):
    monkeypatch.setattr("suite.pipeline.load_text", lambda name, limit=None: type(words)(name))
    model = write_video_models(tmp_path, "words 280", 280)
    path = tmp_path / "a.webp"
    assert cli.main(["video", "a dog", "--model", str(model), "--seed", "9", "-o", str(path)]) == 0
    frames, rate = opened("a", str(path))
    assert frames.shape == (8, 64, 64, 4) and rate == 8
    assert cli.main(["inspect", str(path)]) == 0
    assert '"seed": 9' in capsys.readouterr().out
