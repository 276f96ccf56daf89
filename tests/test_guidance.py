import pytest
import torch

from suite.denoiser import PREDICTIONS, Denoiser
from suite.guidance import METHODS, guided, projected, rescaled, zero_star
from suite.schedules import make
from suite.text import Conditioning


def told(*values, length=2):
    """Rows whose first token is the value."""
    tokens = torch.zeros(len(values), length, 1)
    tokens[:, 0, 0] = torch.tensor(values)
    return Conditioning(tokens, torch.ones(len(values), length, dtype=torch.bool))


class Network:
    """Says what it is told, plus a little of its input, and counts the rows it is asked for."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, timestep, context, mask):
        self.calls.append(len(x))
        assert bool((context[~mask] == 0).all())
        wave = torch.linspace(-1, 1, x.shape[-1])
        return 0.1 * x + context[:, 0].view(-1, *[1] * (x.ndim - 1)) * (wave + 0.2)


def setup(prediction="flow", name="flow"):
    network = Network()
    return network, Denoiser(network, make(name), prediction)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["linear", "flow"])
def test_guiding_the_clean_estimate_is_guiding_what_the_network_says(name, prediction):
    _, denoiser = setup(prediction, name)
    x, c, u, w = noise(2, 1, 6), told(1.0, 0.5), told(-0.3), 4.0
    both = denoiser.network

    def guided_network(x, timestep, context, mask):
        cond = both(x, timestep, context, mask)
        uncond = both(x, timestep, u.tokens.expand(len(x), -1, -1), mask)
        return uncond + w * (cond - uncond)

    wanted = Denoiser(guided_network, denoiser.schedule, prediction)(x, 0.6, c)
    torch.testing.assert_close(guided(denoiser, c, u, w)(x, 0.6), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_scale_one_is_the_conditional_estimate_and_costs_no_second_pass(method):
    network, denoiser = setup()
    x = noise(3, 1, 6)
    denoised = guided(denoiser, told(1.0), None, 1.0, method)(x, 0.9)
    assert network.calls == [3]
    torch.testing.assert_close(denoised, denoiser(x, 0.9, told(1.0)))


@pytest.mark.parametrize("method", ["cfg", "apg", "cfg_zero"])
def test_cond_and_uncond_are_one_batch_whatever_their_lengths(method):
    network, denoiser = setup()
    cond, uncond = told(1.0, 2.0, length=3), told(0.0, length=7)
    guided(denoiser, cond, uncond, 3.0, method)(noise(2, 1, 6), 0.5)
    assert network.calls == [4]


def test_none_ignores_the_scale():
    network, denoiser = setup()
    guided(denoiser, told(1.0), told(0.0), 7.0, "none")(noise(2, 1, 6), 0.5)
    assert network.calls == [2]


def test_outside_the_interval_nothing_is_guided_and_the_second_pass_is_saved():
    network, denoiser = setup()
    x = noise(2, 1, 6)
    denoise = guided(denoiser, told(1.0), told(0.0), 3.0, interval=(0.3, 0.8))
    plain = denoise(x, 0.9)
    assert torch.equal(plain, denoiser(x, 0.9, told(1.0)))
    network.calls.clear()
    everywhere = guided(denoiser, told(1.0), told(0.0), 3.0)
    mixed = denoise(x, torch.tensor([0.5, 0.2]))
    assert network.calls == [3]
    torch.testing.assert_close(mixed[0], everywhere(x, 0.5)[0])
    torch.testing.assert_close(mixed[1], denoiser(x, 0.2, told(1.0))[1])


def test_each_item_may_have_its_own_scale():
    network, denoiser = setup()
    x = noise(3, 1, 6)
    denoised = guided(denoiser, told(1.0), told(0.0), [1.0, 2.0, 5.0])(x, 0.5)
    assert network.calls == [5]
    for i, w in enumerate([1.0, 2.0, 5.0]):
        alone = guided(denoiser, told(1.0), told(0.0), w)(x[i : i + 1], 0.5)
        torch.testing.assert_close(denoised[i : i + 1], alone)


def test_rescale_brings_back_the_standard_deviation():
    plain, strong = noise(2, 3, 4, 4), 5 * noise(2, 3, 4, 4) + 1
    torch.testing.assert_close(rescaled(strong, plain, 1.0).std((1, 2, 3)), plain.std((1, 2, 3)))
    torch.testing.assert_close(rescaled(strong, plain, 0.0), strong)
    torch.testing.assert_close(rescaled(strong, plain, 0.5), (strong + rescaled(strong, plain, 1.0)) / 2)
    assert torch.isfinite(rescaled(torch.zeros(1, 1, 4), plain[:1, :1, 0], 1.0)).all()


def test_guided_rescales_towards_the_conditional_estimate():
    _, denoiser = setup()
    x = noise(2, 1, 6)
    denoised = guided(denoiser, told(1.0), told(0.0), 6.0, rescale=1.0)(x, 0.7)
    torch.testing.assert_close(denoised.std((1, 2)), denoiser(x, 0.7, told(1.0)).std((1, 2)))


def test_cfg_zero_guides_the_velocity_of_the_flow():
    x, c, u, sigma, w = noise(2, 1, 6), noise(2, 1, 6) + 1, noise(2, 1, 6) * 0.5, 0.8, 3.0
    v_c, v_u = (x - c) / sigma, (x - u) / sigma
    fit = (v_c * v_u).sum((1, 2), keepdim=True) / (v_u * v_u).sum((1, 2), keepdim=True)
    wanted = x - sigma * ((1 - w) * fit * v_u + w * v_c)
    torch.testing.assert_close(zero_star(x, c, u, w), wanted)


def test_cfg_zero_needs_no_fit_where_the_velocities_are_parallel():
    """v_u = v_c / 2 is scaled to v_c, so nothing is left to guide."""
    x, c = noise(1, 1, 6), noise(1, 1, 6) + 1
    torch.testing.assert_close(zero_star(x, c, x - (x - c) / 2, 9.0), c)


def test_apg_where_nothing_is_parallel_is_cfg():
    c, u = noise(2, 1, 6), noise(2, 1, 6) + 1
    away = c - u
    away = away - (away * c).sum((1, 2), keepdim=True) / c.square().sum((1, 2), keepdim=True) * c
    torch.testing.assert_close(projected(c, away, 4.0), c - away + 4 * away)


def test_apg_pulls_at_a_right_angle_to_the_conditional_estimate():
    c, difference = noise(2, 1, 6), noise(2, 1, 6) * 9 + 1
    pull = projected(c, difference, 2.0) - c
    torch.testing.assert_close((pull * c).sum((1, 2)), torch.zeros(2), atol=1e-4, rtol=0)
    assert pull.norm() > 1


def test_apg_s_momentum_belongs_to_the_run_and_the_item():
    _, denoiser = setup()
    x = noise(2, 1, 6)
    cond, uncond = told(1.0, 0.4), told(0.0)

    def run(rows):
        denoise = guided(denoiser, cond.select(rows), uncond, 3.0, "apg")
        return [denoise(x[rows], s) for s in (1.0, 0.8, 0.6)]

    together, again, first, second = run([0, 1]), run([0, 1]), run([0]), run([1])
    for a, b, c, d in zip(together, again, first, second, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, torch.cat([c, d]))


def test_apg_adds_a_share_of_the_last_difference():
    _, denoiser = setup()
    x, cond, uncond = noise(2, 1, 6), told(1.0), told(0.0)
    denoise = guided(denoiser, cond, uncond, 3.0, "apg")
    denoise(x, 1.0)
    c, c_before = denoiser(x, 0.8, cond), denoiser(x, 1.0, cond)
    last = (c - denoiser(x, 0.8, uncond)) - 0.5 * (c_before - denoiser(x, 1.0, uncond))
    torch.testing.assert_close(denoise(x, 0.8), projected(c, last, 3.0))


def test_wrong_requests_are_refused_in_words():
    _, denoiser = setup()
    with pytest.raises(ValueError, match="guidance is 'more'; it must be one of none, cfg, cfg_zero, apg"):
        guided(denoiser, told(1.0), told(0.0), 2.0, "more")
    with pytest.raises(ValueError, match="without an unconditional prompt it must be 1"):
        guided(denoiser, told(1.0), None, 2.0)
    with pytest.raises(ValueError, match="guidance interval is"):
        guided(denoiser, told(1.0), told(0.0), 2.0, interval=(0.8, 0.2))
    denoise = guided(denoiser, told(1.0), told(0.0), 2.0)
    denoise(noise(2, 1, 6), 0.5)
    with pytest.raises(ValueError, match="3 states came to a denoiser made for 2"):
        denoise(noise(3, 1, 6), 0.5)
