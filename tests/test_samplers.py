"""Samplers against answers on paper: Gaussian data, whose clean estimate and flow have closed forms."""

import inspect
import math

import pytest
import torch

from suite import drive
from suite.paths import FLOW, VE, Path
from suite.samplers import SAMPLERS, calls, make
from suite.schedules import levels
from suite.schedules import make as schedule

MEAN, STD = 0.7, 0.5
TOLD = {"ve": [4.0, 2.5, 1.2, 0.6, 0.2, 0.05, 0.0], "flow": [1.0, 0.9, 0.7, 0.4, 0.2, 0.05, 0.0]}


def spread(path: Path, sigma: float) -> float:
    """Standard deviation of x at a level."""
    return math.hypot(path.alpha(sigma) * STD, sigma)


def gaussian(path: Path):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        alpha = path.alpha(sigma)
        return MEAN + alpha * STD**2 / spread(path, sigma) ** 2 * (x - alpha * MEAN)

    return denoise


def uneven_grid(path: Path, steps: int, bottom: float = 0.1) -> list[float]:
    """Long and short steps in turn, which a multistep method must tell apart, and no step to 0."""
    top = 5.0 if path is VE else 0.95
    return [top * (bottom / top) ** ((i + 0.4 * (i % 2)) / steps) for i in range(steps + 1)]


def error(name: str, path: Path, steps: int) -> float:
    grid = uneven_grid(path, steps)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    start = path.alpha(grid[0]) * MEAN + spread(path, grid[0]) * x
    exact = path.alpha(grid[-1]) * MEAN + spread(path, grid[-1]) * x  # the flow keeps every quantile
    eta = 0.0 if "eta" in inspect.signature(SAMPLERS[name]).parameters else None
    found = drive.sample(make(name, start, grid, path=path, noise=torch.zeros_like, eta=eta), gaussian(path))
    return float((found - exact).abs().max())


ORDERS = {
    "euler": 1, "ddim": 1, "ancestral": 1,
    "heun": 2, "dpm2": 2, "dpmpp_2s": 2, "dpmpp_2m": 2, "dpmpp_2m_sde": 2, "dpmpp_sde": 2,
}  # fmt: skip


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_the_error_falls_at_the_sampler_s_order(name, order, path):
    errors = [error(name, path, steps) for steps in (40, 160)]
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
@pytest.mark.parametrize("name", ["lms", "unipc"])
def test_lms_and_unipc_are_of_second_order_or_better_for_their_ends_are_of_a_lower_one(name, path):
    assert error(name, path, 160) / error(name, path, 640) > 4**1.8


def test_lms_integrates_a_cubic_slope_exactly_once_four_are_known():
    grid = [3.0, 2.7, 2.5, 1.9, 1.6, 0.8, 0.1]
    x = torch.zeros(1, dtype=torch.float64)
    seen = [
        step.x.item()
        for step in drive.trace(
            SAMPLERS["lms"](x, grid), lambda x, sigma: x - sigma * (4 * sigma**3 - 2 * sigma)
        )
    ]
    integral = [sigma**4 - sigma**2 for sigma in grid]
    assert seen[1] != pytest.approx(integral[1] - integral[0])
    for i in (3, 4):
        assert seen[i + 1] - seen[i] == pytest.approx(integral[i + 1] - integral[i], rel=1e-12)


SIZE = 1024


def unit(k: int) -> torch.Tensor:
    return torch.zeros(SIZE, dtype=torch.float64).index_fill(0, torch.tensor(k), 1.0)


class Sources:
    """Noise as coordinates: source k is the unit vector k, so a state's variance is its squared length."""

    def __init__(self) -> None:
        self.drawn = 1  # vector 0 is the clean signal, vector 1 the noise at the start

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        self.drawn += 1
        return unit(self.drawn)


