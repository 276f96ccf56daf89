"""What the audio adapter makes of a request, lengths, regions, loops, channels; and a pipeline with it."""

import numpy as np
import pytest
import torch

from modalities.audio import FADE, RATE, WINDOW, AudioRequest, adapter, length
from modalities.audio.save import Sound
from suite.latent import IdentityLatent
from suite.pipeline import Pipeline
from suite.request import explain
from suite.schedules import make
from tests.conftest import Words


def asked(**fields):
    return AudioRequest(prompt="a bell", **fields)


@pytest.fixture
def tone():
    """Two seconds of A4 that die away."""
    seconds = np.arange(2 * RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 440 * seconds) * np.exp(-seconds)
    return Sound(wave.astype(np.float32)[None], RATE, None)


@pytest.mark.parametrize("seconds", (0.5, 1.2345, 5, 7.77, 60))
def test_the_length_is_honoured_to_the_sample(seconds):
    request = asked(seconds=seconds)
    (latents,) = adapter.shape(request, 1024, 2)
    assert latents % 2 == 0 and latents * 1024 >= WINDOW
    decoded = torch.full((1, 1, latents * 1024), 0.1)
    (sound,) = adapter.finish(decoded, request)
    assert sound.samples.shape == (1, round(seconds * RATE)) and sound.sample_rate == RATE


