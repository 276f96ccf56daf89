"""What every network must hold: shapes, gradients, independence of the items, masks, and its config."""

import pytest
import torch

from suite import storage
from suite.nn import NETWORKS
from suite.nn.autoencoder import fold, unfold

DENOISERS = {
    "unet": {
        "channels": 3, "widths": [16, 32], "blocks": 1, "attention": [False, True], "context_width": 8,
    },
    "unet, patches": {
        "channels": 3, "widths": [16, 24], "blocks": 1, "attention": [True, True], "context_width": 8,
        "patch": 2,
    },
    "unet, head": {
        "channels": 3, "widths": [16, 24], "blocks": 1, "attention": [True, True], "context_width": 8,
        "patch": 2, "head": 16,
    },
    "unet, gain": {
        "channels": 3, "widths": [16, 24], "blocks": 1, "attention": [False, True], "context_width": 8,
        "gain": True,
    },
    "unet, clips": {
        "channels": 3, "widths": [16, 24], "blocks": 1, "attention": [True, True], "context_width": 8,
        "time": ["alone", "joint"],
    },
    "transformer": {"channels": 3, "width": 24, "depth": 2, "context_width": 8},
    "transformer, patches": {"channels": 3, "width": 24, "depth": 2, "context_width": 8, "patch": 2},
}  # fmt: skip
AUTOENCODER = {
    "channels": 2,
    "latent_channels": 4,
    "widths": [16, 24],
    "encoder_widths": [16, 16],
    "blocks": 1,
}
DIMS = (1, 2, 3)