def by_source(name: str, path: Path, grid: list[float], eta: float | None = None):
    start = path.alpha(grid[0]) * unit(0) + grid[0] * unit(1)
    return make(name, start, grid, path=path, noise=Sources(), eta=eta)


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
@pytest.mark.parametrize(
    ("name", "eta"),
    [
        *((name, None) for name in SAMPLERS),
        *(
            (name, eta)
            for name in ("ancestral", "ddim", "dpmpp_2m_sde", "dpmpp_sde")
            for eta in (0.0, 0.4, 1.0)
        ),
    ],
)
def test_a_known_signal_is_met_at_its_exact_marginal_in_every_call(name, path, eta):
    """x = alpha x0 + sigma eps at every level, fresh noise included, even from sigma = 1 of the flow on."""
    signal = unit(0)
    asked = []
    trace = drive.trace(by_source(name, path, TOLD[path.name], eta), lambda x, sigma: signal)
    for step in trace:
        asked.append(step.sigma)
        assert step.x[0].item() == pytest.approx(path.alpha(step.sigma), abs=1e-12)
        assert step.x[1:].norm().item() == pytest.approx(step.sigma, rel=1e-12)
        fully = name == "ddpm" or (name != "lcm" and eta == 1.0)
        if fully and len(asked) > 1:  # of the first noise remains what the DDPM posterior leaves
            k = step.sigma * path.alpha(asked[0]) / (asked[0] * path.alpha(step.sigma))
            assert step.x[1].item() == pytest.approx(step.sigma * k, abs=1e-12)
    assert asked == calls(name, TOLD[path.name], path)
    result = drive.sample(by_source(name, path, TOLD[path.name], eta), lambda x, sigma: signal)
    assert (result - signal).abs().max() < 1e-12


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "lcm"])
def test_gaussian_data_is_reached_with_its_own_spread(name, path):
    """Many steps of a linear denoiser: the stochastic ones arrive only if drift and noise belong together."""
    grid = [*uneven_grid(path, 400, 0.01), 0.0]
    grid[0] = 1.0 if path is FLOW else 5.0

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return path.alpha(sigma) * STD**2 / spread(path, sigma) ** 2 * x

    start = spread(path, grid[0]) * unit(1)
    found = drive.sample(make(name, start, grid, path=path, noise=Sources()), denoise)
    assert found.norm().item() == pytest.approx(STD, rel=0.02)


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_first_estimate_and_two_are_an_exact_step_and_an_estimate(name, path):
    top, middle = (4.0, 1.5) if path is VE else (1.0, 0.6)
    denoise, x = gaussian(path), torch.tensor([top * 0.3], dtype=torch.float64)
    noise = torch.full_like
    once = drive.sample(make(name, x, [top, 0.0], path=path, noise=lambda x: noise(x, -0.8)), denoise)
    assert torch.allclose(once, denoise(x, top))

    steps = list(
        drive.trace(make(name, x, [top, middle, 0.0], path=path, noise=lambda x: noise(x, -0.8)), denoise)
    )
    first = denoise(x, top)
    if name in ("ancestral", "ddpm", "dpmpp_2m_sde", "dpmpp_sde"):
        second = steps[1].sigma  # in dpmpp_sde the middle comes before
        k = second * path.alpha(top) / (top * path.alpha(second))
        kept, up = second * k, second * math.sqrt(1 - k * k)
    elif name == "lcm":
        second, kept, up = middle, 0.0, middle
    else:
        second, kept, up = steps[1].sigma, steps[1].sigma, 0.0
    expected = path.alpha(second) * first + kept * (x - path.alpha(top) * first) / top + up * -0.8
    assert torch.allclose(steps[1].x, expected)
    assert [step.sigma for step in steps if step.sigma in (top, middle)][:2] == [top, middle]


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_and_levels_are_called_as_they_are_said_to_be(name, path):
    grid = TOLD[path.name]
    asked = calls(name, grid, path)
    assert asked[0] == grid[0] and set(grid[:-1]) <= set(asked)
    assert len(asked) == 11 if name in ("heun", "dpm2", "dpmpp_sde") else asked == grid[:-1]
    if name in ("dpm2", "dpmpp_sde"):
        assert asked[1] == math.sqrt(grid[0] * grid[1])
    assert calls(name, [0.0], path) == []


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_state_stays_float32_and_finite_at_zero_terminal_snr(name):
    grid = levels(schedule("scaled_linear", zero_terminal_snr=True), 10)
    assert grid[0] == pytest.approx(4096)
    x = grid[0] * torch.linspace(-2, 2, 9)
    found = drive.sample(make(name, x, grid, path=VE, noise=torch.ones_like), gaussian(VE))
    assert found.dtype is torch.float32 and found.isfinite().all() and (found - MEAN).abs().max() < 4 * STD


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_argument_is_left_as_it_was(name):
    x = torch.linspace(-2, 2, 9)
    drive.sample(make(name, x, TOLD["flow"], path=FLOW, noise=torch.ones_like), gaussian(FLOW))
    assert torch.equal(x, torch.linspace(-2, 2, 9))


def test_every_sampler_names_its_paper():
    for name, sampler in SAMPLERS.items():
        assert "arXiv" in sampler.__doc__ or "`ancestral`" in sampler.__doc__, name


def test_what_is_not_allowed_is_refused_in_words():
    x = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="sampler is 'eular'; it must be one of euler, ancestral"):
        make("eular", x, [1.0, 0.0], path=VE)
    with pytest.raises(ValueError, match="sampler 'lcm' is stochastic; it must be given noise"):
        make("lcm", x, [1.0, 0.0], path=VE)
    with pytest.raises(
        ValueError, match=r"eta is 0.5 but sampler 'heun' takes none; leave it out or use ancestral"
    ):
        make("heun", x, [1.0, 0.0], path=VE, eta=0.5)
    make("heun", x, [1.0, 0.0], path=VE, eta=0.0)
