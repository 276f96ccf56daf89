"""The losses at points whose value is known."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from suite import loss, schedules
from suite.denoiser import PREDICTIONS, Denoiser
from suite.text import Conditioning

NOTHING = Conditioning(torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
X0 = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def exact(schedule, prediction, x0):
    """The network that knows the clean signal: each prediction by its definition."""

    def network(x, timestep, context, mask):
        results = []
        for row, clean, time in zip(x.double(), x0.double(), timestep.tolist(), strict=True):
            sigma = math.exp(4 * time) if prediction == "edm" else schedule.sigma(time)
            alpha = 1.0
            if prediction == "edm" and schedule.path.name == "flow":
                sigma = sigma / (1 + sigma)
            if schedule.path.name == "flow":
                alpha = 1 - sigma
            norm = math.hypot(alpha, sigma)
            if prediction == "edm" or schedule.path.name == "ve":
                row = row * norm
            eps = (row - alpha * clean) / sigma
            results.append({
                "epsilon": eps,
                "sample": clean,
                "flow": eps - clean,
                "v_prediction": (alpha * eps - sigma * clean) / norm,
                "edm": (sigma * clean - alpha * eps) / norm,
            }[prediction])  # fmt: skip
        return torch.stack(results).float()

    return network


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ("scaled_linear", "flow"))
def test_an_exact_denoiser_loses_nothing(name, prediction):
    schedule = schedules.make(name)
    denoiser = Denoiser(exact(schedule, prediction, X0), schedule, prediction)
    lost = loss.denoising_loss(denoiser, X0, NOTHING, torch.Generator().manual_seed(2))
    assert lost.shape == (4,)
    assert lost.max() < 1e-5


@pytest.mark.parametrize("prediction, expected", [("epsilon", 1.0), ("flow", 2.0), ("sample", 1.0)])
def test_predicting_zero_loses_the_variance_of_what_is_predicted(prediction, expected):
    x0 = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    denoiser = Denoiser(lambda x, *_: torch.zeros_like(x), schedules.make("flow"), prediction)
    lost = loss.denoising_loss(denoiser, x0, NOTHING, torch.Generator().manual_seed(4))
    assert lost.mean() == pytest.approx(expected, rel=0.03)


def test_the_same_generator_loses_the_same_and_an_item_keeps_its_own_loss():
    denoiser = Denoiser(lambda x, *_: 0.3 * x, schedules.make("flow"), "flow")
    first, again = (
        loss.denoising_loss(denoiser, X0, NOTHING, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, again)
    changed = X0.clone()
    changed[2] += 1
    other = loss.denoising_loss(denoiser, changed, NOTHING, torch.Generator().manual_seed(5))
    assert (other != first).tolist() == [False, False, True, False]


@pytest.mark.parametrize("spread", (1.0, 1.7))
def test_levels_are_drawn_logit_normal_on_flow_and_evenly_in_time_elsewhere(spread):
    flow = Denoiser(lambda x, *_: x, schedules.make("flow"), "flow")
    drawn = loss.draw_levels(flow, 20000, torch.Generator().manual_seed(6), spread=spread)
    assert drawn.logit().mean() == pytest.approx(0, abs=0.03)
    assert drawn.logit().std() == pytest.approx(spread, abs=0.03)
    linear = Denoiser(lambda x, *_: x, schedules.make("linear"), "epsilon")
    drawn = loss.draw_levels(linear, 2000, torch.Generator().manual_seed(6))
    times = torch.tensor([linear.schedule.timestep(sigma) for sigma in drawn.tolist()]) / 1000
    assert times.mean() == pytest.approx(0.5, abs=0.03)
    assert times.std() == pytest.approx(12**-0.5, abs=0.02)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_pyramid_sees_no_difference_between_equals_and_a_constant_at_its_ends_only(dims):
    x = torch.randn(2, 3, *[8] * dims, generator=torch.Generator().manual_seed(7))
    assert loss.pyramid(x, x) == 0
    assert loss.pyramid(x, x + 0.25) == pytest.approx(0.5, rel=1e-5)  # the whole, and the coarsest rest


def test_the_pyramid_counts_the_finest_detail_twice():
    x = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 16)
    assert loss.pyramid(x, torch.zeros_like(x)) == pytest.approx(2.0)  # the whole, and its first level


def test_the_divergence_is_the_closed_form_of_torch_distributions():
    generator = torch.Generator().manual_seed(8)
    mean, logvar = torch.randn(2, 4, 3, 3, generator=generator), torch.randn(2, 4, 3, 3, generator=generator)
    x = torch.zeros(2, 3, 8, 8)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(loss.autoencoder_loss(x, x, mean, logvar, 0.5), 0.5 * expected)
    assert loss.autoencoder_loss(x, x, 0 * mean, 0 * logvar, 1.0) == 0


@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_training_levels_have_the_median_of_their_shift(shift):
    denoiser = Denoiser(lambda *_: None, schedules.make("flow"), "flow")
    levels = loss.draw_levels(denoiser, 4001, torch.Generator().manual_seed(0), shift)
    assert levels.median().item() == pytest.approx(shift / (1 + shift), abs=0.02)  # of a half, shifted
    assert 0 < levels.min() and levels.max() < 1
