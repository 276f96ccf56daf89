"""The network that names: shapes, gradients, independence of the items, its config."""

import pytest
import torch

from suite.nn import NETWORKS

OPTIONS = {"channels": 2, "widths": [8, 16], "stride": 2, "grid": 2, "text_width": 6}


def made(dims):
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return NETWORKS["classifier"](**OPTIONS, dims=dims)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_signal_becomes_a_unit_vector_whatever_its_size(dims, size):
    network = made(dims).eval()
    x = torch.randn(3, 2, *[size] * dims, generator=torch.Generator().manual_seed(1))
    vectors = network(x)
    assert vectors.shape == (3, 6) and network.features(x).shape == (3, 16)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(network(x[1:2]), vectors[1:2])


def test_a_gradient_reaches_every_parameter():
    network = made(2)
    network(torch.randn(4, 2, 8, 8))[:, 0].sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None and name != "scale"]
    assert not silent


def test_the_name_that_points_where_the_signal_does_is_likeliest():
    network = made(2).eval()
    network.centre.fill_(0.3)
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    names = torch.cat([-network(x), 5 * network(x), x[:, 0, 0, :6]]) + network.centre
    logits = network.logits(x, names)[0]
    torch.testing.assert_close(logits[:2], network.scale.exp() * torch.tensor([-1.0, 1.0]))
    assert logits.argmax() == 1


def test_the_config_makes_the_same_network_again():
    network = made(1)
    again = NETWORKS["classifier"](**network.config)
    assert again.config == network.config
    assert [p.shape for p in again.parameters()] == [p.shape for p in network.parameters()]
