"""Our samplers against the diffusers scheduler of the same method, in float32, to 1e-5 relative.

The same smooth network answers both, and both are driven the way diffusers' pipelines drive a scheduler.

Where diffusers 0.42 differs, a test below shows it: its LMS takes an order that its history does not have
when a run starts part-way; its DDIM leaves the grid where the steps do not divide the training steps; its
Euler loses digits at zero terminal SNR. LCM mixes the noisy input into the estimate: that is part of what
such a network is, so it is done in `compat`, not in the sampler. DPMSolverSinglestep pairs its steps from the
start of the whole grid, ours from where the run starts, so the two are compared on whole runs.
"""

from __future__ import annotations

import math

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from suite import drive, samplers  # noqa: E402
from suite.compat import SamplerScheduler  # noqa: E402
from suite.denoiser import Denoiser  # noqa: E402
from suite.paths import FLOW, VE  # noqa: E402
from suite.schedules import Schedule  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STEPS = (5, 10, 25, 50)
VP = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ALL = ("epsilon", "v_prediction", "sample")
TWO = ("epsilon", "v_prediction")  # where diffusers says "not implemented yet: sample"
TARGET = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(5))


def network(x: torch.Tensor, timestep: float) -> torch.Tensor:
    """A smooth function of order 1, of the network's input and its timestep."""
    return torch.tanh(0.7 * x + 0.5 * TARGET) + 0.3 * math.cos(timestep / 300)


def unit_noise() -> torch.Tensor:
    return torch.randn(TARGET.shape, generator=torch.Generator().manual_seed(0))


def theirs(scheduler, steps: int, begin: int = 0, x: torch.Tensor | None = None, **told) -> torch.Tensor:
    """Runs a scheduler the way its pipelines do."""
    scheduler.set_timesteps(steps)
    x = unit_noise() * float(getattr(scheduler, "init_noise_sigma", 1.0)) if x is None else x
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    for t in scheduler.timesteps[begin:]:
        shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(shown, float(t)), t, x, return_dict=False, **told)[0]
    return x


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


FLOW_SIGMAS = {"use_flow_sigmas": True, "flow_shift": 2.0}
CASES = {
    "euler": (diffusers.EulerDiscreteScheduler, {}, ALL),
    "euler, karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}, ALL),
    "euler, exponential": (diffusers.EulerDiscreteScheduler, {"use_exponential_sigmas": True}, ALL),
    "euler, beta": (diffusers.EulerDiscreteScheduler, {"use_beta_sigmas": True}, ALL),
    "euler, leading": (
        diffusers.EulerDiscreteScheduler,
        {"timestep_spacing": "leading", "steps_offset": 1},
        ALL,
    ),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "steps_offset": 1}, ALL),
    "ddim, not to one": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}, ALL),
    "ddim, zero SNR": (
        diffusers.DDIMScheduler,
        {"clip_sample": False, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        ("v_prediction", "sample"),  # eps says nothing of the clean signal where there is none
    ),
    "heun": (diffusers.HeunDiscreteScheduler, {}, ALL),
    "heun, karras": (diffusers.HeunDiscreteScheduler, {"use_karras_sigmas": True}, ALL),
    "dpm2": (diffusers.KDPM2DiscreteScheduler, {}, TWO),
    "dpmpp_2s": (diffusers.DPMSolverSinglestepScheduler, {}, ALL),
    "dpmpp_2s, karras": (diffusers.DPMSolverSinglestepScheduler, {"use_karras_sigmas": True}, ALL),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}, ALL),
    "dpmpp_2m, karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, ALL),
    "dpmpp_2m, leading": (diffusers.DPMSolverMultistepScheduler, {"timestep_spacing": "leading"}, ALL),
    "dpmpp_2m, order 1": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 1}, ALL),
    "lms": (diffusers.LMSDiscreteScheduler, {}, ALL),
    "lms, karras": (diffusers.LMSDiscreteScheduler, {"use_karras_sigmas": True}, ALL),
    "unipc": (diffusers.UniPCMultistepScheduler, {}, ALL),
    "unipc, trailing": (diffusers.UniPCMultistepScheduler, {"timestep_spacing": "trailing"}, ALL),
    "flow euler": (diffusers.FlowMatchEulerDiscreteScheduler, {"shift": 3.0}, ("flow",)),
    "flow euler, karras": (diffusers.FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True}, ("flow",)),
    "flow heun": (diffusers.FlowMatchHeunDiscreteScheduler, {"shift": 3.0}, ("flow",)),
    "flow dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, FLOW_SIGMAS, ("flow_prediction",)),
    "flow dpmpp_2s": (diffusers.DPMSolverSinglestepScheduler, FLOW_SIGMAS, ("flow_prediction",)),
    "flow unipc": (diffusers.UniPCMultistepScheduler, FLOW_SIGMAS, ("flow_prediction",)),
    "ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}, TWO),
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}, ALL),
    "dpmpp_2m_sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, ALL),
    "lcm": (diffusers.LCMScheduler, {}, ALL),
    "flow lcm": (diffusers.FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}, ("flow",)),
}
ROWS = [(case, prediction) for case, (_, _, predictions) in CASES.items() for prediction in predictions]


