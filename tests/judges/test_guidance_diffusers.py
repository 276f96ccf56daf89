"""Guidance against diffusers.guiders, on the quantity each method is defined on."""

import pytest
import torch

from suite.guidance import MOMENTUM, projected, rescaled, zero_star

guiders = pytest.importorskip("diffusers.guiders")
SHAPE = (2, 4, 8, 8)


def draws(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*SHAPE, generator=generator) + i for i in range(count)]


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_rescale_is_the_same(strength):
    c, u = draws(2)
    wanted = guiders.ClassifierFreeGuidance(guidance_scale=5.0, guidance_rescale=strength).forward(c, u).pred
    torch.testing.assert_close(rescaled(u + 5 * (c - u), c, strength), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_cfg_zero_star_is_the_same_on_the_flow_s_velocity(scale):
    x, c, u = draws(3)
    sigma = 0.7
    v = guiders.ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=0)
    v._step = 1
    wanted = x - sigma * v.forward((x - c) / sigma, (x - u) / sigma).pred
    torch.testing.assert_close(zero_star(x, c, u, scale), wanted, rtol=1e-5, atol=1e-5)


def test_apg_is_the_same_step_after_step():
    """diffusers' default adds the pull to uncond; the paper, and we, add scale - 1 of it to cond."""
    momentum, scale = MOMENTUM, 6.0
    apg = guiders.AdaptiveProjectedGuidance(
        guidance_scale=scale - 1, adaptive_projected_guidance_momentum=momentum, eta=0.0,
        adaptive_projected_guidance_rescale=0.0, use_original_formulation=True,
    )
    apg.momentum_buffer = guiders.adaptive_projected_guidance.MomentumBuffer(momentum)
    last = torch.zeros(SHAPE)
    for c, u in (draws(2), draws(4)[2:], draws(3)[1:]):
        last = c - u + momentum * last
        found = projected(c, last, scale)
        torch.testing.assert_close(found, apg.forward(c, u).pred, rtol=1e-4, atol=1e-4)
