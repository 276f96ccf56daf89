"""Points of a surface that carry features: spread, order-blind, and a field that learns a shape."""

import pytest
import torch
from torch.nn import functional as F

from suite import train
from suite.nn.surface import Surface, centres, farthest
from suite.pool import Pool

SMALL = {"anchors": 24, "latent_channels": 8, "width": 64, "depth": 1, "local": 32, "near": 4,
         "points": 256, "queries": 128, "cells": 16}  # fmt: skip


def ball(count=2, radius=0.6, seed=0):
    """Signals of a ball that is red above and blue below."""
    generator = torch.Generator().manual_seed(seed)
    normal = F.normalize(torch.randn(count, 3, SMALL["points"], generator=generator), dim=1)
    places = torch.rand(count, 3, SMALL["queries"], generator=generator) * 2 - 1
    near = 0.7 + 0.6 * torch.rand(64, generator=generator)
    places[..., ::2] = radius * near * F.normalize(places[..., ::2], dim=1)

    def colour(at):
        return torch.cat([at[:, 1:2].sign(), -torch.ones_like(at[:, :1]), -at[:, 1:2].sign()], 1)

    surface = torch.cat([radius * normal, normal, colour(normal), torch.zeros(count, 1, normal.shape[2])], 1)
    inside = (places.norm(dim=1, keepdim=True) < radius).float() * 2 - 1
    return torch.cat([surface, torch.cat([places, torch.zeros_like(places), colour(places), inside], 1)], 2)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Surface(**SMALL)


def test_the_farthest_points_of_a_line_are_its_ends_then_its_middle():
    line = torch.zeros(1, 101, 3)
    line[0, :, 0] = torch.linspace(0, 1, 101)
    assert farthest(line, 5)[0, :3].tolist() == [0, 100, 50]
    assert set(farthest(line, 5)[0].tolist()) == {0, 25, 50, 75, 100}


def test_latents_are_points_of_the_surface_with_features(net):
    x = ball()
    mean, logvar = net.encode(x)
    assert mean.shape == logvar.shape == (2, 8, 24)
    torch.testing.assert_close(mean[:, :3].norm(dim=1), torch.full((2, 24), 1.2))
    assert mean.shape[2] * net.factor == x.shape[2]


def test_the_order_of_the_anchors_does_not_matter(net):
    z, _ = net.eval().encode(ball())
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(net.decode(z[..., order]), net.decode(z), atol=1e-4, rtol=1e-4)


def test_two_in_a_batch_are_as_each_alone_and_every_parameter_learns(net):
    x = ball()
    field, mean, _ = net(x, torch.Generator().manual_seed(0))
    alone = net(x[:1], torch.Generator().manual_seed(0))[1]
    torch.testing.assert_close(mean[:1], alone, atol=1e-5, rtol=1e-4)
    (field.square().mean() + mean.square().mean()).backward()
    logvar = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not logvar
    assert Surface(**net.config).config == net.config


def test_the_decoded_field_is_the_field_at_its_cells_and_close_ones_are_asked_for_finely(net):
    with torch.no_grad():
        z, _ = net.eval().encode(ball(1))
        whole = net.decode(z)
        anchors, seen = net.anchored(z)
        exact = net.field(anchors, seen, centres(16, z)[None]).unflatten(2, (16, 16, 16))
    assert whole.shape == (1, 4, 16, 16, 16)
    torch.testing.assert_close(whole, exact, atol=1e-4, rtol=1e-4)  # so small that all is close
    x, y, w = 3, 12, 7
    place = torch.tensor([[(each + 0.5) / 8 - 1 for each in (x, y, w)]])
    one = net.field(anchors, seen, place[None])[0, :, 0]
    torch.testing.assert_close(whole[0, :, x, y, w], one, atol=1e-4, rtol=1e-4)


def test_trained_on_balls_it_knows_their_insides_and_colours(tmp_path):
    pool = Pool(ball(64).numpy())
    told = {"steps": 80, "batch": 4, "learning_rate": 3e-3, "warmup": 5, "ema": 0.9, "kl_weight": 1e-4}
    recipe = {"kind": "surface", "network": {"type": "surface", **SMALL}, "train": told}
    *_, (state, _) = train.train(recipe, pool, tmp_path)
    net = state.averaged()
    assert train.finished_surface(net, pool)["iou"] > 0.8
    with torch.no_grad():
        z, _ = net.eval().encode(ball(1, seed=99))
        field, seen = net.decode(z)[0], net.preview(z)[0]
    at = centres(16, z).T.unflatten(1, (16, 16, 16))
    real, found = at.norm(dim=0) < 0.6, field[0] > 0
    assert (real & found).sum() / (real | found).sum() > 0.75
    assert (field[1][found] * at[1][found] > 0).float().mean() > 0.8
    torch.testing.assert_close(seen[:3].norm(dim=0), torch.full((24,), 0.6))
    assert ((seen[3] > seen[5]) == (seen[1] > 0)).float().mean() > 0.8
