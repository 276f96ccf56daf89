"""From a waveform to its log-mel spectrogram and back.

A network predicts each frame's spectrum; some turns of Griffin and Lim's then make the phases of neighbouring
frames agree, in training as well, so that the network learns phases from which they do.

Shapes: B batch, N samples, L frames of `hop` samples, M mel bands, F frequencies.

Source: Siuzdak 2023, arXiv 2306.00814 (Vocos): ConvNeXt blocks at the rate of the frames, then the inverse
STFT; the mel scale is O'Shaughnessy's, as HTK has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.nn.layers import FrameBlock

FLOOR, CENTRE, SPAN = 1e-2, 0.45, 5.05  # of mel magnitudes; a full-scale sine's logarithm is near 5.5


def filterbank(mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """(F, M) triangles, evenly spaced on the mel scale from 0 to half the sample rate, each 1 at its top."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def agreeing(magnitude: Tensor, mel: Tensor, bank: Tensor, turns: int) -> Tensor:
    """The magnitudes (B, F, L), changed little by little until their mel bands are near to `mel` (B, M, L).

    Source: Lee and Seung 2001 (NIPS), Algorithms for Non-negative Matrix Factorization, equation 5.
    """
    back = bank / bank.sum(1, keepdim=True).clamp(min=1e-3)
    for _ in range(turns):
        magnitude = magnitude * (back @ (mel / (bank.T @ magnitude).clamp(min=1e-4)))
    return magnitude


TURNS = 32  # of Griffin and Lim's after the network; in training fewer


def griffin_lim(magnitude: Tensor, analysis: Callable[[Tensor], Tensor],
                synthesis: Callable[[Tensor], Tensor], iterations: int = 32, momentum: float = 0.99,
                phase: Tensor | None = None) -> Tensor:
    """A waveform whose spectrogram is near to these magnitudes, by turns of analysis and synthesis.

    Args:
        magnitude: (B, F, L).
        analysis: a waveform to its complex frames.
        synthesis: the inverse.
        iterations: of the turns.
        momentum: 0 is Griffin and Lim's own method, towards 1 is faster.
        phase: (B, F, L) in radians to start from; 0 if None.

    Returns: what `synthesis` gives.

    Source: Griffin and Lim 1984; with momentum, Perraudin et al. 2013 (WASPAA), algorithm 2.
    """
    ones, before = torch.ones_like(magnitude), torch.zeros_like(magnitude)
    angles = torch.polar(ones, before if phase is None else phase)
    for _ in range(iterations):
        rebuilt = analysis(synthesis(magnitude * angles))
        angles = rebuilt - momentum / (1 + momentum) * before
        angles, before = angles / (angles.abs() + 1e-8), rebuilt
    return synthesis(magnitude * angles)


