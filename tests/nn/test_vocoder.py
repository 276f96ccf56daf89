"""The vocoder's analysis and synthesis are inverses, its mel scale and its Griffin-Lim are the field's."""

import importlib

import numpy as np
import pytest
import torch

from suite import storage
from suite.loss import spectral_loss, vocoder_loss
from suite.nn import NETWORKS
from suite.nn.vocoder import Codec, Vocoder, filterbank, griffin_lim


def torchaudio():
    """The module, where it can be imported beside this torch."""
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio cannot be imported here: {error}")


@pytest.fixture
def wave():
    """Two tones that decay, (2, 1, 8192)."""
    seconds = torch.arange(8192) / 24000
    tones = [torch.sin(2 * torch.pi * f * seconds) * torch.exp(-4 * seconds) for f in (440, 1234)]
    return 0.5 * torch.stack(tones)[:, None]


@pytest.fixture
def vocoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Vocoder(width=16, blocks=2)


def test_synthesis_undoes_analysis(vocoder, wave):
    frames = vocoder.analysis(wave)
    assert frames.shape == (2, 513, 32)
    torch.testing.assert_close(vocoder.synthesis(frames), wave, rtol=0, atol=1e-6)


def test_silence_is_the_floor_and_a_full_tone_is_near_the_top(vocoder):
    silence, tone = torch.zeros(1, 1, 2560), torch.sin(0.3 * torch.arange(2560.0)).view(1, 1, -1)
    assert vocoder.mel(silence).sub(-1).abs().max() < 2e-3
    assert 0.9 < vocoder.mel(tone).max() < 1.1


def test_twice_as_loud_is_a_constant_more(vocoder, wave):
    above = vocoder.mel(wave) > -0.5
    more = vocoder.mel(2 * wave) - vocoder.mel(wave)
    torch.testing.assert_close(more[above], torch.full_like(more[above], np.log(2) / 5.05), rtol=0, atol=1e-4)


def test_the_mel_scale_is_librosa_s():
    librosa = pytest.importorskip("librosa")
    theirs = librosa.filters.mel(sr=24000, n_fft=1024, n_mels=100, htk=True, norm=None)
    np.testing.assert_allclose(filterbank(100, 1024, 24000).T, theirs, atol=1e-4)


def test_the_mel_scale_is_torchaudio_s():
    theirs = torchaudio().functional.melscale_fbanks(513, 0.0, 12000.0, 100, 24000)
    torch.testing.assert_close(filterbank(100, 1024, 24000), theirs, rtol=0, atol=1e-4)


def centred(wave):
    """STFT and its inverse as the libraries have them: frames centred on multiples of the hop."""
    window, told = torch.hann_window(1024), {"n_fft": 1024, "hop_length": 256}

    def analysis(x):
        return torch.stft(x, **told, window=window, return_complex=True)

    def synthesis(frames):
        return torch.istft(frames, **told, window=window)

    return analysis(wave[:, 0]).abs(), analysis, synthesis


def test_griffin_lim_is_librosa_s(wave):
    librosa = pytest.importorskip("librosa")
    magnitude, analysis, synthesis = centred(wave)
    told = {"n_iter": 12, "hop_length": 256, "momentum": 0.99, "init": None, "pad_mode": "reflect"}
    theirs = librosa.griffinlim(magnitude.numpy(), **told)
    ours = griffin_lim(magnitude, analysis, synthesis, 12).numpy()
    assert np.linalg.norm(ours - theirs) < 1e-2 * np.linalg.norm(theirs)


def test_griffin_lim_is_torchaudio_s(wave):
    magnitude, analysis, synthesis = centred(wave)
    window = torch.hann_window(1024)
    told = (magnitude, window, 1024, 256, 1024, 1.0, 12, 0.99, None, False)
    theirs = torchaudio().functional.griffinlim(*told)
    ours = griffin_lim(magnitude, analysis, synthesis, 12)
    assert (ours - theirs).norm() < 1e-2 * theirs.norm()


def test_more_turns_bring_the_magnitudes_nearer(wave):
    magnitude, analysis, synthesis = centred(wave)

    def far(turns):
        return (analysis(griffin_lim(magnitude, analysis, synthesis, turns)).abs() - magnitude).norm()

    assert far(32) < 0.5 * far(1)


def test_griffin_lim_from_the_true_phases_is_the_wave(vocoder, wave):
    frames = vocoder.analysis(wave)
    again = griffin_lim(frames.abs(), vocoder.analysis, vocoder.synthesis, 4, phase=frames.angle())
    torch.testing.assert_close(again, wave, rtol=0, atol=1e-4)


def test_a_gradient_reaches_every_parameter(vocoder, wave):
    made, magnitude = vocoder(vocoder.mel(wave))
    vocoder_loss(wave, made, vocoder.analysis(wave).abs(), magnitude).backward()
    still = [name for name, p in vocoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still


def test_length_batch_and_config_are_kept(vocoder, wave, tmp_path):
    mel = vocoder.mel(wave)
    with torch.no_grad():
        both = vocoder.decode(mel)
        assert both.shape == wave.shape
        assert (both[:1] - vocoder.decode(mel[:1])).norm() < 1e-2 * both[:1].norm()
        storage.save(tmp_path, vocoder, {"network": {"type": "vocoder", **vocoder.config}})
        again, _ = storage.load(tmp_path)
        torch.testing.assert_close(again.decode(mel), both)


def test_the_magnitudes_agree_with_the_bands_they_came_from(vocoder, wave):
    mel = vocoder.mel(wave)
    _, magnitude = vocoder(mel)
    bands = (filterbank(100, 1024, 24000).T @ magnitude).clamp(min=1e-2).log()
    wanted = vocoder.mel(wave) * 5.05 + 0.45
    assert (bands - wanted).abs().mean() < 0.05


def test_the_loss_is_nought_for_the_same_sound_and_blind_to_its_sign(wave):
    assert spectral_loss(wave, wave) == 0
    assert spectral_loss(wave, -wave) < 1e-5
    assert spectral_loss(wave, 0.5 * wave) > 0.5


def test_the_codec_s_latents_stand_for_samples(vocoder, wave):
    options = {"channels": 100, "latent_channels": 4, "widths": [16, 16], "encoder_widths": [16, 16]}
    autoencoder = NETWORKS["autoencoder"](**options, blocks=1, patch=2, dims=1)
    codec = Codec(autoencoder, vocoder)
    assert (codec.factor, codec.latent_channels) == (1024, 4)
    with torch.no_grad():
        z, _ = codec.encode(wave)
        assert z.shape == (2, 4, 8)
        assert codec.decode(z).shape == wave.shape and codec.preview(z).shape == (2, 100, 8)
