import math
from itertools import pairwise

import pytest
import torch

from suite import schedules
from suite.paths import FLOW, VE
from suite.schedules import SCHEDULES, SPACINGS, Schedule, indices, levels, make, noised


def betas(schedule: Schedule) -> list[float]:
    bars = [1.0, *(1 / (1 + sigma**2) for sigma in schedule.sigmas)]
    return [1 - after / before for before, after in pairwise(bars)]


def test_the_betas_of_linear_lie_on_a_line():
    assert betas(make("linear")) == pytest.approx(
        [1e-4 + i * (0.02 - 1e-4) / 999 for i in range(1000)], rel=1e-6
    )


def test_the_roots_of_the_betas_of_scaled_linear_lie_on_a_line_and_it_ends_where_stable_diffusion_does():
    schedule = make("scaled_linear")
    roots = [math.sqrt(beta) for beta in betas(schedule)]
    assert [b - a for a, b in pairwise(roots)] == pytest.approx(
        [(0.012**0.5 - 0.00085**0.5) / 999] * 999, rel=1e-4
    )
    assert (schedule.sigmas[0], schedule.sigmas[-1]) == pytest.approx((0.0292, 14.6146), abs=1e-4)


def test_the_signal_power_of_cosine_is_a_squared_cosine():
    for t in (0, 100, 500, 900):
        sigma = make("cosine").sigmas[t]
        power = [math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 for u in ((t + 1) / 1000, 0)]
        assert 1 / (1 + sigma**2) == pytest.approx(power[0] / power[1], rel=1e-9)


def test_the_betas_of_sigmoid_are_symmetric_about_their_mean():
    found = betas(make("sigmoid"))
    assert [a + b for a, b in zip(found, reversed(found), strict=True)] == pytest.approx(
        [0.0201] * 1000, rel=1e-6
    )


def test_flow_goes_in_even_steps_to_pure_noise():
    schedule = make("flow")
    assert schedule.path is FLOW and schedule.sigmas[-1] == 1.0
    assert schedule.timestep(0.25) == 250 and schedule.sigma(250) == 0.25


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_rise_and_timestep_undoes_sigma(name):
    schedule = make(name)
    assert all(low < high for low, high in pairwise(schedule.sigmas))
    for t in (1.0, 17.25, 500.5, 998.0):
        assert schedule.timestep(schedule.sigma(t)) == pytest.approx(t, abs=1e-6)
    if schedule.path is VE:
        assert schedule.timestep(schedule.sigmas[0] / 2) == 0
        assert schedule.timestep(schedule.sigmas[-1] * 2) == 999
        assert schedule.sigma(10) == pytest.approx(schedule.sigmas[10])


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_zero_terminal_snr_keeps_the_first_level_and_ends_without_signal(name):
    schedule = make(name)
    rescaled = make(name, zero_terminal_snr=True)
    signal = [[1 / math.hypot(1, sigma) for sigma in s.sigmas] for s in (schedule, rescaled)]
    assert rescaled.sigmas[0] == pytest.approx(schedule.sigmas[0], rel=1e-9)
    assert rescaled.sigmas[-1] == pytest.approx(4096, rel=1e-6)
    slope = signal[0][0] / (signal[0][0] - signal[0][-1])  # sqrt(alpha_bar) is shifted and scaled, no more
    assert signal[1][300] == pytest.approx((signal[0][300] - signal[0][-1]) * slope, rel=1e-9)


def test_flow_has_zero_terminal_snr_already():
    assert make("flow", zero_terminal_snr=True) == make("flow")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_every_grid_descends_from_the_top_to_zero(name, spacing, steps):
    schedule = make(name)
    grid = levels(schedule, steps, spacing, shift=3.0)
    assert len(grid) == steps + 1 and grid[-1] == 0
    assert all(high > low for high, low in pairwise(grid))
    if spacing != "leading":
        assert grid[0] == pytest.approx(schedule.sigmas[-1])


