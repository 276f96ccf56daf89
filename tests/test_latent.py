import pytest
import torch
from torch import nn

from suite.latent import FRAMES, AutoencoderLatent, FrameLatent, IdentityLatent, factors, tiled
from suite.nn import Autoencoder


class Repeat(nn.Module):
    """Purely local: encodes the mean of each cell, decodes by repeating: a tile cannot tell it is one."""

    def __init__(self, factor=4, dims=2):
        super().__init__()
        self.factor, self.latent_channels, self.dims = factor, 3, dims
        self.calls, self.room = [], None

    def _note(self, x):
        self.calls.append(tuple(x.shape))
        if self.room is not None and x.shape[0] * x.shape[2:].numel() > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def encode(self, x):
        self._note(x)
        mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[self.dims - 1](self.factor)(x)
        return mean, torch.zeros_like(mean)

    def decode(self, z):
        self._note(z)
        return nn.functional.interpolate(z, scale_factor=self.factor, mode="nearest")


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_identity_gives_the_signal_itself():
    x = noise(2, 3, 5, 7)
    latent = IdentityLatent()
    assert torch.equal(latent.decode(latent.encode(x)), x)
    assert latent.preview(x).abs().max() <= 1
    assert (latent.channels, latent.factor) == (3, 1)


def test_a_clip_s_latents_are_those_of_its_frames_a_few_at_a_time():
    module = Repeat()
    pictures = AutoencoderLatent(module, scaling_factor=2.0)
    latent, x = FrameLatent(pictures), noise(2, 3, FRAMES, 8, 12)
    z = latent.encode(x)
    assert z.shape == (2, 3, FRAMES, 2, 3) and factors(latent, 3) == (1, 4, 4)
    assert factors(pictures, 2) == (4, 4)
    torch.testing.assert_close(z[:, :, 5], pictures.encode(x[:, :, 5]))
    torch.testing.assert_close(latent.decode(z)[:, :, 1], pictures.decode(z[:, :, 1]))
    torch.testing.assert_close(latent.preview(z)[:, :, -1], pictures.preview(z[:, :, -1]))
    assert max(shape[0] for shape in module.calls) == FRAMES


def test_scale_and_shift_bring_the_latents_to_unit_variance_and_back():
    latent = AutoencoderLatent(Repeat(), scaling_factor=2.0, shift_factor=0.5)
    flat = torch.full((1, 3, 8, 8), 0.75)
    torch.testing.assert_close(latent.encode(flat), torch.full((1, 3, 2, 2), 0.5))
    torch.testing.assert_close(latent.decode(latent.encode(flat)), flat)


@pytest.mark.parametrize("dims, size", [(1, (92,)), (2, (52, 92)), (3, (36, 20, 52))])
def test_tiles_of_a_local_map_blend_to_the_whole_in_any_number_of_dimensions(dims, size):
    x = noise(2, 3, *size)
    module = Repeat(dims=dims)
    whole, cut = AutoencoderLatent(module, tile=None), AutoencoderLatent(module, tile=6)
    z = whole.encode(x)
    torch.testing.assert_close(cut.encode(x), z)
    wanted = whole.decode(z)
    module.calls.clear()
    torch.testing.assert_close(cut.decode(z), wanted)
    assert all(max(shape[2:]) <= 6 for shape in module.calls)


@pytest.mark.parametrize("length, tile, overlap", [(23, 6, 2), (24, 6, 2), (7, 6, 5), (13, 6, 0), (5, 6, 2)])
def test_every_element_is_covered_and_the_shares_add_to_one(length, tile, overlap):
    x = torch.arange(float(length))[None, None]
    torch.testing.assert_close(tiled(lambda part: part, x, tile, overlap), x)


def test_overlaps_fade_linearly_from_one_tile_to_the_next():
    values = iter([0.0, 1.0])
    found = tiled(lambda part: torch.full_like(part, next(values)), torch.zeros(1, 1, 9), 6, 3)
    torch.testing.assert_close(found[0, 0], torch.tensor([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]))


def test_tiles_of_a_real_autoencoder_show_no_seam():
    torch.manual_seed(0)
    module = Autoencoder(latent_channels=4, widths=(8, 8), encoder_widths=(8, 8), blocks=1, patch=2).eval()
    z = noise(1, 4, 40, 40)
    whole = AutoencoderLatent(module, tile=None).decode(z)
    step = whole.diff(dim=-1).abs().max()
    cut = [AutoencoderLatent(module, tile=24, overlap=overlap).decode(z) for overlap in (0.25, 0.0)]
    blended, butted = ((tiles - whole).diff(dim=-1).abs().max() / step for tiles in cut)
    assert blended < 0.1 < 0.2 < butted


def test_a_large_batch_is_cut_into_slices():
    module = Repeat()
    AutoencoderLatent(module, batch=2).decode(noise(5, 3, 4, 4))
    assert [shape[0] for shape in module.calls] == [2, 2, 1]


def test_out_of_memory_is_tried_again_one_by_one_and_then_in_tiles():
    module = Repeat()
    z = noise(2, 3, 32, 32)
    latent = AutoencoderLatent(module)
    wanted = latent.decode(z)
    module.calls.clear()
    module.room = 16 * 16
    torch.testing.assert_close(latent.decode(z), wanted)
    assert module.calls[:4] == [(2, 3, 32, 32), (1, 3, 32, 32), (1, 3, 16, 16), (1, 3, 16, 16)]


def test_memory_that_never_suffices_and_other_errors_are_told():
    module = Repeat()
    module.room = 1
    with pytest.raises(MemoryError, match="ask for a smaller size"):
        AutoencoderLatent(module).decode(noise(1, 3, 32, 32))
    with pytest.raises(RuntimeError, match="channels"):
        AutoencoderLatent(Autoencoder(widths=(8,), encoder_widths=(8,))).decode(noise(1, 3, 4, 4))


def test_the_module_runs_in_its_precision_and_the_result_is_float32():
    module = Autoencoder(latent_channels=4, widths=(8,), encoder_widths=(8,), blocks=1).bfloat16()
    latent = AutoencoderLatent(module)
    z = latent.encode(noise(1, 3, 8, 8))
    assert z.dtype == latent.decode(z).dtype == latent.preview(z).dtype == torch.float32
    assert (latent.channels, latent.factor) == (4, 4)


def test_preview_is_the_module_s_linear_map_of_its_own_latents():
    module = Autoencoder(latent_channels=4, widths=(8,), encoder_widths=(8,), blocks=1)
    module.preview_weight[:, 0] = torch.tensor([0.1, 0.2, 9.0])
    module.preview_bias[1] = 0.3
    z = torch.full((1, 4, 2, 2), 2.0)  # unscaled: 2 / 4 + 0.5 = 1
    small = AutoencoderLatent(module, 4.0, 0.5).preview(z)
    torch.testing.assert_close(small[0, :, 0, 0], torch.tensor([0.1, 0.5, 1.0]))
    assert AutoencoderLatent(Repeat()).preview(torch.full((2, 3, 4, 4), 3.0)).shape == (2, 3, 4, 4)


def test_sizes_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ValueError, match=r"size is 10 x 8; each side must be a multiple of 4 \(try 8 x 8\)"):
        AutoencoderLatent(Repeat()).encode(noise(1, 3, 10, 8))
    with pytest.raises(ValueError, match="overlap is 1"):
        AutoencoderLatent(Repeat(), overlap=1.0)