def test_a_short_sound_is_drawn_before_silence():
    init, mask = adapter.read(asked(seconds=2), (WINDOW,))
    assert init.abs().max() == 0 and init.shape == mask.shape == (1, 1, WINDOW)
    assert mask[..., 2 * RATE :].max() == 0
    assert mask[..., : 2 * RATE - FADE].min() == 1
    assert 0 < mask[..., 2 * RATE - FADE // 2 - 9].item() < 1  # the ramp lies in what is drawn


def test_a_whole_window_needs_no_mask():
    assert adapter.read(asked(seconds=WINDOW / RATE), (WINDOW,)) == (None, None)


def test_regions_of_the_init_are_kept_exactly(tone):
    init, mask = adapter.read(asked(init=tone, mask="0.5-1"), (WINDOW,))
    assert mask[..., : RATE // 2].max() == 0 and mask[..., RATE:].max() == 0
    assert mask[..., RATE // 2 + FADE : RATE - FADE].min() == 1
    gain = init[0, 0, : 2 * RATE] @ torch.from_numpy(tone.samples[0]) / np.square(tone.samples).sum()
    torch.testing.assert_close(init[0, 0, : 2 * RATE], gain * torch.from_numpy(tone.samples[0]))


def test_what_comes_after_the_init_s_end_is_drawn(tone):
    _, mask = adapter.read(asked(init=tone, seconds=4, mask="2-"), (WINDOW,))
    assert mask[..., : 2 * RATE].max() == 0 and mask[..., 2 * RATE + FADE : 4 * RATE - FADE].min() == 1
    assert mask[..., 4 * RATE :].max() == 0
    assert asked(init=tone, mask="2-").filled({"strength": 0.3}).strength == 1
    assert asked(init=tone, mask="2-", strength=0.4).filled({}).strength == 0.4


def test_the_length_is_that_of_the_init_unless_told(tone):
    assert length(asked(init=tone)) == 2 * RATE
    assert length(asked(init=tone, seconds=3)) == 3 * RATE
    assert length(asked()) == 5 * RATE
    brief = Sound(tone.samples[:, :2400], RATE, None)
    with pytest.raises(ValueError, match=r"init lasts 0\.10 s; give --seconds, 0\.5 to 60"):
        adapter.check(asked(init=brief))


def test_a_loop_has_no_jump_at_its_seam():
    request = asked(seconds=1.03, loop=True, normalize=False)
    (latents,) = adapter.shape(request, 1024, 2)
    total = latents * 1024
    assert total - round(1.03 * RATE) >= FADE
    turns = round(440 * total / RATE)  # a tone that closes over the latents, not over the length asked for
    wave = 0.5 * torch.sin(2 * torch.pi * turns * torch.arange(total) / total)[None, None]
    (sound,) = adapter.finish(wave, request)
    closed = np.append(sound.samples[0], sound.samples[0, 0])
    assert np.abs(np.diff(closed)[-1]) <= 1.1 * np.abs(np.diff(sound.samples[0])).max()
    cut = wave[0, 0, : round(1.03 * RATE)].numpy()
    assert np.abs(cut[0] - cut[-1]) > 1.5 * np.abs(np.diff(cut)).max()  # as it would be without


def test_what_is_no_loop_ends_in_silence():
    (sound,) = adapter.finish(torch.full((1, 1, WINDOW), 0.5), asked(seconds=1, normalize=False))
    assert abs(sound.samples[0, -1]) < 1e-6 and sound.samples[0, -FADE - 1] == 0.5


def test_stereo_is_wide_and_its_mean_is_the_mono_sound():
    noise = 0.1 * torch.randn(1, 1, WINDOW, generator=torch.Generator().manual_seed(0))
    mono, stereo = (
        adapter.finish(noise, asked(seconds=2, channels=channels, normalize=False))[0].samples
        for channels in (1, 2)
    )
    assert stereo.shape == (2, 2 * RATE)
    np.testing.assert_allclose(stereo.mean(0), mono[0], atol=1e-6)
    assert np.corrcoef(stereo)[0, 1] < 0.95


def test_nothing_clips_when_loudness_is_left_alone():
    (sound,) = adapter.finish(torch.full((1, 1, WINDOW), 1.7), asked(seconds=1, normalize=False))
    assert np.abs(sound.samples).max() <= 1


@pytest.mark.parametrize("fields, said", [
    ({"seconds": 0}, "seconds is 0; it must be at least 0.5"),
    ({"seconds": 36000}, "seconds is 36000; it must be at most 60"),
    ({"channels": 3}, "channels is 3; it must be at most 2"),
    ({"mask": "1-2"}, "mask is given without init"),
    ({"bits": "8"}, "bits is '8'; it must be one of 16, 24, float"),
])  # fmt: skip
def test_bad_requests_are_refused_in_words(fields, said):
    with pytest.raises(ValueError) as refused:
        asked(**fields)
    assert said in explain(refused.value, AudioRequest.model_fields)


class Samples(IdentityLatent):
    """Waves as latents of one sample in a hundred."""

    factor = 1

    def __init__(self):
        super().__init__(1)


class Narrow(torch.nn.Module):
    """A network that is given no more than its window, and takes what it sees for what is meant."""

    factor = 2

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def forward(self, x, timestep, context, mask):
        self.sizes.add(x.shape[-1])
        return 0 * x


def pipe(network, window):
    latent = Samples()
    latent.factor = 1
    return Pipeline(network, make("flow"), "sample", Words(), latent, adapter,
                    defaults={"num_inference_steps": 2, "guidance_scale": 1.0}, window=window)  # fmt: skip


def test_longer_sounds_are_denoised_in_windows_and_shorter_ones_keep_their_silence():
    network = Narrow()
    (sound,) = pipe(network, WINDOW)("x", seconds=12).audios
    assert network.sizes == {WINDOW} and sound.seconds == 12
    (sound,) = pipe(network, WINDOW)("x", seconds=0.75).audios
    assert network.sizes == {WINDOW} and sound.seconds == 0.75


def test_the_kept_region_of_a_drawn_sound_is_the_init_up_to_its_loudness(tone):
    (sound,) = pipe(Narrow(), WINDOW)("x", init=tone, mask="1-1.5", normalize=False).audios
    kept = sound.samples[0, :RATE]
    np.testing.assert_allclose(kept / np.abs(kept).max(), tone.samples[0, :RATE] / np.abs(tone.samples).max(),
                               atol=1e-4)
    drawn = sound.samples[0, RATE + FADE : RATE + RATE // 2 - FADE]
    assert np.abs(drawn).max() < 1e-6  # what the network makes of anything
