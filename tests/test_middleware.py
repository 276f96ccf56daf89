import pytest
import torch

from suite import drive, samplers
from suite.middleware import keep, seamless, start_at
from suite.noise import Noise
from suite.paths import FLOW, VE
from suite.schedules import levels, make, noised

GRIDS = {
    "ve": levels(make("scaled_linear"), 8, "karras"),
    "flow": levels(make("flow"), 8, "shifted", shift=2.0),
}


def blur(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """A denoiser that mixes neighbours around the torus, so it commutes with circular shifts."""
    return (x + x.roll(1, -1) + x.roll(1, -2)) / (3 + sigma**2)


@pytest.mark.parametrize(("strength", "kept"), [(1.0, 10), (0.75, 7), (0.3, 3), (0.1, 1)])
def test_a_run_starts_where_diffusers_starts_it(strength, kept):
    grid = levels(make("flow"), 10)
    assert start_at(grid, strength) == grid[10 - kept :]


@pytest.mark.parametrize(
    ("strength", "words"),
    [(0.05, "leaves none of 10 steps; it must be at least 0.1"), (0, "above 0"), (1.5, "at most 1")],
)
def test_a_strength_that_leaves_no_step_is_refused_in_words(strength, words):
    with pytest.raises(ValueError, match=words):
        start_at(levels(make("flow"), 10), strength)


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 999, 1000])
def test_the_strength_that_a_refusal_names_leaves_one_step(steps):
    grid = levels(make("flow"), steps)
    with pytest.raises(ValueError, match="at least") as told:
        start_at(grid, 1e-5)
    assert len(start_at(grid, float(str(told.value).split()[-1]))) == 2


def test_a_share_that_is_a_whole_number_of_steps_keeps_them_all():
    """Not as in diffusers, whose int(100 * 0.29) is 28, for 0.29 is a little less in binary."""
    assert len(start_at(levels(make("flow"), 100), 0.29)) - 1 == 29


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
def test_what_the_mask_keeps_is_the_original_at_the_end_and_noised_before(name, path):
    original = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    grid, noise = GRIDS[path.name], Noise(0, 2)
    eps = noise(original)
    sampler = samplers.make(name, noised(path, original, grid[0], eps), grid, path=path, noise=lambda x: eps)
    fixed = samplers.SAMPLERS[name] in (samplers.euler, samplers.heun, samplers.dpmpp_2m, samplers.unipc)
    for step in (steps := drive.trace(keep(sampler, original, mask), blur)):
        if fixed:
            known = noised(path, original, step.sigma, eps)[..., :2]
            assert torch.allclose(step.x[..., :2], known, atol=1e-5 * grid[0])
    del steps
    again = samplers.make(name, noised(path, original, grid[0], eps), grid, path=path, noise=Noise(1, 2))
    result = drive.sample(keep(again, original, mask), blur)
    assert torch.allclose(result[..., :2], original[..., :2], atol=1e-5)
    assert (result[..., 2:] - original[..., 2:]).abs().min() > 1e-3


def test_a_soft_mask_mixes():
    original, half = torch.full((1, 1, 2, 2), 4.0), torch.full((1, 1, 2, 2), 0.5)
    result = drive.sample(
        keep(samplers.euler(torch.ones(1, 1, 2, 2), [1.0, 0.0]), original, half), lambda x, s: 0 * x
    )
    assert torch.equal(result, torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_a_denoiser_that_knows_no_place_gives_the_same_with_and_without_shifts(name):
    x = Noise(0, 2)(torch.zeros(2, 3, 5, 7)) * GRIDS["ve"][0]
    plain, shifted = (samplers.make(name, x, GRIDS["ve"], path=VE, noise=Noise(1, 2)) for _ in range(2))
    expected = drive.sample(plain, blur)
    assert torch.allclose(drive.sample(seamless(shifted, (-2, -1)), blur), expected, atol=1e-5)


def test_the_seam_wanders_on_both_sides_of_the_edge_and_not_into_the_middle():
    marked = torch.arange(64.0).expand(1, 1, 64)
    seams = set()
    for step in drive.trace(seamless(samplers.euler(marked, GRIDS["ve"]), (-1,)), lambda x, s: x):
        seams.add((int(step.x[0, 0, 0]) + 32) % 64 - 32)
    assert len(seams) >= 6
    assert -4 <= min(seams) < 0 < max(seams) <= 4


def test_no_level_left_returns_the_start():
    x = torch.ones(1, 1, 2)
    for wrapped in (keep(samplers.euler(x, [0.0]), x, x), seamless(samplers.euler(x, [0.0]), (-1,))):
        assert drive.sample(wrapped, blur) is x
