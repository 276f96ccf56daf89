"""How fast and how large: each claim is a ratio of two things that are measured in turn, in one run.

Times are CPU time on one thread, the least of the repetitions, which a busy machine disturbs least: of this
thread, or of a whole process where one is started for it. Memory is the peak of a process of its own, less
what its imports took. Nothing is judged by its looks, so the networks have random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite import adapter as media
from suite import drive, published, samplers, storage
from suite.cli import Parser
from suite.denoiser import Denoiser
from suite.latent import AutoencoderLatent, IdentityLatent, Latent
from suite.nn import NETWORKS
from suite.noise import Noise
from suite.pipeline import load
from suite.request import controls
from suite.schedules import levels, make
from suite.text import Conditioning

STABLE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
THEIRS: dict[str, tuple[str, str, dict[str, Any]]] = {  # our sampler, diffusers' scheduler, its settings
    "euler": ("euler", "EulerDiscreteScheduler", STABLE),
    "ancestral": ("ancestral", "EulerAncestralDiscreteScheduler", STABLE),
    "ddim": ("ddim", "DDIMScheduler", {**STABLE, "clip_sample": False}),
    "ddpm": ("ddpm", "DDPMScheduler", {**STABLE, "clip_sample": False}),
    "heun": ("heun", "HeunDiscreteScheduler", STABLE),
    "dpm2": ("dpm2", "KDPM2DiscreteScheduler", STABLE),
    "dpmpp_2m": ("dpmpp_2m", "DPMSolverMultistepScheduler", STABLE),
    "dpmpp_2s": ("dpmpp_2s", "DPMSolverSinglestepScheduler", STABLE),
    "lms": ("lms", "LMSDiscreteScheduler", STABLE),
    "unipc": ("unipc", "UniPCMultistepScheduler", STABLE),
    "euler on flow": ("euler", "FlowMatchEulerDiscreteScheduler", {}),
    "heun on flow": ("heun", "FlowMatchHeunDiscreteScheduler", {}),
}
PIPELINES = {"tiny": (8, 16), "medium": (64, 128)}  # channels of the U-Net's levels
CONTEXT = 32  # width of the text features where no text encoder is measured
LATENT = {"channels": 16, "widths": (192, 320), "attention": (True, True)}
PIXEL = {"channels": 3, "widths": (32, 64, 96, 128, 192, 320), "attention": (False,) * 4 + (True, True)}
IMPORTS = {  # what others spend before a pipeline can be made
    "import diffusers": "import torch, diffusers",
    "import its pipeline": "import torch; from diffusers import StableDiffusionPipeline",
}
STILL = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # for processes we start


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        group: the measurement it belongs to.
        name: what is compared.
        ours: our figure.
        other: that of what it is compared with.
        unit: of both.
        target: what the ratio should be at most; None where none was set.
        repeats: of which the least was taken.
        note: what else a reader should know.
    """

    group: str
    name: str
    ours: float
    other: float
    unit: str
    target: float | None
    repeats: int
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours as a share of the other."""
        return self.ours / self.other

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None where there is none."""
        return None if self.target is None else self.ratio <= self.target