def build(case: str, prediction: str):
    kind, told, _ = CASES[case]
    if prediction == "flow":
        return kind(**told)
    return kind(**VP, **told, prediction_type=prediction)


def generator(case: str) -> dict[str, torch.Generator]:
    stochastic = any(word in case for word in ("ancestral", "ddpm", "sde", "lcm"))
    return {"generator": torch.Generator().manual_seed(1)} if stochastic else {}


@pytest.mark.parametrize(("case", "prediction"), ROWS)
def test_the_scheduler_that_replaces_another_gives_its_levels_and_its_result(case, prediction):
    scheduler = build(case, prediction)
    ours = SamplerScheduler.replacing(scheduler)
    for steps in STEPS:
        reference = theirs(scheduler, steps, **generator(case))
        assert relative(theirs(ours, steps, **generator(case)), reference) < 1e-5
        assert ours.timesteps.numpy() == pytest.approx(scheduler.timesteps.numpy(), abs=1e-3)
        if hasattr(scheduler, "sigmas") and len(scheduler.sigmas) == steps + 1:  # some repeat theirs
            assert ours.sigmas.numpy() == pytest.approx(scheduler.sigmas.numpy(), rel=1e-6)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_euler_at_zero_terminal_snr_is_nearer_to_float64_than_diffusers(prediction):
    """Sigma is 4096 there: diffusers' x + dt (x - denoised) / sigma cancels, ours does not."""
    told = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": prediction}
    scheduler = diffusers.EulerDiscreteScheduler(**VP, **told)
    ours = SamplerScheduler.replacing(scheduler)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        scale, skip, out, timestep = ours.denoiser.coefficients(sigma)
        return skip * x + out * network(scale * x, timestep)

    for steps in STEPS:
        reference, result = theirs(scheduler, steps), theirs(ours, steps)
        exact = drive.sample(samplers.euler(unit_noise().double() * ours.levels[0], ours.levels), denoise)
        assert relative(reference, exact) < 3e-5
        assert relative(result, exact) < min(2e-6, relative(reference, exact))


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("steps", STEPS)
def test_ddim_takes_the_eta_that_a_pipeline_passes(steps, eta):
    scheduler = diffusers.DDIMScheduler(**VP, clip_sample=False, steps_offset=1)
    results = [
        theirs(s, steps, eta=eta, generator=torch.Generator().manual_seed(1))
        for s in (scheduler, SamplerScheduler.replacing(scheduler))
    ]
    assert relative(results[1], results[0]) < 1e-5


