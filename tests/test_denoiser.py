import math

import pytest
import torch
from torch import nn

from suite.denoiser import PREDICTIONS, Denoiser
from suite.paths import VE
from suite.schedules import SCHEDULES, Schedule, make
from suite.text import Conditioning

MEAN, STD = 0.7, 0.5
COND = Conditioning(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool))


def exact(x, sigma, alpha):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2), x = alpha x0 + sigma eps."""
    return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)


def oracle(schedule, prediction, sigma):
    """A network that knows its level and gives the exact quantity of the Gaussian, from its own input."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1, 1, 1)
    alpha = schedule.path.alpha(sigma)

    def network(x, timestep, context, mask):
        x = x.double()
        if prediction == "edm":
            x = x * (alpha**2 + sigma**2).sqrt()
        elif schedule.path is VE:
            x = x * (1 + sigma**2).sqrt()
        x0 = exact(x, sigma, alpha)
        eps = (x - alpha * x0) / sigma
        norm = (alpha**2 + sigma**2).sqrt()
        v = alpha / norm * eps - sigma / norm * x0
        told = {"epsilon": eps, "v_prediction": v, "sample": x0, "flow": eps - x0, "edm": -v}
        return told[prediction].float()

    return network


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_prediction_on_every_path_is_the_same_denoiser(name, prediction):
    schedule = make(name)
    levels = torch.tensor([schedule.sigmas[i] for i in (0, 300, 700, 990)])
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * levels.view(-1, 1, 1, 1) + 1
    found = Denoiser(oracle(schedule, prediction, levels), schedule, prediction)(x, levels, COND)
    wanted = torch.stack([exact(x[i], s, schedule.path.alpha(s)) for i, s in enumerate(levels.tolist())])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert found.dtype == torch.float32


def test_edm_has_the_paper_s_preconditioning():
    schedule = make("linear")
    c_in, c_skip, c_out, c_noise = Denoiser(nn.Identity(), schedule, "edm").coefficients(3.0)
    assert c_in == pytest.approx(1 / math.sqrt(10))
    assert c_skip == pytest.approx(1 / 10)
    assert c_out == pytest.approx(3 / math.sqrt(10))
    assert c_noise == pytest.approx(math.log(3) / 4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name, zero_snr", [("flow", False), ("linear", False), ("scaled_linear", True)])
def test_both_ends_of_a_path_are_finite(name, zero_snr, prediction):
    schedule = make(name, zero_terminal_snr=zero_snr)
    denoiser = Denoiser(lambda x, *_: torch.ones_like(x), schedule, prediction)
    for sigma in (0.0, 1e-12, schedule.sigmas[-1]):
        x = torch.full((1, 1, 2, 2), max(sigma, 1.0))
        assert torch.isfinite(denoiser(x, sigma, COND)).all()


@pytest.mark.parametrize("prediction", [p for p in PREDICTIONS if p != "sample"])
@pytest.mark.parametrize("name", ["linear", "flow"])
def test_without_noise_the_state_is_clean(name, prediction):
    x = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(0))
    denoised = Denoiser(lambda x, *_: torch.ones_like(x), make(name), prediction)(x, 0.0, COND)
    assert torch.equal(denoised, x)


@pytest.mark.parametrize("name", ["linear", "flow"])
def test_at_pure_noise_v_and_flow_give_minus_what_the_network_says(name):
    """v = -x0 where alpha / sigma = 0; flow = eps - x0 and x = eps on the flow path."""
    schedule = make(name, zero_terminal_snr=True)
    top = schedule.sigmas[-1]
    eps = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(lambda x, *_: -0.3 * torch.ones_like(x), schedule, "v_prediction")
    denoised = denoiser(top * eps, top, COND)
    torch.testing.assert_close(denoised, torch.full_like(eps, 0.3), rtol=0, atol=2e-3)
    if name == "flow":
        denoised = Denoiser(lambda x, *_: x - 0.3, schedule, "flow")(eps, 1.0, COND)
        torch.testing.assert_close(denoised, torch.full_like(eps, 0.3))


class Spy(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=dtype))

    def forward(self, x, timestep, context, mask):
        self.seen = x, timestep, context, mask
        return x * self.weight


def test_the_network_sees_its_own_precision_and_the_state_stays_float32():
    network = Spy(torch.bfloat16)
    out = Denoiser(network, make("flow"), "flow")(torch.ones(3, 2, 5), torch.tensor([0.2, 0.5, 1.0]), COND)
    x, timestep, context, mask = network.seen
    assert x.dtype == context.dtype == torch.bfloat16
    assert out.dtype == timestep.dtype == torch.float32
    assert mask.shape == (3, 2) and context.shape == (3, 2, 4)
    torch.testing.assert_close(timestep, torch.tensor([200.0, 500.0, 1000.0]))


def test_a_level_for_all_equals_the_same_level_for_each():
    network = Spy(torch.float32)
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(network, make("cosine"), "v_prediction")
    alone = denoiser(x, 1.7, COND)
    for sigma in (torch.tensor(1.7), torch.full((3,), 1.7), torch.tensor([1.7])):
        torch.testing.assert_close(denoiser(x, sigma, COND), alone)


def test_a_vp_network_sees_unit_variance():
    network = Spy(torch.float32)
    Denoiser(network, make("linear"), "epsilon")(torch.full((1, 1, 4), 5.0), 3.0, COND)
    torch.testing.assert_close(network.seen[0], torch.full((1, 1, 4), 5 / math.sqrt(10)))


def test_wrong_requests_are_refused_in_words():
    with pytest.raises(ValueError, match="prediction is 'noise'; it must be one of epsilon"):
        Denoiser(nn.Identity(), make("flow"), "noise")
    denoiser = Denoiser(lambda x, *_: x, Schedule("two", VE, (0.1, 1.0)), "epsilon")
    with pytest.raises(ValueError, match="3 states came with 2 levels"):
        denoiser(torch.ones(3, 1, 2), torch.tensor([0.1, 0.2]), COND)
