"""Flow, the frames between and flicker, on shapes whose motion is known."""

import numpy as np
import pytest
from scipy import ndimage

from modalities.video.flow import flow, interpolated, warping_error

SIDE = 64
TEXTURE = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE, 3)), (2, 2, 0))
TEXTURE = ((TEXTURE - TEXTURE.min()) / np.ptp(TEXTURE) * 200).astype(np.float32)


def disc(right, down=0.0, alpha=False):
    """A patterned disc on white, moved from the picture's middle by so many pixels."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    cover = (15 - np.hypot(x - right, y - down)).clip(0, 1)[..., None]
    pattern = ndimage.shift(TEXTURE, (down, right, 0), order=1, mode="nearest")
    shown = pattern if alpha else pattern * cover + 255 * (1 - cover)
    return np.rint(np.concatenate([shown, 255 * cover], -1) if alpha else shown).astype(np.uint8)


def psnr(made, real):
    return 10 * np.log10(255**2 / max(np.square(made.astype(float) - real).mean(), 1e-3))


def test_flow_points_where_the_shape_went():
    down, right = np.median(flow(disc(0), disc(4, -3))[:, 26:38, 26:38], (1, 2))
    assert (down, right) == (pytest.approx(-3, abs=0.3), pytest.approx(4, abs=0.3))


def test_frames_between_are_nearer_to_the_truth_than_a_cross_fade():
    clip = np.stack([disc(right) for right in range(-10, 11, 4)])
    given, left_out = clip[::2], clip[1:-1:2]
    fade = (given[:-1].astype(float) + given[1:]) / 2
    assert psnr(interpolated(given, 2)[1::2], left_out) > psnr(fade, left_out) + 8


def test_each_of_several_frames_between_lies_at_its_own_moment():
    made = interpolated(np.stack([disc(-4), disc(4)]), 4)
    for frame, right in zip(made, (-4, -2, 0, 2, 4), strict=True):
        others = [psnr(frame, disc(other)) for other in (-4, -2, 0, 2, 4) if other != right]
        assert psnr(frame, disc(right)) > max(others) + 6


@pytest.mark.parametrize("loop, count", [(False, 7), (True, 9)])
def test_given_frames_stay_as_they_are(loop, count):
    clip = np.stack([disc(right) for right in (0, 3, 6)])
    made = interpolated(clip, 3, loop)
    assert len(made) == count and made.dtype == np.uint8
    assert (made[::3] == clip).all()
    if loop:
        assert psnr(made[-1], disc(2)) > psnr(disc(0), disc(2)) + 6


def test_a_rate_of_one_changes_nothing():
    clip = np.stack([disc(0), disc(5)])
    assert (interpolated(clip, 1) == clip).all() and (interpolated(clip, 1, loop=True) == clip).all()


def test_a_cut_out_keeps_its_colours_where_it_is_half_covered():
    white = np.full((2, SIDE, SIDE, 4), 255, np.uint8)
    for frame, right in zip(white, (-3, 3), strict=True):
        frame[..., 3] = disc(right, alpha=True)[..., 3]
        frame[frame[..., 3] == 0] = 0  # what is not covered is black
    between = interpolated(white, 2)[1]
    assert between[between[..., 3] > 8][:, :3].min() >= 250
    cover = disc(0, alpha=True)[..., 3]
    assert psnr(between[..., 3], cover) > psnr(white[0, ..., 3], cover) + 8


def test_flicker_is_an_error_and_motion_is_not():
    clip = np.stack([disc(right) for right in range(0, 12, 2)])
    flickers = clip.copy()
    flickers[::2] = flickers[::2] * 0.9
    assert warping_error(clip) < 1e-3
    assert warping_error(flickers) > 5e-3  # of white, 0.1 squared is 1e-2
    assert warping_error(np.stack([disc(0)] * 3)) == 0


def test_what_is_hidden_in_one_frame_is_no_flicker():
    clip = np.stack([disc(0)] * 2)
    plain = float(np.square(np.subtract(disc(9), disc(0), dtype=float) / 255).mean())
    clip[1] = disc(9)
    assert warping_error(clip) < 0.1 * plain


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8), np.uint8)]
)
def test_other_arrays_are_refused(frames):
    with pytest.raises(ValueError, match="it must be"):
        interpolated(frames, 2)
    with pytest.raises(ValueError, match="it must be"):
        warping_error(frames)


def test_a_rate_below_one_is_refused():
    with pytest.raises(ValueError, match="times is 0; it must be 1 or more"):
        interpolated(np.stack([disc(0), disc(1)]), 0)