def made(kind, dims, *, perturbed=True, **changes):
    """A network whose zero-initialised layers, unless not `perturbed`, do something."""
    generator = torch.Generator().manual_seed(dims)
    options = AUTOENCODER if kind == "autoencoder" else DENOISERS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[kind.split(",")[0]](**{**options, "dims": dims, **changes})
    if perturbed:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def asked(kind, dims, batch=2, size=8, tokens=5, seed=0):
    """Latents, timesteps, text and mask: the items differ in each."""
    generator = torch.Generator().manual_seed(seed)
    space = (*[6] * kind.endswith("clips"), size, *[4] * (dims - 1))
    x = torch.randn(batch, 3, *space, generator=generator)
    timestep = torch.linspace(100, 900, batch)
    context = torch.randn(batch, tokens, 8, generator=generator)
    mask = torch.arange(tokens) < torch.tensor([3 + i for i in range(batch)])[:, None]
    return x, timestep, context, mask


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("size", (4, 8))
@pytest.mark.parametrize("kind", DENOISERS)
def test_a_denoiser_keeps_the_shape_of_its_latents(kind, size, dims):
    x, *rest = asked(kind, dims, size=size)
    network = made(kind, dims)
    assert not size % network.factor
    assert network(x, *rest).shape == x.shape


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("size", (8, 16))
def test_the_autoencoder_s_latents_are_factor_times_smaller(size, dims):
    network = made("autoencoder", dims, patch=2)
    assert network.factor == 4
    x = torch.zeros(2, 2, size, *[8] * (dims - 1))
    y, mean, logvar = network(x)
    assert mean.shape == logvar.shape == (2, 4, size // 4, *[2] * (dims - 1))
    assert y.shape == x.shape


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("kind", [*DENOISERS, "autoencoder"])
def test_a_gradient_reaches_every_parameter(kind, dims):
    network = made(kind, dims)
    generator = torch.Generator().manual_seed(1)
    if kind == "autoencoder":
        results = network(torch.randn(2, 2, *[8] * dims, generator=generator), generator)
    else:
        results = (network(*asked(kind, dims)),)
    sum((y * torch.randn(y.shape, generator=generator)).sum() for y in results).backward()
    still = [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-8
    ]
    assert not still


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("kind", DENOISERS)
def test_a_batch_of_two_is_twice_one(kind, dims):
    network, told = made(kind, dims), asked(kind, dims)
    together = network(*told)
    for i in range(2):
        alone = network(*[part[i : i + 1] for part in told])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", DIMS)
def test_the_autoencoder_s_batch_of_two_is_twice_one(dims):
    network = made("autoencoder", dims)
    x = torch.randn(2, 2, *[8] * dims, generator=torch.Generator().manual_seed(2))
    mean, _ = network.encode(x)
    for i in range(2):
        torch.testing.assert_close(mean[i : i + 1], network.encode(x[i : i + 1])[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            network.decode(mean)[i : i + 1], network.decode(mean[i : i + 1]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("kind", DENOISERS)
def test_masked_tokens_do_not_matter_and_the_others_do(kind, dims):
    network, (x, timestep, context, mask) = made(kind, dims), asked(kind, dims)
    before = network(x, timestep, context, mask)
    padded = torch.where(mask[..., None], context, 100.0)
    torch.testing.assert_close(network(x, timestep, padded, mask), before, rtol=1e-4, atol=1e-5)
    kept = int(mask[0].sum())
    longest = network(x[:1], timestep[:1], context[:1, :kept], mask[:1, :kept])
    torch.testing.assert_close(longest, before[:1], rtol=1e-4, atol=1e-5)
    assert (network(x, timestep, context.flip(-1), mask) - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", DENOISERS)
def test_the_order_of_positions_and_the_noise_level_are_seen(kind):
    network, (x, timestep, context, mask) = made(kind, 2), asked(kind, 2)
    before = network(x, timestep, context, mask)
    assert (network(x, timestep + 50, context, mask) - before).abs().max() > 1e-3
    constant = network(torch.ones_like(x), timestep, context, mask)
    assert constant.std(dim=(2, 3)).min() > 1e-3


@pytest.mark.parametrize("kind", DENOISERS)
def test_an_untrained_denoiser_predicts_zero(kind):
    assert not made(kind, 2, perturbed=False)(*asked(kind, 2)).any()


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("kind", [*DENOISERS, "autoencoder"])
def test_a_network_comes_back_from_its_folder(kind, dims, tmp_path):
    network = made(kind, dims)
    settings = {"network": {"type": kind.split(",")[0], **network.config}}
    again, read = storage.load(storage.save(tmp_path / "model", network, settings))
    assert again.config == network.config == {k: v for k, v in read["network"].items() if k != "type"}
    told = (torch.ones(1, 2, *[8] * dims),) if kind == "autoencoder" else asked(kind, dims)
    call = network.encode if kind == "autoencoder" else network
    assert torch.equal((again.encode if kind == "autoencoder" else again)(*told)[0], call(*told)[0])


@pytest.mark.parametrize("dims", DIMS)
def test_fold_moves_each_patch_into_channels_and_unfold_back(dims):
    x = torch.arange(2 * 3 * 4**dims).view(2, 3, *[4] * dims)
    folded = fold(x, 2)
    assert folded.shape == (2, 3 * 2**dims, *[2] * dims)
    first = x[(slice(None), slice(None), *[slice(0, 2)] * dims)]  # the patch at the origin
    corner = folded[(slice(None), slice(None), *[0] * dims)]
    assert torch.equal(corner.sort(1).values, first.flatten(1).sort(1).values)
    assert torch.equal(unfold(folded, 2), x)
    assert torch.equal(fold(x, 1), x)


@pytest.mark.parametrize("dims", DIMS)
def test_the_preview_is_the_linear_map_it_stores(dims):
    network = made("autoencoder", dims)
    z = torch.randn(2, 4, *[3] * dims, generator=torch.Generator().manual_seed(3))
    assert not network.preview(z).any()  # until training sets the map
    network.preview_weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 2, 0]]))
    network.preview_bias.copy_(torch.tensor([0.0, 0.5]))
    assert torch.equal(network.preview(z), torch.stack([z[:, 0], 2 * z[:, 2] + 0.5], dim=1))


def test_a_drawn_latent_has_the_variance_that_was_encoded():
    network = made("autoencoder", 1)
    x = torch.ones(4000, 2, 8)
    drawn = []
    network.decode = lambda z: drawn.append(z) or x
    _, mean, logvar = network(x, torch.Generator().manual_seed(0))
    spread = (drawn[0] - mean).var(0) / logvar[0].exp()
    assert spread.sub(1).abs().max() < 0.15


def test_noise_asked_for_is_added_to_the_latents_in_their_own_measure():
    module, x = made("autoencoder", 1), torch.randn(64, 2, 64, generator=torch.Generator().manual_seed(1))
    seen = []
    module.decode = lambda z: seen.append(z) or x
    _, mean, _ = module(x, torch.Generator().manual_seed(2))
    module(x, torch.Generator().manual_seed(2), noise=0.5)
    added = (seen[1] - seen[0]) / mean.std()
    assert added.std().item() == pytest.approx(0.5, rel=0.15)  # the mean square of a half-normal is 1
    shares = added.flatten(1).std(1)
    assert shares.min() < 0.1 and shares.max() > 0.8  # how much, differs by item


def test_a_head_starts_as_nothing_and_sees_finer_than_the_patches():
    plain, head = (made(kind, 2, perturbed=False) for kind in ("unet, patches", "unet, head"))
    head.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for network in (plain, head):
            network.leave[-1].weight.normal_(generator=torch.Generator().manual_seed(3))
    inputs = asked("unet", 2)
    assert torch.equal(head(*inputs), plain(*inputs))
    torch.nn.init.ones_(head.finish.weight)
    assert not torch.allclose(head(*inputs), plain(*inputs), atol=1e-3)


def test_with_a_gain_each_channel_passes_by_the_network_as_the_noise_level_sets():
    network, (x, timestep, *rest) = made("unet, gain", 2, perturbed=False), asked("unet", 2)
    without = {key: value for key, value in network.state_dict().items() if "gain." not in key}
    network.load_state_dict(network.grown(without))
    with torch.no_grad():
        assert network(x, timestep, *rest).abs().max() == 0  # as all that is zero at first
        network.gain.weight.normal_(generator=torch.Generator().manual_seed(4))
        factors = network(x, timestep, *rest) / x
        assert (factors.std((2, 3)) < 1e-4).all() and factors.mean((2, 3)).std(1).min() > 1e-2
        assert not torch.allclose(factors, network(x, timestep / 2, *rest) / x)


def test_an_autoencoder_of_unequal_stages_is_refused():
    with pytest.raises(ValueError, match="widths has 2 stages, encoder_widths 1"):
        made("autoencoder", 2, encoder_widths=[16])


def test_a_network_of_pictures_grows_into_one_of_clips_that_draws_the_same_frame_by_frame():
    options = {key: value for key, value in DENOISERS["unet, clips"].items() if key != "time"}
    pictures = made("unet, clips", 2, time=())
    clips = made("unet, clips", 2, perturbed=False)
    clips.load_state_dict(clips.grown(pictures.state_dict()))
    x, timestep, context, mask = asked("unet, clips", 2)
    assert pictures.config == {**options, "patch": 1, "positions": 16, "head": 0, "dims": 2}
    frames = torch.stack([pictures(x[:, :, t], timestep, context, mask) for t in range(6)], 2)
    torch.testing.assert_close(clips(x, timestep, context, mask), frames, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("time, elsewhere", [(["alone", "none"], False), (["joint", "none"], True)])
def test_a_frame_sees_others_at_its_own_place_or_everywhere(time, elsewhere):
    network = made("unet, clips", 2, time=time)
    level = network.down[0][0].in_time
    x = torch.randn(6, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[5, :, 1, 1] += torch.linspace(-1, 1, 16)
    moved = (level(changed, 6) - level(x, 6)).abs().amax(1)[:5] > 1e-6  # in the other frames
    assert moved[:, 1, 1].all() and bool(moved[:, 3, 3].any()) == elsewhere


def test_a_frame_s_place_in_the_clip_is_seen():
    network, (x, timestep, context, mask) = made("unet, clips", 2), asked("unet, clips", 2)
    still = x[:, :, :1].expand_as(x)
    assert network(still, timestep, context, mask).std(2).max() > 1e-3


@pytest.mark.parametrize("time", (["alone"], ["often", "never"]))
def test_attention_in_time_that_no_level_can_have_is_refused(time):
    with pytest.raises(ValueError, match="alone, joint or none of each of the widths"):
        made("unet, clips", 2, time=time)
