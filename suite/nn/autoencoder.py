"""A convolutional variational autoencoder: x -> N(mean, exp(logvar)) -> x, `factor` times smaller a side.

Source: Kingma and Welling 2013, arXiv 1312.6114; as the first stage of diffusion, Rombach et al. 2021,
arXiv 2112.10752.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.nn.layers import FrameBlock, conv, norm, zeroed


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, dims: int, width: int) -> None:
        """Takes the dimensions of space and the number of channels."""
        super().__init__()
        self.body = nn.Sequential(norm(width), nn.SiLU(), conv(dims, width, width),
                                  norm(width), nn.SiLU(), zeroed(conv(dims, width, width)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same."""
        h: Tensor = self.body(x)
        return x + h


def fold(x: Tensor, patch: int) -> Tensor:
    """(B, C, *S) to (B, C * patch^d, *S / patch): each patch of space becomes channels."""
    for _ in x.shape[2:]:  # each pass moves dimension 2 into the channels; the next one takes its place
        batch, width, size = x.shape[:3]
        x = x.reshape(batch, width, size // patch, patch, *x.shape[3:])
        x = x.movedim(3, 2).flatten(1, 2).movedim(2, -1)
    return x


def unfold(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold`."""
    for _ in x.shape[2:]:
        x = x.movedim(-1, 2)
        x = x.reshape(len(x), x.shape[1] // patch, patch, *x.shape[2:]).movedim(2, 3).flatten(2, 3)
    return x


class Autoencoder(nn.Module):
    """Encoder and decoder, one residual stage a width; the outermost change of size folds patches."""

    preview_weight: Tensor
    preview_bias: Tensor

    def __init__(self, channels: int = 3, latent_channels: int = 16, widths: tuple[int, ...] = (96, 192, 256),
                 encoder_widths: tuple[int, ...] = (64, 128, 256), blocks: int = 2, patch: int = 4,
                 dims: int = 2) -> None:
        """Builds it for `dims`-dimensional signals.

        Args:
            channels: of the signal.
            latent_channels: of the latents.
            widths: of the decoder's stages, finest first.
            encoder_widths: likewise of the encoder, as many.
            blocks: residual blocks a stage.
            patch: size of the outermost patch; the whole factor is patch * 2^(stages - 1).
            dims: dimensions of space, 1 to 3.
        """
        super().__init__()
        if len(widths) != len(encoder_widths):
            raise ValueError(f"widths has {len(widths)} stages, encoder_widths {len(encoder_widths)}; "
                             "there must be as many")
        self.config: dict[str, Any] = {
            "channels": channels, "latent_channels": latent_channels, "widths": list(widths),
            "encoder_widths": list(encoder_widths), "blocks": blocks, "patch": patch, "dims": dims}
        self.patch, self.factor, self.latent_channels = patch, patch * 2 ** (len(widths) - 1), latent_channels
        folded = channels * patch ** dims
        encoder: list[nn.Module] = [conv(dims, folded, encoder_widths[0])]
        for i, width in enumerate(encoder_widths):
            if i:
                encoder.append(conv(dims, encoder_widths[i - 1], width, stride=2))
            encoder += [ResidualBlock(dims, width) for _ in range(blocks)]
        encoder += [norm(encoder_widths[-1]), nn.SiLU(), conv(dims, encoder_widths[-1], 2 * latent_channels)]
        decoder: list[nn.Module] = [conv(dims, latent_channels, widths[-1])]
        for i in range(len(widths) - 1, -1, -1):
            decoder += [ResidualBlock(dims, widths[i]) for _ in range(blocks)]
            if i:
                decoder += [nn.Upsample(scale_factor=2), conv(dims, widths[i], widths[i - 1])]
        decoder += [norm(widths[0]), nn.SiLU(), conv(dims, widths[0], folded)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.register_buffer("preview_weight", torch.zeros(channels, latent_channels))
        self.register_buffer("preview_bias", torch.zeros(channels))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, *S) to mean and log variance, each (B, latent_channels, *S / factor)."""
        mean, logvar = self.encoder(fold(x, self.patch)).chunk(2, dim=1)
        return mean, logvar.clamp(-20, 4)

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent_channels, *S / factor) to (B, channels, *S)."""
        return unfold(self.decoder(z), self.patch)

    def preview(self, z: Tensor) -> Tensor:
        """(B, latent_channels, *S / factor) to (B, channels, *S / factor), the signal's linear estimate."""
        return F.linear(z.movedim(1, -1), self.preview_weight, self.preview_bias).movedim(-1, 1)

    def forward(self, x: Tensor, generator: torch.Generator | None = None,
                noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstructs.

        Args:
            x: (B, channels, *S).
            generator: draws the latents, on the CPU.
            noise: standard deviation, in that of the latents, of how much noise an item gets besides, so that
                the decoder forgives what a denoiser leaves (Zheng et al. 2025, arXiv 2510.11690, sec. 4.3).

        Returns: the reconstruction (B, channels, *S) from drawn latents, and their mean and log variance.
        """
        mean, logvar = self.encode(x)
        z = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator).to(mean)
        if noise:
            share = torch.randn(len(x), *[1] * (x.dim() - 1), generator=generator).abs()
            z = z + (share * torch.randn(mean.shape, generator=generator)).to(mean) * noise * mean.std()
        return self.decode(z), mean, logvar


class Principal(nn.Module):
    """A linear code, the principal components of patches, and a network that adds what the decoding lacks.

    Nothing is lost in training the encoder, for there is none: spectra of tones, whose lines a convolutional
    encoder smears, keep their pitch, and thin parts of shapes their place.

    Source: Hotelling 1933, Journal of Educational Psychology 24, on principal components.
    """

    mean: Tensor
    basis: Tensor
    spread: Tensor
    preview_weight: Tensor
    preview_bias: Tensor

    def __init__(self, channels: int = 100, latent_channels: int = 64, patch: int = 4, width: int = 256,
                 blocks: int = 4, dims: int = 1, weights: tuple[float, ...] = ()) -> None:
        """Builds it.

        Args:
            channels: of the signal.
            latent_channels: how many components.
            patch: positions a side that a latent stands for.
            width: channels of the network beside the linear decoding.
            blocks: of that network.
            dims: dimensions of space, 1 to 3.
            weights: how much an error of each channel counts in finding the components; the same if empty.
        """
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels, "latent_channels": latent_channels, "patch": patch, "width": width,
            "blocks": blocks, **({"dims": dims} if dims > 1 else {}),
            **({"weights": list(weights)} if weights else {})}
        self.patch, self.factor, self.latent_channels, self.dims = patch, patch, latent_channels, dims
        self.weights = torch.tensor(weights or [1.0] * channels)
        folded = channels * patch ** dims
        self.register_buffer("mean", torch.zeros(folded))
        self.register_buffer("basis", torch.eye(folded, latent_channels))
        self.register_buffer("spread", torch.ones(latent_channels))
        self.enter = conv(dims, latent_channels, width)
        self.blocks = nn.Sequential(*[FrameBlock(width, dims) for _ in range(blocks)])
        self.leave = zeroed(conv(dims, width, folded, 3 if dims == 1 else 1))
        self.register_buffer("preview_weight", torch.zeros(channels, latent_channels))
        self.register_buffer("preview_bias", torch.zeros(channels))

    @torch.no_grad()
    def fit(self, signals: Tensor) -> None:
        """Finds the components of (B, channels, *S), but for patches that are silent, at -1 or less.

        Each is divided by the root of its deviation: a compromise between how much it weighs in the signal
        and the even spread that a diffusion model is best at.
        """
        first = second = self.mean.double() * 0
        number = 0
        for signal in signals:
            rows = self._rows(signal[None].double()).flatten(0, -2)
            rows = rows[rows.amax(1) > -0.99]
            first, second, number = first + rows.sum(0), second + rows.T @ rows, number + len(rows)
        mean = first / number
        weights = self._weights(mean)
        covariance = (second - number * mean[:, None] * mean) / (number - 1) * weights[:, None] * weights
        variance, vectors = torch.linalg.eigh(covariance)
        order = torch.arange(len(variance))[-self.latent_channels :].flip(0)
        self.mean.copy_(mean)
        self.basis.copy_(vectors[:, order])
        self.spread.copy_(variance[order].clamp(min=1e-8) ** 0.25)

    def _rows(self, x: Tensor) -> Tensor:
        """(B, channels, *S) to the patches (B, *s, folded)."""
        return fold(x, self.patch).movedim(1, -1)

    def _weights(self, like: Tensor) -> Tensor:
        """(folded,) the weight of each number of a patch."""
        one = self.weights.to(like).view(1, -1, *[1] * self.dims)
        weights: Tensor = fold(one.expand(1, -1, *[self.patch] * self.dims), self.patch).flatten()
        return weights

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, *S) to mean and log variance, each (B, latent_channels, *S / patch)."""
        rows = (self._rows(x) - self.mean) * self._weights(x)
        mean = (rows @ self.basis / self.spread).movedim(-1, 1)
        return mean, torch.full_like(mean, -20)

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent_channels, *S / patch) to (B, channels, *S)."""
        return self._linear(z) + unfold(self.leave(self.blocks(self.enter(z))), self.patch)

    def _linear(self, z: Tensor) -> Tensor:
        rows = (z.movedim(1, -1) * self.spread) @ self.basis.T / self._weights(z) + self.mean
        return unfold(rows.movedim(-1, 1), self.patch)

    def preview(self, z: Tensor) -> Tensor:
        """(B, latent_channels, *S / patch) to a linear estimate of the signal, *S / patch, in 3D *S."""
        if self.dims < 3:
            return Autoencoder.preview(self, z)  # type: ignore[arg-type]
        return self._linear(z)

    forward = Autoencoder.forward
