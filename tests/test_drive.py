from itertools import islice

import pytest
import torch

from suite import drive, samplers
from suite.noise import Noise
from suite.paths import FLOW, VE
from suite.schedules import levels, make

GRID = levels(make("scaled_linear"), 6, "karras")


def shrink(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """The exact estimate for unit Gaussian data on the VE path."""
    if isinstance(sigma, torch.Tensor):
        sigma = sigma.view(-1, *[1] * (x.ndim - 1))
    return x / (1 + sigma**2)


def start(seed: int, items: int = 1) -> torch.Tensor:
    return Noise(seed, items)(torch.zeros(items, 2, 3, 3)) * GRID[0]


def test_tracing_shows_each_call_and_ends_where_sampling_does():
    ended = []

    def run():
        ended.append((yield from drive.trace(samplers.heun(start(0), GRID), shrink, steps=11)))

    steps = list(run())
    assert torch.equal(ended[0], drive.sample(samplers.heun(start(0), GRID), shrink))
    assert [step.index for step in steps] == list(range(11)) and {step.steps for step in steps} == {11}
    assert [step.sigma for step in steps] == samplers.calls("heun", GRID, VE)
    assert torch.equal(steps[0].x, start(0)) and torch.equal(steps[0].denoised, shrink(start(0), GRID[0]))


def test_closing_the_trace_cancels_the_run():
    called = []
    trace = drive.trace(samplers.euler(start(0), GRID), lambda x, s: called.append(s) or x)
    list(islice(trace, 2))
    trace.close()
    assert called == GRID[:2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "run", [drive.sample, lambda s, d: list(drive.trace(s, d)), lambda s, d: drive.serve([s], d)]
)
def test_nan_and_infinity_stop_the_run_in_words(run, bad):
    def broken(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.where(torch.arange(x.numel()).view(x.shape) == 3, bad, x)

    with pytest.raises(FloatingPointError, match=r"NaN or infinity at noise level 14\.61; nothing was saved"):
        run(samplers.euler(start(0), GRID), broken)


def test_a_huge_estimate_whose_sum_is_infinite_is_finite_still():
    huge = torch.full((1, 2, 3, 3), 3e38)
    assert drive.sample(samplers.euler(start(0), [1.0, 0.0]), lambda x, s: huge).equal(huge)


def test_a_stop_iteration_from_the_network_does_not_pass_for_the_end():
    def broken(x: torch.Tensor, sigma: float) -> torch.Tensor:
        raise StopIteration(x)

    with pytest.raises(StopIteration):
        drive.sample(samplers.euler(start(0), GRID), broken)
    with pytest.raises(StopIteration):
        drive.serve([samplers.euler(start(0), GRID)], broken)
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(drive.trace(samplers.euler(start(0), GRID), broken))


def test_a_request_served_among_others_gets_what_it_gets_alone():
    """Other samplers, other grids, other batch sizes: each at its own level, in one batch."""
    rows = [(name, 1 + i % 3, 2 + i % 4) for i, name in enumerate(samplers.SAMPLERS)]

    def made() -> list[samplers.Sampler]:
        return [
            samplers.make(
                name,
                start(i, items),
                levels(make("scaled_linear"), steps),
                path=VE,
                noise=Noise(100 + i, items),
            )
            for i, (name, items, steps) in enumerate(rows)
        ]

    batches = []

    def batched(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == (len(x),)
        batches.append(len(x))
        return shrink(x, sigma)

    served = drive.serve(made(), batched)
    for got, alone in zip(served, [drive.sample(sampler, shrink) for sampler in made()], strict=True):
        assert torch.allclose(got, alone, rtol=1e-5, atol=1e-6)
    longest = max(
        len(samplers.calls(name, levels(make("scaled_linear"), steps), VE)) for name, _, steps in rows
    )
    assert batches == [sum(items for _, items, _ in rows)] * longest  # rows stay in step with their prompts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_an_estimate_in_another_precision_leaves_the_state_float32(name, dtype):
    def runs(denoise):
        served, sampled, traced = (
            samplers.make(name, start(0), GRID, path=VE, noise=Noise(1, 1)) for _ in range(3)
        )
        (first,), second = drive.serve([served], denoise), drive.sample(sampled, denoise)
        return first, second, list(drive.trace(traced, denoise))[-1].denoised

    def coarse(x, sigma):
        return shrink(x, sigma).to(dtype)

    for found, wanted in zip(runs(coarse), runs(lambda x, sigma: coarse(x, sigma).float()), strict=True):
        assert found.dtype is torch.float32 and torch.equal(found, wanted)


def test_serving_nobody_and_serving_the_finished_calls_no_network():
    assert drive.serve([], shrink) == []
    x = start(0)
    assert drive.serve([samplers.euler(x, [0.0])], shrink)[0] is x


def test_the_whole_loop_is_one_graph():
    """No numpy, no .item(), no context manager in a sampler: torch.compile sees straight through."""
    grid = levels(make("flow"), 3, "shifted")

    def loop(x: torch.Tensor) -> torch.Tensor:
        return drive.sample(samplers.dpmpp_2m(x, grid, alpha=FLOW.alpha), lambda x, s: x * 0.5)

    compiled = torch.compile(loop, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(start(0)), loop(start(0)))
