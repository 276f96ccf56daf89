"""What training minimises: the error of an autoencoder, a vocoder, a denoiser at random levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.denoiser import Denoiser
from suite.noise import gaussian
from suite.schedules import noised, shifted
from suite.text import Conditioning


def pyramid(x: Tensor, y: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute difference of x and y, and of their details at each of `levels` halvings of size.

    Args:
        x: (B, C, *S).
        y: (B, C, *S).
        levels: of the Laplacian pyramid; each size of S a multiple of 2^levels.

    Returns: a scalar.

    Source: Bojanowski et al. 2017, arXiv 1707.05776, section 3.2 (Lap1).
    """
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.dim() - 3]
    rest = x - y
    total = rest.abs().mean()
    for _ in range(levels):
        smaller = pool(rest, 2)
        total = total + (rest - F.interpolate(smaller, scale_factor=2.0)).abs().mean()
        rest = smaller
    return total + rest.abs().mean()


def autoencoder_loss(x: Tensor, y: Tensor, mean: Tensor, logvar: Tensor, kl_weight: float) -> Tensor:
    """Reconstruction of x as y, and the divergence of the latents from a unit Gaussian.

    Args:
        x: (B, C, *S) in [-1, 1].
        y: (B, C, *S), its reconstruction.
        mean: (B, Z, *s), of the latents.
        logvar: (B, Z, *s), logarithm of their variance.
        kl_weight: of the divergence, a mean over the latents' elements, in nats.

    Returns: a scalar.

    Source: Kingma and Welling 2013, arXiv 1312.6114, equation 10.
    """
    return pyramid(x, y) + kl_weight * 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def spectral_loss(x: Tensor, y: Tensor, sizes: tuple[int, ...] = (2048, 1024, 512, 256, 128)) -> Tensor:
    """How far the spectrograms of two waveforms are apart, at several resolutions; phase does not count.

    At each, the relative error of the magnitudes (spectral convergence) and the mean difference of their
    logarithms.

    Args:
        x: (B, 1, N), the true one.
        y: (B, 1, N).
        sizes: of the windows, in samples, a quarter of which lies between two frames.

    Returns: a scalar.

    Source: Yamamoto et al. 2019, arXiv 1910.11480, equations 3 to 6.
    """
    total = x.new_zeros(())
    for size in sizes:
        window = torch.hann_window(size, device=x.device)
        real, made = (
            torch.stft(wave[:, 0].float(), size, size // 4, window=window, return_complex=True).abs()
            for wave in (x, y)
        )
        far = (real - made).square().sum((1, 2)).sqrt() / real.square().sum((1, 2)).sqrt().clamp(min=1.0)
        real, made = (magnitude.clamp(min=1e-2).log() for magnitude in (real, made))
        total = total + far.mean() + (real - made).abs().mean()
    return total / len(sizes)


def vocoder_loss(x: Tensor, y: Tensor, wanted: Tensor, magnitude: Tensor) -> Tensor:
    """How far a vocoder's waveform is from the true one, and its magnitudes from the true ones.

    Args:
        x: (B, 1, N), the true one.
        y: (B, 1, N), the vocoder's.
        wanted: (B, F, L), magnitudes of x.
        magnitude: (B, F, L), what y was made of.

    Returns: a scalar.
    """
    wanted, magnitude = (each.clamp(min=1e-2).log() for each in (wanted, magnitude))
    return spectral_loss(x, y) + (wanted - magnitude).abs().mean()


def draw_levels(
    denoiser: Denoiser, count: int, generator: torch.Generator, shift: float = 1.0, spread: float = 1.0
) -> Tensor:
    """Random noise levels to train at: logit-normal on the flow path, uniform in the timestep on the others.

    Args:
        denoiser: says the schedule.
        count: how many.
        generator: on the CPU.
        shift: of the flow path's levels towards noise, where smooth latents are decided.
        spread: standard deviation of their logit; 1.7 is nearly uniform, so that low levels are learned too.

    Returns: (count,) float32.

    Source: Esser et al. 2024, arXiv 2403.03206, section 3.1; Ho et al. 2020, arXiv 2006.11239, algorithm 1.
    """
    schedule = denoiser.schedule
    if schedule.path.name == "flow":
        u = (spread * torch.randn(count, generator=generator)).sigmoid().clamp(1e-3, 1 - 1e-3)
        return shifted(u, shift)
    return torch.tensor(schedule.sigmas)[torch.randint(len(schedule.sigmas), (count,), generator=generator)]


def denoising_loss(
    denoiser: Denoiser,
    x0: Tensor,
    cond: Conditioning,
    generator: torch.Generator,
    shift: float = 1.0,
    spread: float = 1.0,
) -> Tensor:
    """Squared error of what the network predicts, through its clean estimate: |denoised - x0|^2 / c_out^2.

    Args:
        denoiser: the network in training.
        x0: (B, C, *S) float32, unit variance.
        cond: B rows.
        generator: of the levels and the noise, on the CPU.
        shift: of the levels, as of `draw_levels`.
        spread: of the levels, as of `draw_levels`.

    Returns: (B,), the mean over the elements of each item.

    Source: Karras et al. 2022, arXiv 2206.00364, equation 8; for flow, Lipman et al. 2023, arXiv 2210.02747.
    """
    sigma = draw_levels(denoiser, len(x0), generator, shift, spread)
    eps = gaussian(x0.shape, generator, denoiser.schedule.shared).to(x0.device)
    c_out = torch.tensor([denoiser.coefficients(level)[2] for level in sigma.tolist()])
    sigma, c_out = sigma.to(x0.device), c_out.to(x0.device)
    denoised = denoiser(noised(denoiser.schedule.path, x0, sigma, eps), sigma, cond)
    return ((denoised - x0).flatten(1) / c_out[:, None]).square().mean(1)