def steps(quick: bool) -> Iterator[Row]:
    """A step's work without the network: our sampler and Denoiser against a diffusers scheduler.

    Theirs scales the input, spreads the timestep over the batch and steps; ours also looks for NaN. Both make
    their own grid, each run, and record no gradients, as the pipelines do. The network is a constant.
    """
    import diffusers

    repeats, count = (3, 6) if quick else (40, 24)
    x0, predicted = torch.randn(2, 1, 4, 32, 32, generator=torch.Generator().manual_seed(0)).unbind()
    cond = Conditioning(torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
    for name, (method, kind, told) in THEIRS.items():
        on_flow = not told
        schedule = make("flow" if on_flow else "scaled_linear")
        denoiser = Denoiser(lambda *_: predicted, schedule, "flow" if on_flow else "epsilon")
        scheduler = getattr(diffusers, kind)(**told)

        def sampler(method: str = method, schedule: Any = schedule) -> samplers.Sampler:
            grid = levels(schedule, count, "trailing")
            x, noise = x0 * grid[0], Noise(0, 1)
            return samplers.make(method, x, grid, path=schedule.path, noise=noise)

        @torch.no_grad()
        def ours(denoiser: Denoiser = denoiser, sampler: Any = sampler) -> Tensor:
            return drive.sample(sampler(), lambda x, sigma: denoiser(x, sigma, cond))

        @torch.no_grad()
        def alone(sampler: Any = sampler) -> Tensor:
            return drive.sample(sampler(), lambda x, sigma: predicted)

        @torch.no_grad()
        def other(scheduler: Any = scheduler) -> None:
            scheduler.set_timesteps(count)
            x = x0 * float(getattr(scheduler, "init_noise_sigma", 1.0))
            for t in scheduler.timesteps:
                if hasattr(scheduler, "scale_model_input"):
                    scheduler.scale_model_input(x, t)
                t.expand(len(x))
                x = scheduler.step(predicted, t, x, return_dict=False)[0]

        mine, bare, theirs = (1e6 / count * best for best in least([ours, alone, other], repeats))
        note = f"against {kind}; the sampler alone {bare / theirs:.2f}"
        yield Row("steps", name, mine, theirs, "us", 1 / 3, repeats, note)


def pipelines(quick: bool) -> Iterator[Row]:
    """A prompt to a picture: our pipeline and StableDiffusionPipeline, unchanged, on the same modules."""
    sizes = {"tiny": PIPELINES["tiny"]} if quick else PIPELINES
    for name, widths in sizes.items():
        repeats, count = (2, 2) if quick else (20 if name == "tiny" else 10, 10)
        with tempfile.TemporaryDirectory() as folder:
            pipe = stable_diffusion(Path(folder), widths)
        mine = published.pipeline(pipe)
        told = {"width": 64, "height": 64, "guidance_scale": 7.5, "negative_prompt": "a cat"}
        told["num_inference_steps"] = count

        def ours(mine: Any = mine, told: Any = told) -> None:
            mine("a red cube", seed=7, sampler="euler", **told)

        def other(pipe: Any = pipe, told: Any = told) -> None:
            pipe("a red cube", generator=torch.Generator().manual_seed(7), **told)

        best, theirs = (1e3 * seconds for seconds in least([ours, other], repeats))
        note = f"Euler, {count} steps, 64 x 64 pixels, U-Net of {' and '.join(map(str, widths))} channels"
        yield Row("pipeline", name, best, theirs, "ms", 1.0, repeats, note)


def latents(quick: bool) -> Iterator[Row]:
    """A picture through latents, decoded, against one in pixels by the same U-Net with four finer levels."""
    size, count, repeats = (128, 1, 1) if quick else (256, 8, 3)
    told = ["--size", str(size), "--steps", str(count), "--repeats", str(repeats)]
    found = {}
    for space in ("latent", "pixel"):
        found[space] = json.loads(printed(["-m", "suite.bench", "--child", space, *told]))
    mine, theirs = found["latent"], found["pixel"]
    sizes = [one["weights"] / 4e6 for one in (mine, theirs)]
    note = f"{count} steps of Euler, {size} x {size} pixels; {sizes[0]:.0f} and {sizes[1]:.0f} M parameters"
    yield Row("latent", "time", 1e3 * mine["seconds"], 1e3 * theirs["seconds"], "ms", 0.2, repeats, note)
    peaks = [(one["peak"] - one["weights"]) / 1e6 for one in (mine, theirs)]
    note = "peak beyond the imports and the weights: what grows with the picture"
    yield Row("latent", "memory", peaks[0], peaks[1], "MB", 0.25, 1, note)
    yield Row("latent", "memory with weights", mine["peak"] / 1e6, theirs["peak"] / 1e6, "MB", None, 1)


def startup(quick: bool, model: str | None = None) -> Iterator[Row]:
    """From a cold start to the first saved file of each medium, against importing diffusers and no more."""
    repeats = 1 if quick else 2
    for adapter, asked in _media(model):
        name = adapter.name
        storage.find(asked)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"first{adapter.suffixes[0]}"
            draw = ["-m", "suite.cli", name, "a red apple", "--model", asked, "-o", str(path)]
            commands = [draw, *(["-c", code] for code in IMPORTS.values())]
            calls = [partial(printed, command) for command in commands]
            mine, *others = least(calls, repeats, clock=_children)
        note = f"suite {name} PROMPT -o FILE from cold, with the model's default steps"
        for what, theirs in zip(IMPORTS, others, strict=True):
            yield Row("startup", f"first {name}, {what}", mine, theirs, "s", None, repeats, note)


def realtime(quick: bool, model: str | None = None) -> Iterator[Row]:
    """How long sounds and clips take to make beside how long they last: wall time, on every core."""
    seconds, repeats = (1.0, 1) if quick else (5.0, 5)
    for adapter, asked in _media(model):
        if "seconds" not in controls(adapter.request):
            continue
        pipe = load(adapter, asked, "cpu")
        for count, target in ((20, 0.4), (4, 0.1)):
            call = partial(pipe, "rain", seconds=seconds, num_inference_steps=count)
            with threads(os.cpu_count() or 1):
                (best,) = least([call], repeats, clock=time.perf_counter)
            note = f"{seconds:g} s, guided, from text to finished; wall time on {os.cpu_count()} cores"
            yield Row("realtime", f"{adapter.name}, {count} steps", best, seconds, "s", target, repeats, note)


def assets(quick: bool, model: str | None = None) -> Iterator[Row]:
    """What a medium measures of itself, as the seconds of a finished mesh by step; wall time, every core."""
    for adapter, asked in _media(model):
        with threads(os.cpu_count() or 1):
            yield from adapter.bench(quick, asked)


def _media(model: str | None) -> Iterator[tuple[media.Adapter, str]]:
    """Every medium with its own model, or that of `model` alone."""
    for adapter in map(media.find, media.names()):
        if model is None or storage.config(storage.find(model)).get("modality") == adapter.name:
            yield adapter, model or str(controls(adapter.request)["model"].default)


GROUPS: dict[str, Callable[..., Iterator[Row]]] = {
    "steps": steps,
    "pipeline": pipelines,
    "latent": latents,
    "startup": startup,
    "realtime": realtime,
    "assets": assets,
}


def least(
    calls: Sequence[Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.thread_time,
) -> list[float]:
    """The least time of each call, in seconds; they take turns, after one round that is not counted.

    Args:
        calls: to be timed.
        repeats: rounds.
        clock: seconds.
    """
    best = [float("inf")] * len(calls)
    for number in range(repeats + 1):
        for i, call in enumerate(calls):
            start = clock()
            call()
            if number:
                best[i] = min(best[i], clock() - start)
    return best


@contextmanager
def single_thread() -> Iterator[None]:
    """Torch on one thread, and quiet, for the time being."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    with threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets torch use so many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _children() -> float:
    """CPU seconds of the processes that were started and are done; the clock's where none are counted."""
    spent = os.times()
    return spent.children_user + spent.children_system if os.name == "posix" else time.perf_counter()


def printed(arguments: Sequence[str]) -> str:
    """What a Python of our own kind prints, run to its end."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env={**os.environ, **STILL}, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(arguments)} failed: {done.stderr[-400:]}")
    return done.stdout


def stable_diffusion(folder: Path, widths: tuple[int, ...]) -> Any:
    """A StableDiffusionPipeline of random weights, with a text encoder that reads letters."""
    import diffusers
    import transformers

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 77
    with torch.random.fork_rng(devices=[]):
        text = transformers.CLIPTextConfig(
            vocab_size=len(words), hidden_size=CONTEXT, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=widths, layers_per_block=1, sample_size=32, cross_attention_dim=CONTEXT,
            norm_num_groups=4, attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
        pipe = diffusers.StableDiffusionPipeline(
            unet=unet.eval(), vae=vae.eval(), text_encoder=transformers.CLIPTextModel(text).eval(),
            tokenizer=tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            scheduler=diffusers.EulerDiscreteScheduler(**STABLE, steps_offset=1),
        )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _child(space: str, size: int, count: int, repeats: int) -> dict[str, float]:
    """Draws in one space; how long that took, and the memory: peak beyond the imports, and of the weights."""
    torch.set_num_threads(1)
    before = peak()
    network = NETWORKS["unet"](**(LATENT if space == "latent" else PIXEL), blocks=1, context_width=CONTEXT)
    latent: Latent = IdentityLatent()
    parts = [network.eval()]
    if space == "latent":
        parts.append(NETWORKS["autoencoder"](widths=(64, 128, 256), encoder_widths=(48, 96, 192), blocks=1))
        latent = AutoencoderLatent(parts[1].eval())
    schedule = make("flow")
    denoiser = Denoiser(network, schedule, "flow")
    cond = Conditioning(torch.zeros(1, 16, CONTEXT), torch.ones(1, 16, dtype=torch.bool))
    x = Noise(0, 1)(torch.empty(1, latent.channels, *[size // latent.factor] * 2))

    @torch.no_grad()
    def draw() -> Tensor:
        grid = levels(schedule, count, "trailing")
        sampler = samplers.make("euler", x, grid, path=schedule.path)
        return latent.decode(drive.sample(sampler, lambda x, sigma: denoiser(x, sigma, cond)))

    seconds = least([draw], repeats)[0]
    weights = sum(4 * p.numel() for part in parts for p in part.parameters())
    return {"seconds": seconds, "peak": peak() - before, "weights": weights}


def peak() -> int:
    """The most memory this process held so far, in bytes."""
    try:  # not getrusage, whose peak begins with that of the process that started this one
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def table(rows: Sequence[Row]) -> str:
    """The rows as text, under the machine and the versions they were measured with."""
    width = max(len(f"{row.group}: {row.name}") for row in rows)
    lines = [f"{'':{width}}      ours     other        ratio  target   n"]
    for row in rows:
        target = "-" if row.target is None else f"{row.target:.2f}"
        met = {None: "", True: "met", False: "missed"}[row.met]
        name, ratio = f"{row.group}: {row.name}", f"{row.ratio:8.2f} {target:>7}"
        figures = f"{row.ours:9.4g} {row.other:9.4g} {row.unit:3} {ratio} {row.repeats:3}"
        lines.append(f"{name:{width}} {figures} {met:6}  {row.note}")
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    """What the figures were measured with."""
    told: dict[str, str | int] = {"system": f"{platform.system()} {platform.machine()}"}
    told |= {"cores": os.cpu_count() or 1, "python": platform.python_version()}
    return told | {name: version(name) for name in ("torch", "diffusers", "transformers")}


def main(argv: Sequence[str]) -> int:
    """Runs `suite bench`."""
    parser = Parser(prog="suite bench", description=(__doc__ or "").partition("\n\n")[2])
    which = f"only this; one of {', '.join(GROUPS)}; may be given again"
    parser.add_argument("--only", action="append", metavar="GROUP", help=which)
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few repetitions, to see it run")
    parser.add_argument("--model", help="for start-up and real time; default: each medium's own")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for hidden in ("--child", "--size", "--steps", "--repeats"):
        kind: Any = str if hidden == "--child" else int
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    told = parser.parse_args(list(argv))
    if told.child:
        sys.stdout.write(json.dumps(_child(told.child, told.size, told.steps, told.repeats)) + "\n")
        return 0
    for group in told.only or ():
        if group not in GROUPS:
            raise ValueError(f"only is {group!r}; it must be one of {', '.join(GROUPS)}")
    if told.model is not None:
        storage.find(told.model)

    rows: list[Row] = []
    started = time.monotonic()
    with single_thread():
        for group in told.only or GROUPS:
            sys.stderr.write(f"measuring {group} ...\n")
            measured = GROUPS[group]
            wants = (told.model,) if group in ("startup", "realtime", "assets") else ()
            for row in measured(told.quick, *wants):
                rows.append(row)
                sys.stderr.write(f"  {row.name}: {row.ratio:.2f}\n")  # what a run that is stopped has found
    command = " ".join(["suite bench", *argv])
    if told.json:
        full = [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows]
        whole = {"command": command, "machine": machine(), "rows": full}
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
    else:
        where = ", ".join(f"{key} {value}" for key, value in machine().items())
        head = f"$ {command}\n{where}; CPU time on one thread, the least of n"
        sys.stdout.write(f"{head}; {time.monotonic() - started:.0f} s in all\n\n{table(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