@pytest.mark.parametrize(
    ("spacing", "offset", "timesteps"),
    [
        ("leading", 0, [750, 500, 250, 0]),
        ("leading", 1, [751, 501, 251, 1]),
        ("linspace", 0, [999, 666, 333, 0]),
        ("trailing", 0, [999, 749, 499, 249]),
    ],
)
def test_timesteps_are_spaced_as_table_2_of_lin_et_al_says(spacing, offset, timesteps):
    assert indices(1000, 4, spacing, offset) == timesteps
    if not offset:
        schedule = make("scaled_linear")
        assert levels(schedule, 4, spacing)[:-1] == [schedule.sigmas[t] for t in timesteps]
        assert levels(make("flow"), 4, spacing)[:-1] == [(t + 1) / 1000 for t in timesteps]


def test_karras_exponential_and_beta_space_sigma_as_they_say():
    schedule = make("scaled_linear")
    karras = [sigma ** (1 / 7) for sigma in levels(schedule, 9, "karras")[:-1]]
    assert [a - b for a, b in pairwise(karras)] == pytest.approx([(karras[0] - karras[-1]) / 8] * 8)
    exponential = levels(schedule, 9, "exponential", sigma_min=0.1, sigma_max=25.6)
    assert exponential[:-1] == pytest.approx([25.6 / 2**i for i in range(9)])
    stats = pytest.importorskip("scipy.stats")
    beta = levels(schedule, 9, "beta", sigma_min=0.0, sigma_max=1.0)
    assert beta[:-1] == pytest.approx([stats.beta.ppf(1 - i / 8, 0.6, 0.6) for i in range(9)], abs=1e-9)


def test_a_shift_multiplies_noise_over_signal():
    plain, moved = (levels(make("flow"), 5, "shifted", shift=shift) for shift in (1.0, 3.0))
    for a, b in zip(plain[1:-1], moved[1:-1], strict=True):
        assert b / (1 - b) == pytest.approx(3 * a / (1 - a))
    assert plain == pytest.approx(levels(make("flow"), 5, "trailing"))


def test_a_small_shift_goes_below_the_lowest_level_of_training_and_repeats_none():
    grid = levels(make("flow"), 50, "shifted", shift=0.01)
    assert grid[-2] == pytest.approx(0.01 * 0.02 / (1 - 0.99 * 0.02))
    assert all(high > low for high, low in pairwise(grid))


@pytest.mark.parametrize("path", [VE, FLOW])
def test_noising_is_closed_form_for_one_level_and_for_one_an_item(path):
    x0, eps = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 2, 4, 4)
    sigmas = [0.0, 0.5, 1.0]
    together = noised(path, x0, torch.tensor(sigmas), eps)
    for i, sigma in enumerate(sigmas):
        assert torch.allclose(together[i], path.alpha(sigma) * x0[i] + sigma)
        assert torch.allclose(noised(path, x0, sigma, eps)[i], together[i])
    assert torch.equal(noised(path, x0, 0.0, eps), x0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make("cubic"), "schedule is 'cubic'; it must be one of linear"),
        (lambda: levels(make("flow"), 5, "even"), "spacing is 'even'; it must be one of leading"),
        (lambda: levels(make("flow"), 0), "num_inference_steps is 0; it must be from 1 to 1000"),
        (lambda: levels(make("flow"), 1001), "num_inference_steps is 1001"),
        (lambda: levels(make("flow"), 5, "shifted", shift=0), "shift is 0; it must be above 0"),
        (lambda: levels(make("flow"), 5, "shifted", shift=math.nan), "shift is nan"),
        (lambda: levels(make("linear"), 50, "shifted", shift=0.01),
         r"50 steps of spacing 'shifted' with shift 0\.01 repeat a level; use fewer steps or a larger shift"),
        (lambda: levels(make("linear", zero_terminal_snr=True), 1000),
         "1000 steps of spacing 'trailing' repeat a level; use fewer steps$"),
    ],
)
def test_what_is_not_allowed_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_beta_quantile_is_symmetric():
    assert schedules._beta_ppf(0.5, 0.6) == pytest.approx(0.5)
    assert schedules._beta_ppf(0.9, 0.6) == pytest.approx(1 - schedules._beta_ppf(0.1, 0.6))
