"""The linear code of grids: components of patches, weighed by channel."""

import numpy as np
import pytest
import torch

from suite import storage
from suite.nn.autoencoder import Principal

GRID = {"channels": 2, "latent_channels": 3, "patch": 2, "width": 8, "blocks": 1, "dims": 3}


def grids(count=12, rank=None):
    """(count, 2, 4, 4, 4) of patches that have so many degrees of freedom; all if None."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, 4, 4, 4, generator=generator)
    if rank is None:
        return x
    few = torch.randn(rank, 16, generator=generator)
    shares = torch.rand(count, 2, 2, 2, rank, generator=generator)
    patches = (shares @ few).unflatten(-1, (2, 2, 2, 2))  # (N, x, y, z, channel, i, j, k)
    return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(count, 2, 4, 4, 4)


def fitted(x, **more):
    network = Principal(**{**GRID, **more})
    network.fit(x)
    return network


def test_the_components_of_what_a_few_make_up_lose_nothing_in_three_dimensions():
    x = grids(rank=3)
    network = fitted(x)
    with torch.no_grad():
        z, _ = network.encode(x)
        assert z.shape == (12, 3, 2, 2, 2) and network.factor == 2
        torch.testing.assert_close(network.decode(z), x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network.preview(z), x, rtol=1e-4, atol=1e-4)


def test_the_components_are_those_of_numpy_s_singular_values():
    x = grids()
    patches = x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).permute(0, 2, 3, 4, 1, 5, 6, 7)
    rows = patches.reshape(-1, 16).numpy()
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)[:3]
    assert fitted(x).spread.numpy() == pytest.approx((values**2 / (len(rows) - 1)) ** 0.25, rel=1e-4)


def test_a_channel_of_more_weight_comes_back_better():
    x, errors = grids(), []
    for weights in ((1.0, 1.0), (8.0, 1.0)):
        network = fitted(x, latent_channels=8, weights=weights)
        with torch.no_grad():
            far = (network.decode(network.encode(x)[0]) - x).square().mean((0, 2, 3, 4))
        errors.append(far)
    assert errors[1][0] < 0.1 * errors[0][0] and errors[1][1] > errors[0][1]


def test_its_config_builds_it_again(tmp_path):
    network = fitted(grids(), weights=(4.0, 1.0))
    storage.save(tmp_path / "one", network, {"network": {"type": "principal", **network.config}})
    again, _ = storage.load(tmp_path / "one", torch.float32)
    x = grids(2)
    with torch.no_grad():
        torch.testing.assert_close(again.decode(again.encode(x)[0]), network.decode(network.encode(x)[0]))