class Brownian:
    """Unit increments of one Brownian motion in sigma, drawn in the order in which `dpmpp_sde` draws them."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.start, self.middle, self.first = 0.0, 0.0, torch.zeros(0)

    def __call__(self, sigma: float, sigma_next: float) -> torch.Tensor:
        drawn = torch.randn(TARGET.shape, generator=self.generator)
        if float(sigma) != self.start:  # a new step asks for its middle first
            self.start, self.middle, self.first = float(sigma), float(sigma_next), drawn
            return drawn
        to_middle, to_end = self.start - self.middle, self.middle - float(sigma_next)
        whole = math.sqrt(to_middle) * self.first + math.sqrt(to_end) * drawn
        return whole / math.sqrt(to_middle + to_end)


@pytest.mark.parametrize("prediction", TWO)
@pytest.mark.parametrize("steps", STEPS)
def test_dpmpp_sde_agrees_on_the_same_brownian_motion(steps, prediction):
    """diffusers takes it from torchsde; here both take the increments that ours draws."""
    scheduler = diffusers.DPMSolverSDEScheduler(**VP, prediction_type=prediction)
    ours = SamplerScheduler.replacing(scheduler)
    result = theirs(ours, steps, generator=torch.Generator().manual_seed(3))
    scheduler.set_timesteps(steps)
    x, scheduler.noise_sampler = unit_noise() * float(scheduler.init_noise_sigma), Brownian()
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), float(t)), t, x, return_dict=False)[0]
    assert relative(result, x) < 1e-5


APART = ("lms", "dpmpp_2s", "flow", "lcm")  # lms is below; flow pipelines scale their noise themselves


@pytest.mark.parametrize("case", [case for case in CASES if not any(word in case for word in APART)])
def test_a_run_that_starts_part_way_agrees(case):
    prediction = CASES[case][2][-1]
    scheduler, steps = build(case, prediction), 10
    ours = SamplerScheduler.replacing(scheduler)
    begin = 4 * ours.order
    results = []
    for s in (scheduler, ours):
        s.set_timesteps(steps)
        if hasattr(s, "set_begin_index"):
            s.set_begin_index(begin)
        x = s.add_noise(TARGET, unit_noise(), s.timesteps[begin : begin + 1].repeat(2))
        results.append((x, theirs(s, steps, begin, x, **generator(case))))
    assert relative(results[1][0], results[0][0]) < 1e-6
    assert relative(results[1][1], results[0][1]) < 1e-5


def test_diffusers_lms_is_wrong_part_way_and_ours_is_not():
    """diffusers takes the order from the index in the whole grid, though only one slope is known at the
    start.

    Started part-way, a run knows no more than one on the rest of the grid: there diffusers agrees with ours.
    """
    scheduler = diffusers.LMSDiscreteScheduler(**VP)
    ours, steps, begin = SamplerScheduler.replacing(scheduler), 10, 4
    scheduler.set_timesteps(steps)
    x = TARGET + unit_noise() * scheduler.sigmas[begin]
    result, reference = theirs(ours, steps, begin, x), theirs(scheduler, steps, begin, x)
    assert relative(reference, result) > 0.01

    scheduler.set_timesteps(steps)
    scheduler.sigmas, scheduler.timesteps = scheduler.sigmas[begin:], scheduler.timesteps[begin:]
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), float(t)), t, x, return_dict=False)[0]
    assert relative(result, x) < 1e-5


def test_diffusers_ddim_leaves_the_grid_where_the_steps_do_not_divide():
    """It steps down by N // steps training steps, wherever its next timestep lies; ours goes to that one."""
    scheduler = diffusers.DDIMScheduler(**VP, clip_sample=False, timestep_spacing="linspace")
    scheduler.set_timesteps(7)
    strides = -scheduler.timesteps.diff()
    assert set(strides.tolist()) == {166, 167} and 1000 // 7 == 142
    assert relative(theirs(SamplerScheduler.replacing(scheduler), 7), theirs(scheduler, 7)) > 0.01


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", STEPS)
def test_unipc_agrees_in_every_order(steps, order):
    scheduler = diffusers.UniPCMultistepScheduler(**VP, solver_order=order, prediction_type="sample")
    reference = theirs(scheduler, steps)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return network(x / math.hypot(sigma, 1), schedule.timestep(sigma))

    ours = SamplerScheduler.replacing(scheduler, sampler="unipc")
    ours.set_timesteps(steps)
    schedule, grid = ours.schedule, ours.levels
    x = unit_noise() * math.hypot(grid[0], 1)
    assert (
        relative(drive.sample(samplers.unipc(x, grid, alpha=VE.alpha, order=order), denoise), reference)
        < 1e-5
    )


def test_the_sampler_inside_the_scheduler_is_the_sampler():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    reference = theirs(scheduler, 10)
    grid = scheduler.sigmas.tolist()
    denoiser = Denoiser(lambda x, *_: x, Schedule("flow", FLOW, (0.001, 1.0)), "flow")

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        _, skip, out, _ = denoiser.coefficients(sigma)
        return skip * x + out * network(x, 1000 * sigma)

    assert relative(drive.sample(samplers.euler(unit_noise(), grid), denoise), reference) < 1e-6