class Vocoder(nn.Module):
    """Analysis, fixed, and synthesis, learned; frames are centred on their `hop` samples."""

    def __init__(self, mels: int = 100, width: int = 256, blocks: int = 8, n_fft: int = 1024, hop: int = 256,
                 sample_rate: int = 24000) -> None:
        """Builds it.

        Args:
            mels: M, bands of the spectrogram.
            width: channels of the network.
            blocks: how many.
            n_fft: samples of a frame's window.
            hop: samples from one frame to the next; divides n_fft evenly, as n_fft - hop divides by two.
            sample_rate: Hz.
        """
        super().__init__()
        self.config: dict[str, Any] = {"mels": mels, "width": width, "blocks": blocks, "n_fft": n_fft,
                                       "hop": hop, "sample_rate": sample_rate}
        self.n_fft, self.hop, self.sample_rate = n_fft, hop, sample_rate
        self.enter = nn.Conv1d(mels, width, 7, padding=3)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.Sequential(*[FrameBlock(width) for _ in range(blocks)])
        self.leave = nn.Linear(width, n_fft + 2)

    def bank(self, like: Tensor) -> Tensor:
        """(F, M) float32, whatever precision the network has."""
        return filterbank(self.config["mels"], self.n_fft, self.sample_rate).to(like.device)

    def analysis(self, wave: Tensor) -> Tensor:
        """(B, 1, N) to its complex frames, (B, F, L); N a multiple of `hop`."""
        sides = (self.n_fft - self.hop) // 2
        padded = F.pad(wave, (sides, sides))[:, 0].float()
        window = torch.hann_window(self.n_fft, device=wave.device)
        return torch.stft(padded, self.n_fft, self.hop, window=window, center=False, return_complex=True)

    def mel(self, wave: Tensor) -> Tensor:
        """(B, 1, N) in [-1, 1] to (B, M, N / hop): logarithm of the mel magnitudes, silence at -1."""
        mel = self.bank(wave).T @ self.analysis(wave).abs()
        return ((mel.clamp(min=FLOOR).log() - CENTRE) / SPAN).to(wave.dtype)

    def forward(self, mel: Tensor, iterations: int = 2) -> tuple[Tensor, Tensor]:
        """(B, M, L) as `mel` gives it to (B, 1, L * hop) and the magnitudes (B, F, L) it was made of."""
        h = self.norm_in(self.enter(mel).transpose(1, 2)).transpose(1, 2)
        h = self.leave(self.norm_out(self.blocks(h).transpose(1, 2))).transpose(1, 2).float()
        more, phase = h.chunk(2, dim=1)
        loud, bank = (mel.float() * SPAN + CENTRE).exp(), self.bank(mel)
        magnitude = agreeing(bank / bank.sum(0).clamp(min=1e-3) @ loud, loud, bank, 12)
        magnitude = agreeing(magnitude * more.clamp(-8, 4).exp(), loud, bank, 1)
        wave = griffin_lim(magnitude, self.analysis, self.synthesis, iterations, phase=phase)
        return wave.to(mel.dtype), magnitude

    def decode(self, mel: Tensor) -> Tensor:
        """(B, M, L) as `mel` gives it to (B, 1, L * hop)."""
        wave: Tensor = self(mel, TURNS)[0]
        return wave

    def griffin_lim(self, mel: Tensor, iterations: int = 32) -> Tensor:
        """(B, M, L) to (B, 1, L * hop) without the network, the reference it has to beat."""
        loud = (mel.float() * SPAN + CENTRE).exp()
        magnitude = (torch.linalg.pinv(self.bank(mel).T) @ loud).clamp(min=0)
        return griffin_lim(magnitude, self.analysis, self.synthesis, iterations)

    def synthesis(self, frames: Tensor) -> Tensor:
        """Overlaps and adds complex frames (B, F, L) to (B, 1, L * hop), the nearest waveform to them.

        Source: Griffin and Lim 1984, IEEE Transactions on Acoustics 32(2), equation 6.
        """
        length = (frames.shape[-1] - 1) * self.hop + self.n_fft
        window = torch.hann_window(self.n_fft, device=frames.device)
        pieces = torch.fft.irfft(frames, self.n_fft, dim=1) * window[:, None]
        weights = window.square()[None, :, None].expand(1, -1, frames.shape[-1])
        added, weight = self._added(pieces), self._added(weights)
        sides = (self.n_fft - self.hop) // 2
        return (added / weight.clamp(min=1e-8))[..., sides : length - sides]

    def _added(self, pieces: Tensor) -> Tensor:
        """Frames (B, n_fft, L), `hop` samples apart, to their sum (B, 1, n_fft + hop * (L - 1))."""
        hops = pieces.reshape(len(pieces), -1, self.hop, pieces.shape[-1]).unbind(1)
        late = len(hops) - 1
        added = torch.stack([F.pad(part, (i, late - i)) for i, part in enumerate(hops)]).sum(0)
        return added.transpose(1, 2).flatten(1)[:, None]


class Codec(nn.Module):
    """An autoencoder of spectrograms with a vocoder around it: what it codes is the waveform."""

    def __init__(self, autoencoder: Any, vocoder: Any) -> None:
        """Takes the two, trained."""
        super().__init__()
        self.autoencoder, self.vocoder = autoencoder, vocoder
        self.factor: int = autoencoder.factor * vocoder.hop
        self.latent_channels: int = autoencoder.latent_channels

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, N) to mean and log variance, each (B, latent_channels, N / factor)."""
        encoded: tuple[Tensor, Tensor] = self.autoencoder.encode(self.vocoder.mel(x))
        return encoded

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent_channels, L) to (B, 1, L * factor)."""
        wave: Tensor = self.vocoder.decode(self.autoencoder.decode(z))
        return wave

    def preview(self, z: Tensor) -> Tensor:
        """(B, latent_channels, L) to a spectrogram (B, M, L), one column a latent."""
        small: Tensor = self.autoencoder.preview(z)
        return small
