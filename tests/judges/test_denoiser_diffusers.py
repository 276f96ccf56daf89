"""The denoiser's arithmetic against what diffusers' schedulers do with the same network output."""

import pytest
import torch

from suite.denoiser import Denoiser
from suite.schedules import make
from suite.text import Conditioning

diffusers = pytest.importorskip("diffusers")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
COND = Conditioning(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))


def draws():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_vp_prediction_is_converted_as_dpm_solver_does(prediction):
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", beta_start=0.00085,
                                                      beta_end=0.012, prediction_type=prediction)
    scheduler.set_timesteps(10)
    denoiser = Denoiser(lambda *_: told, make("scaled_linear"), prediction)
    x_vp, told = draws()
    for step in range(10):
        scheduler._step_index = step
        sigma = float(scheduler.sigmas[step])
        wanted = scheduler.convert_model_output(told, sample=x_vp)
        found = denoiser(x_vp * (1 + sigma**2) ** 0.5, sigma, COND)
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_a_flow_prediction_is_converted_as_dpm_solver_does():
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(10)
    x, told = draws()
    for step in range(10):
        scheduler._step_index = step
        found = Denoiser(lambda *_: told, make("flow"), "flow")(x, float(scheduler.sigmas[step]), COND)
        torch.testing.assert_close(found, scheduler.convert_model_output(told, sample=x), **CLOSE)


@pytest.mark.parametrize("sigma", [0.01, 0.7, 40.0])
def test_edm_is_preconditioned_as_edm_euler_does(sigma):
    scheduler = diffusers.EDMEulerScheduler(sigma_data=1.0)
    seen = []

    def network(x, timestep, context, mask):
        seen.append((x, timestep))
        return told

    x, told = draws()
    found = Denoiser(network, make("linear"), "edm")(x, sigma, COND)
    level = torch.tensor(sigma)
    torch.testing.assert_close(found, scheduler.precondition_outputs(x, told, level), **CLOSE)
    torch.testing.assert_close(seen[0][0], scheduler.precondition_inputs(x, level), **CLOSE)
    torch.testing.assert_close(seen[0][1], scheduler.precondition_noise(level).expand(2), **CLOSE)
