"""Our samplers inside diffusers pipelines.

`pipe.scheduler = SamplerScheduler.replacing(pipe.scheduler)` lands on the same levels with the same method,
run by our sampler; `sampler=` and `spacing=` choose another. diffusers is imported when one is made, not
before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suite.denoiser import Denoiser
from suite.drive import advance
from suite.paths import FLOW, VE
from suite.samplers import Sampler, dry_run, make
from suite.schedules import Schedule, indices, levels, shifted
from suite.schedules import flow as flow_schedule

Grid = Callable[[int, float | None], tuple[list[float], list[float] | None]]
Custom = Callable[[Tensor, Sequence[float]], Sampler]

_METHODS = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "ancestral",
    "HeunDiscreteScheduler": "heun",
    "KDPM2DiscreteScheduler": "dpm2",
    "LMSDiscreteScheduler": "lms",
    "DPMSolverSDEScheduler": "dpmpp_sde",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "DPMSolverSinglestepScheduler": "dpmpp_2s",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
}
_CURVED = ("karras", "exponential", "beta")
_DDPM = ("DDIMScheduler", "DDPMScheduler")
_DPM = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")
_OFFERED: dict[str, tuple[Any, ...]] = {  # other values of these settings have no counterpart here
    "solver_order": (2, 1),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "solver_type": ("midpoint", "bh2"),
    "predict_x0": (True,),
    "variance_type": ("fixed_small", None),
    "thresholding": (False,),
    "use_lu_lambdas": (False, None),
    "lambda_min_clipped": (-math.inf,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "invert_sigmas": (False,),
}


class Stepped(NamedTuple):
    """What a step gives, by name or, as pipelines take it, by place."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class SamplerScheduler:
    """A scheduler for diffusers pipelines that runs one of our samplers.

    The pipeline calls the network; the sampler, a coroutine, waits between two `step`s. Its state stays
    float32, and what the pipeline edits in the latents between two steps is copied back into it.

    Attributes:
        timesteps: (calls,) float32, one for each call of the network, known by a dry run of the sampler.
        sigmas: (steps + 1,) float32, the grid.
        order: calls a step.
        config: settings of the scheduler it replaces.
    """

    def __init__(
        self,
        schedule: Schedule,
        prediction: str = "epsilon",
        sampler: str | Custom = "euler",
        spacing: str = "trailing",
        *,
        shift: float = 1.0,
        unit_variance: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes a scheduler from our parts; `replacing` makes one from a diffusers scheduler.

        Args:
            schedule: what the network was trained on.
            prediction: one of denoiser.PREDICTIONS.
            sampler: one of samplers.SAMPLERS, or a function (x, sigmas) -> Sampler.
            spacing: one of schedules.SPACINGS.
            shift: for spacing "shifted".
            unit_variance: on the VE path, whether the pipeline's latents are x / sqrt(1 + sigma^2) (as with
                diffusers' DDIM) or x itself (as with its Euler).
            config: settings that the pipeline may ask for.
        """
        from diffusers.configuration_utils import FrozenDict

        self.schedule, self.sampler, self.unit_variance = schedule, sampler, unit_variance
        self.denoiser = Denoiser(lambda x, *_: x, schedule, prediction)
        self.config = FrozenDict(config or {})
        self._grid: Grid = lambda steps, mu: (
            levels(schedule, steps, spacing, shift=shift if mu is None else mu),
            None,
        )
        self._boundary = 0.0
        self._own_spacing = True
        self.order = len(self._asked([0.9, 0.5, 0.0])) - len(self._asked([0.5, 0.0]))
        self.set_timesteps(10)

    @classmethod
    def replacing(
        cls, scheduler: Any, sampler: str | Custom | None = None, spacing: str | None = None
    ) -> SamplerScheduler:
        """Makes the scheduler that does what another one does.

        Args:
            scheduler: of diffusers.
            sampler: another method than its own.
            spacing: another grid than its own.

        Raises:
            ValueError: its method has no counterpart here and no sampler was named.
        """
        config, kind = scheduler.config, type(scheduler).__name__
        for key, offered in _OFFERED.items():
            value = config.get(key, offered[0])
            if value not in offered and (sampler is None or key in ("thresholding", "timestep_type")):
                raise ValueError(f"{kind} has {key}={value!r}; ours offer {offered[0]!r} (choose sampler=)")
        if sampler is None and kind not in _METHODS:
            raise ValueError(f"{kind} has no counterpart among our samplers; choose one with sampler=")
        method = sampler or _METHODS[kind]
        if sampler is None and kind in _DPM and config.get("solver_order") == 1:
            method = "euler"
        elif sampler is None and config.get("algorithm_type") == "sde-dpmsolver++":
            method = "dpmpp_2m_sde"
        elif sampler is None and config.get("stochastic_sampling"):
            method = "lcm"

        on_flow = kind.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))
        curved = any(config.get(f"use_{name}_sigmas") for name in _CURVED)
        if on_flow and curved and kind in _DPM and spacing is None:
            raise ValueError(
                f"{kind} mixes flow sigmas with another spacing, which ours does not; choose spacing="
            )
        prediction = "flow" if on_flow else config.get("prediction_type", "epsilon")
        if on_flow and config.get("prediction_type", "flow_prediction") != "flow_prediction":
            prediction = config["prediction_type"]
        schedule = trained_on(scheduler, on_flow)
        new = cls(
            schedule,
            prediction,
            method,
            spacing or "trailing",
            shift=config.get("flow_shift", config.get("shift")) or 1.0,
            unit_variance=not hasattr(scheduler, "init_noise_sigma") or scheduler.init_noise_sigma == 1.0,
            config=config,
        )
        if spacing is None:
            new._own_spacing = False
            new._grid = _flow_grid(scheduler) if on_flow else _grid(scheduler, schedule)
        if kind == "LCMScheduler":
            new._boundary = float(config["timestep_scaling"])
        new.set_timesteps(10)
        return new

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Sets the grid and starts afresh.

        Args:
            num_inference_steps: steps of the grid.
            device: of the timesteps.
            timesteps: own training timesteps instead.
            sigmas: own levels instead, with or without the final 0; on the flow path they are shifted as the
                configuration says.
            mu: logarithm of the shift, where the configuration says it depends on the resolution.

        Raises:
            ValueError: more or less than one of steps, timesteps and sigmas.
        """
        own = [float(s) for s in sigmas] if sigmas is not None else None
        if own is not None and self._own_spacing and _is_even(own):
            num_inference_steps = len(own)  # what Flux always sends gives way to the spacing that was chosen
            own = None
        elif own is not None and timesteps is None and num_inference_steps in (None, len(own)):
            num_inference_steps = None
        if [num_inference_steps, timesteps, own].count(None) != 2:
            raise ValueError("set_timesteps takes one of num_inference_steps, timesteps and sigmas")
        shift: float | None = None  # Flux sends mu even where the configuration does not ask for it
        if mu is not None and self.config.get("use_dynamic_shifting"):
            shift = mu if self.config.get("time_shift_type") == "linear" else math.exp(mu)
        times: list[float] | None = None
        if num_inference_steps is not None:
            grid, times = self._grid(num_inference_steps, shift)
        elif timesteps is not None:
            times = [float(t) for t in timesteps]
            grid = [*(_linear(self.schedule, t) for t in times), 0.0]
        else:
            assert own is not None
            own = own[:-1] if own[-1] == 0 else own
            if self.schedule.path is FLOW:
                own = _flow_shift(own, self.config, shift)
                own = _between(self.schedule, self.config, len(own), own[-1], own[0]) or own
            grid = [*own, 0.0]
        self.levels, self.num_inference_steps = grid, len(grid) - 1
        asked = self._asked(grid)
        known = dict(zip(grid, times, strict=False)) if times is not None else {}
        told = [known.get(sigma, self.schedule.timestep(sigma)) for sigma in asked]
        self._levels_asked, self._times = asked, told
        self.timesteps = torch.tensor(told, dtype=torch.float32, device=device)
        self.sigmas = torch.tensor(grid, dtype=torch.float32)
        self._index: int | None = None
        self._begin: int | None = None
        self._running: Sampler | None = None
        self._generator: Any = None
        self._dtype = torch.float32

    @property
    def init_noise_sigma(self) -> float:
        """By how much pipelines scale their initial unit noise."""
        if self.unit_variance or self.schedule.path is FLOW:
            return 1.0
        reaches_top = self.config.get("timestep_spacing", "linspace") != "leading" or self._own_spacing
        return self.levels[0] if reaches_top else math.hypot(self.levels[0], 1.0)

    @property
    def step_index(self) -> int | None:
        """Number of the next call, None before the first."""
        return self._index

    @property
    def begin_index(self) -> int | None:
        """Number of the call at which the pipeline said it would begin."""
        return self._begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Takes note of the call at which the pipeline begins."""
        self._begin = begin_index

    def __len__(self) -> int:
        return len(self.schedule.sigmas)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Scales the pipeline's latents to what the network was trained on."""
        if self.unit_variance or self.schedule.path is FLOW:
            return sample
        return sample / math.hypot(self._levels_asked[self._at(timestep)], 1.0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noises clean latents, to the level of the step at hand or, before any, to those of `timesteps`."""
        index = self._index if self._index is not None else self._begin
        if index is not None:
            wanted = [self._levels_asked[min(index, len(self._levels_asked) - 1)]] * len(timesteps)
        else:
            lookup = dict(zip(self._times, self._levels_asked, strict=True))
            times = [float(t) for t in timesteps]
            wanted = [lookup[t] if t in lookup else _linear(self.schedule, t) for t in times]
        alphas = [self.schedule.path.alpha(sigma) * self._scale(sigma) for sigma in wanted]
        sigmas = [sigma * self._scale(sigma) for sigma in wanted]
        like = original_samples
        alpha, sigma = (
            torch.tensor(c, dtype=torch.float32, device=like.device).view(-1, *[1] * (like.ndim - 1))
            for c in (alphas, sigmas)
        )
        return (alpha * like + sigma * noise.to(like.device)).to(like.dtype)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` as the flow pipelines call it."""
        return self.add_noise(sample, noise, timestep)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Stepped:
        """Sends one output of the network to the sampler.

        Args:
            model_output: (B, C, *S), the network's prediction.
            timestep: the one it was made at; only looked at in the first step.
            sample: (B, C, *S), the pipeline's latents.
            eta: for sampler "ddim"; pipelines pass 0 to all.
            generator: of the noise, drawn as diffusers draws it.
            return_dict: without effect: the result has names and places.

        Returns:
            the next latents in the dtype of `sample`, and the clean estimate.
        """
        index = self._at(timestep)
        sigma, self._generator, self._dtype = self._levels_asked[index], generator, model_output.dtype
        if self._running is None:
            start = index // self.order
            x = sample.float() / self._scale(sigma)
            self._running = self._make(x, self.levels[start:], eta)
            _, self._x, _ = advance(self._running, None)
        elif not torch.equal(sample, self._shown(sigma, sample.dtype)):  # the pipeline has edited them
            self._x.copy_(sample.float() / self._scale(sigma))
        _, skip, out, _ = self.denoiser.coefficients(sigma)
        denoised = skip * self._x + out * model_output.float()
        if self.config.get("clip_sample"):
            denoised = denoised.clamp(-self.config["clip_sample_range"], self.config["clip_sample_range"])
        if self._boundary:
            time = self._times[index] * self._boundary
            vp = self._x * self._scale(sigma)
            denoised = (0.25 * vp + time * math.hypot(time, 0.5) * denoised) / (time**2 + 0.25)
        self._index = index + 1
        done, self._x, level = advance(self._running, denoised)
        return Stepped(self._shown(self.levels[-1] if done else level, sample.dtype), denoised)

    def _shown(self, sigma: float, dtype: torch.dtype) -> Tensor:
        """Our state as the pipeline sees it."""
        return (self._x * self._scale(sigma)).to(dtype)

    def _scale(self, sigma: float) -> float:
        """The pipeline's latents over our state."""
        return 1 / math.hypot(sigma, 1.0) if self.unit_variance and self.schedule.path is VE else 1.0

    def _at(self, timestep: float | Tensor | None) -> int:
        """Number of the call at hand."""
        if self._index is not None:
            return self._index
        if self._begin is not None:
            return self._begin
        gaps = [abs(time - float(timestep or 0.0)) for time in self._times]
        nearest = [i for i, gap in enumerate(gaps) if gap == min(gaps)]
        return nearest[1] if self.order > 1 and len(nearest) > 1 else nearest[0]

    def _make(self, x: Tensor, grid: Sequence[float], eta: float = 0.0) -> Sampler:
        if not isinstance(self.sampler, str):
            return self.sampler(x, grid)
        told = eta if self.sampler == "ddim" else None
        return make(self.sampler, x, grid, path=self.schedule.path, noise=self._noise, eta=told)

    def _noise(self, like: Tensor) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        noise: Tensor = randn_tensor(like.shape, self._generator, like.device, self._dtype)
        return noise.float()

    def _asked(self, grid: Sequence[float]) -> list[float]:
        """The levels of the calls to come, by two dry runs that must agree."""
        self._generator, self._dtype = torch.Generator().manual_seed(0), torch.float32
        runs = [dry_run(self._make(torch.zeros(1, 1), grid), answer) for answer in (0.0, 1.0)]
        if runs[0] != runs[1]:
            raise ValueError("a diffusers pipeline fixes its steps first; no adaptive sampler can run in it")
        return runs[0]


def _is_even(sigmas: Sequence[float]) -> bool:
    return all(abs(s - (1 - i / len(sigmas))) < 1e-6 for i, s in enumerate(sigmas))


def _linear(schedule: Schedule, timestep: float) -> float:
    """The level of a fractional timestep, linear in sigma as diffusers has it."""
    if schedule.path is FLOW:
        return schedule.sigma(timestep)
    i = min(int(timestep), len(schedule.sigmas) - 2)
    return schedule.sigmas[i] + (timestep - i) * (schedule.sigmas[i + 1] - schedule.sigmas[i])


def trained_on(scheduler: Any, on_flow: bool = False) -> Schedule:
    """The schedule that a diffusers scheduler's network was trained on."""
    if on_flow:
        return flow_schedule(scheduler.config["num_train_timesteps"])
    name, bars = f"of {type(scheduler).__name__}", scheduler.alphas_cumprod
    if bars[-1] == 0:  # DDIM holds zero terminal SNR exactly; this far up VE differs from it by 1e-6
        bars = bars.double().clamp(min=2.0**-40)
    return Schedule(name, VE, tuple(((1 - bars) / bars).sqrt().tolist()))


def _between(schedule: Schedule, config: Any, steps: int, low: float, high: float) -> list[float] | None:
    """The grid of a configuration that spaces sigma itself, None if it does not."""
    for spacing in _CURVED:
        if config.get(f"use_{spacing}_sigmas"):
            low, high = config.get("sigma_min") or low, config.get("sigma_max") or high
            return levels(schedule, steps, spacing, sigma_min=low, sigma_max=high)[:-1]
    return None


def _grid(scheduler: Any, schedule: Schedule) -> Grid:
    """The levels and timesteps of a diffusers scheduler on a variance-preserving schedule."""
    config, kind, count = scheduler.config, type(scheduler).__name__, len(schedule.sigmas)
    spacing = config.get("timestep_spacing", "linspace")
    offset = config.get("steps_offset", 0)
    to_lowest = config.get("final_sigmas_type") == "sigma_min" or (
        kind == "DDIMScheduler" and not config["set_alpha_to_one"]
    )

    def grid(steps: int, mu: float | None) -> tuple[list[float], list[float] | None]:
        if kind == "LCMScheduler":
            stride = count // config["original_inference_steps"]
            origin = [(i + 1) * stride - 1 for i in range(config["original_inference_steps"])][::-1]
            times = [float(origin[i * len(origin) // steps]) for i in range(steps)]
        elif kind in _DPM and spacing == "linspace":
            times = [float(round((count - 1) * (steps - i) / steps)) for i in range(steps)]
        elif kind in _DPM and spacing == "leading":
            times = [float((steps - i) * (count // (steps + 1)) + offset) for i in range(steps)]
        else:
            times = indices(count, steps, spacing, offset)
            times = [float(round(t)) for t in times] if kind in _DDPM else times
        chosen = [_linear(schedule, t) for t in times]
        ends = (schedule.sigmas[0], schedule.sigmas[-1]) if kind in _DPM else (chosen[-1], chosen[0])
        if (spaced := _between(schedule, config, steps, *ends)) is not None:
            chosen, times = spaced, [schedule.timestep(sigma) for sigma in spaced]
            if kind in _DPM:
                karras = config.get("use_karras_sigmas") and config["beta_schedule"] != "squaredcos_cap_v2"
                times = [float(round(t) if karras else int(t)) for t in times]
        return [*chosen, schedule.sigmas[0] if to_lowest else 0.0], times

    return grid


def _flow_shift(sigmas: Sequence[float], config: Any, shift: float | None) -> list[float]:
    by = shift if shift is not None else config.get("flow_shift", config.get("shift")) or 1.0
    grid = [shifted(sigma, by) for sigma in sigmas]
    if config.get("shift_terminal"):
        stretch = (1 - grid[-1]) / (1 - config["shift_terminal"])
        grid = [1 - (1 - sigma) / stretch for sigma in grid]
    return grid


def _flow_grid(scheduler: Any) -> Grid:
    """The levels and timesteps of a diffusers scheduler on the rectified-flow path."""
    config, kind = scheduler.config, type(scheduler).__name__
    count = config["num_train_timesteps"]

    def grid(steps: int, mu: float | None) -> tuple[list[float], list[float] | None]:
        if kind == "UniPCMultistepScheduler":
            even = [1 - i / steps * (1 - 1 / count) for i in range(steps)]
            chosen = _flow_shift(even, config, mu)
            chosen[0] = min(chosen[0], 1 - 1e-6)
            return [*chosen, 0.0], [float(int(sigma * count)) for sigma in chosen]
        if kind in _DPM:
            even = [(1 - 1 / count) * (1 - i / steps) for i in range(steps)]
            chosen = _flow_shift(even, config, mu)
            return [*chosen, 0.0], [float(int(sigma * count)) for sigma in chosen]
        high, low = float(scheduler.sigma_max), float(scheduler.sigma_min)
        even = [high + (low - high) * i / max(steps - 1, 1) for i in range(steps)]
        chosen = _flow_shift(even, config, mu)
        spaced = _between(flow_schedule(count), config, steps, chosen[-1], chosen[0])
        return [*(chosen if spaced is None else spaced), 0.0], None

    return grid
