"""Our scheduler inside tiny diffusers pipelines of random weights, against the pipelines' own schedulers."""

import pytest
import torch

from suite import samplers
from suite.compat import SamplerScheduler
from suite.paths import FLOW
from suite.schedules import levels, make

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STABLE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


@pytest.fixture(scope="module")
def flux(stable):
    """A tiny Flux pipeline."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        t5 = transformers.T5EncoderModel(
            transformers.T5Config(vocab_size=60, d_model=8, d_ff=16, d_kv=4, num_layers=1, num_heads=2)
        ).eval()
        transformer = diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
        ).eval()  # fmt: skip
        vae = diffusers.AutoencoderKL.from_config({**stable["vae"].config, "latent_channels": 1}).eval()
        pipe = diffusers.FluxPipeline(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae, transformer=transformer,
            text_encoder=stable["text_encoder"], tokenizer=stable["tokenizer"], text_encoder_2=t5,
            tokenizer_2=stable["tokenizer"],
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        return pipe


def run(pipe, scheduler, steps: int = 4, **told) -> torch.Tensor:
    pipe.scheduler = scheduler
    told = {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(3), **told}
    return pipe("a red cube", output_type="latent", **told).images


def both(pipe, scheduler, **told) -> tuple[torch.Tensor, torch.Tensor]:
    return run(pipe, SamplerScheduler.replacing(scheduler), **told), run(pipe, scheduler, **told)


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


THEIRS = {
    "euler": diffusers.EulerDiscreteScheduler(**STABLE, timestep_spacing="leading"),
    "ancestral": diffusers.EulerAncestralDiscreteScheduler(**STABLE),
    "ddim": diffusers.DDIMScheduler(**STABLE, clip_sample=False, set_alpha_to_one=False),
    "heun": diffusers.HeunDiscreteScheduler(**STABLE),
    "dpm2": diffusers.KDPM2DiscreteScheduler(**STABLE),
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler(**STABLE, use_karras_sigmas=True),
    "unipc": diffusers.UniPCMultistepScheduler(**STABLE),
}


@pytest.mark.parametrize("name", [*THEIRS, "lms", "lcm"])
def test_stable_diffusion_gives_the_same_latents(stable, name):
    more = {"lms": diffusers.LMSDiscreteScheduler(**STABLE), "lcm": diffusers.LCMScheduler(**STABLE)}
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=THEIRS["ddim"])
    pipe.set_progress_bar_config(disable=True)
    told = {"eta": 0.5} if name == "ddim" else {}
    assert relative(*both(pipe, {**THEIRS, **more}[name], height=16, width=16, **told)) < 1e-5


@pytest.mark.parametrize("name", THEIRS)
def test_image_to_image_gives_the_same_latents(stable, name):
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**stable, scheduler=THEIRS["ddim"])
    pipe.set_progress_bar_config(disable=True)
    image = torch.linspace(0, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    assert relative(*both(pipe, THEIRS[name], image=image, strength=0.6, steps=5)) < 1e-5


@pytest.mark.parametrize(
    ("name", "strength"),
    [*((name, 0.6) for name in THEIRS if name != "dpm2"), ("euler", 1.0), ("heun", 1.0), ("ddim", 1.0)],
)  # diffusers' KDPM2 noises what it keeps to the level after the midpoint, where the midpoint is due
def test_inpainting_gives_the_same_latents_though_it_edits_them_between_steps(stable, name, strength):
    pipe = diffusers.StableDiffusionInpaintPipeline(**stable, scheduler=THEIRS["ddim"])
    pipe.set_progress_bar_config(disable=True)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    image = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    told = {"image": image, "mask_image": mask, "height": 16, "width": 16, "strength": strength, "steps": 5}
    ours, reference = both(pipe, THEIRS[name], **told)
    assert relative(ours, reference) < 1e-5


@pytest.mark.parametrize(
    "told", [{"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_karras_sigmas": True}], ids=str
)
def test_flux_gives_the_same_latents(flux, told):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**told)
    assert relative(*both(flux, scheduler, height=16, width=16, guidance_scale=1.0)) < 1e-5


def test_flux_runs_heun_which_diffusers_own_refuses_there(flux):
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    with pytest.raises(ValueError, match="does not support custom"):
        run(flux, scheduler, height=16, width=16)
    ours = SamplerScheduler.replacing(scheduler)
    assert run(flux, ours, height=16, width=16).isfinite().all()
    assert len(ours.timesteps) == 7 and ours.order == scheduler.order == 2


def test_another_sampler_and_another_spacing_can_be_chosen(stable, flux):
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=THEIRS["ddim"])
    pipe.set_progress_bar_config(disable=True)
    chosen = SamplerScheduler.replacing(THEIRS["ddim"], sampler="dpmpp_2m", spacing="karras")
    reference = diffusers.DPMSolverMultistepScheduler(**STABLE, use_karras_sigmas=True)
    reference.set_timesteps(5)
    chosen.set_timesteps(5)
    assert torch.allclose(chosen.sigmas, reference.sigmas)
    for name in samplers.SAMPLERS:
        ours = SamplerScheduler.replacing(THEIRS["ddim"], sampler=name, spacing="trailing")
        assert run(pipe, ours, steps=2, height=16, width=16).isfinite().all()

    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    shifted = SamplerScheduler.replacing(own, spacing="shifted")
    run(flux, shifted, height=16, width=16)
    assert shifted.levels == pytest.approx(levels(make("flow"), 4, "shifted", shift=3.0))


def test_custom_sigmas_and_timesteps_are_taken(stable):
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=THEIRS["ddim"])
    pipe.set_progress_bar_config(disable=True)
    scheduler = diffusers.EulerDiscreteScheduler(**STABLE)
    for told in ({"sigmas": [12.0, 5.0, 1.0, 0.2, 0.0]}, {"timesteps": [981, 601, 301, 21]}):
        assert relative(*both(pipe, scheduler, height=16, width=16, **told)) < 1e-5
    ours = SamplerScheduler.replacing(scheduler)
    with pytest.raises(ValueError, match="one of num_inference_steps, timesteps and sigmas"):
        ours.set_timesteps(5, sigmas=[1.0, 0.0])
    with pytest.raises(ValueError, match="one of num_inference_steps, timesteps and sigmas"):
        ours.set_timesteps()


def test_it_is_made_of_our_parts_too(stable):
    ours = SamplerScheduler(make("scaled_linear"), "epsilon", "unipc", "trailing")
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=ours)
    pipe.set_progress_bar_config(disable=True)
    reference = diffusers.UniPCMultistepScheduler(**STABLE, timestep_spacing="trailing")
    assert relative(run(pipe, ours, height=16, width=16), run(pipe, reference, height=16, width=16)) < 1e-3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_state_stays_float32_under_latents_of_bfloat16(mode):
    """Sixty steps round once at the end, not sixty times."""
    ours = SamplerScheduler(make("flow"), "flow")

    def loop(dtype: torch.dtype) -> torch.Tensor:
        ours.set_timesteps(60)
        x = torch.linspace(-2, 2, 64, dtype=dtype).view(1, 1, 8, 8)
        for t in ours.timesteps:
            x = ours.step(x.to(dtype), t, x).prev_sample
        return x.float()

    with mode():
        exact, coarse = loop(torch.float32), loop(torch.bfloat16)
    assert relative(coarse, exact) < 0.01


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_edits_in_place_are_seen_and_whole_steps_without_edits_lose_nothing(mode):
    ours = SamplerScheduler(make("flow"), "flow")
    for edit in (lambda x: x, lambda x: x.zero_(), lambda x: torch.zeros_like(x)):
        with mode():
            ours.set_timesteps(2)
            x = torch.ones(1, 1, 2, 2)
            x = ours.step(torch.zeros_like(x), ours.timesteps[0], x).prev_sample
            edited = edit(x)
            expected = edited.clone()
            x = ours.step(torch.zeros_like(x), ours.timesteps[1], edited).prev_sample
            assert torch.allclose(x, expected)


def test_an_adaptive_sampler_is_refused_in_words():
    def adaptive(x, sigmas):
        sigma = 1.0
        while sigma > 0.1:
            denoised = yield x, sigma
            sigma *= 0.5 if float(denoised.abs().max()) > 0.5 else 0.25
        return x

    with pytest.raises(ValueError, match="no adaptive sampler can run in it"):
        SamplerScheduler(make("flow"), "flow", adaptive)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (diffusers.PNDMScheduler(), "PNDMScheduler has no counterpart"),
        (diffusers.DPMSolverMultistepScheduler(solver_order=3), "solver_order=3; ours offer 2"),
        (diffusers.DDIMScheduler(thresholding=True), "thresholding=True; ours offer False"),
    ],
)
def test_what_has_no_counterpart_is_refused_in_words(scheduler, words):
    with pytest.raises(ValueError, match=words):
        SamplerScheduler.replacing(scheduler)


def test_a_scheduler_without_counterpart_lends_its_levels_to_a_sampler_that_is_named(stable):
    pipe = diffusers.StableDiffusionPipeline(**stable, scheduler=THEIRS["ddim"])
    pipe.set_progress_bar_config(disable=True)
    ours = SamplerScheduler.replacing(
        diffusers.PNDMScheduler(**STABLE, skip_prk_steps=True), sampler="dpmpp_2m"
    )
    assert run(pipe, ours, height=16, width=16).isfinite().all()
    assert ours.schedule.path is not FLOW
