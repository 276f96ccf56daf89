"""Training for every medium: a recipe and captioned examples become a model folder.

A recipe (TOML) says what to train: an autoencoder, a vocoder, or a denoiser on the
latents of one. The examples are drawn once into a pool on disk, from which every step draws by its own
number; so a run that was killed goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite import adapter as adapters
from suite import storage
from suite.adapter import Adapter
from suite.cli import Parser
from suite.denoiser import Denoiser
from suite.distill import Teacher, distillation_loss, recipe_of
from suite.latent import IdentityLatent, Latent
from suite.loss import autoencoder_loss, denoising_loss, vocoder_loss
from suite.pipeline import Pipeline, latent_of
from suite.pool import Pool, prepare, read_pool
from suite.schedules import make
from suite.text import Conditioning, TextEncoder
from suite.text import load as load_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Recipe = dict[str, Any]
NEEDS = {  # kind -> what its recipe must have, beside [data] pool, [network] type and the numbers of [train]
    "autoencoder": {"train": ("kl_weight",)},
    "vocoder": {"train": ("crop",)},
    "diffusion": {"schedule": ("name",), "text": ("name",)},
}
FITTED = 2000  # examples by which a network is fitted in closed form before it is trained
NUMBERS = ("steps", "batch", "learning_rate")
DESCRIBES = ("latent", "vocoder", "window", "text", "schedule", "prediction", "defaults")  # for config.json


def read_recipe(path: Path) -> Recipe:
    """A recipe from its file; ValueError, in one sentence, if it cannot be one."""
    try:
        recipe = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"recipe {path} cannot be read: {error}") from None
    kind = recipe.get("kind")
    if kind not in NEEDS:
        raise ValueError(f"recipe {path} has kind {kind!r}; it must be {' or '.join(NEEDS)}")
    needs = {"data": ("pool",), "network": ("type",), "train": NUMBERS}
    for table, names in [*needs.items(), *NEEDS[kind].items()]:
        for name in names:
            if not isinstance(recipe.get(table), dict) or name not in recipe[table]:
                raise ValueError(f"recipe {path} lacks {name} in [{table}]")
    for name, value in recipe["train"].items():
        floor = 1e-9 if name in (*NUMBERS, "accumulate", "shift", "spread") else 0
        said = name in ("init", "teacher", "frozen", "precision")  # in words
        if not said and not (isinstance(value, int | float) and value >= floor):
            raise ValueError(f"recipe {path} has {name} = {value!r} in [train]; it must be a positive number")
    storage.built(recipe["network"], f"recipe {path}")
    return recipe


class State:
    """What a checkpoint holds: the network, its running mean, the optimiser and the number of steps done."""

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Takes the network and optimiser in training; the running mean starts as a copy."""
        self.network, self.optimiser, self.step = network, optimiser, 0
        self.mean = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Moves the running mean; its early steps count less, so that the start is forgotten."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.network.named_parameters():
            self.mean[name].lerp_(parameter, 1 - decay)

    def save(self, path: Path) -> None:
        """Writes everything to one safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"mean.{k}": v for k, v in self.mean.items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
        with storage.replacing(path) as beside:
            save_file(
                {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
                beside,
                metadata={"step": str(self.step)},
            )

    def load(self, path: Path) -> None:
        """Takes everything back from `save`."""
        with storage.opened(path) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            step = int((file.metadata() or {}).get("step", 0))
        network = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        storage.fill(self.network, network, path)
        self.step = step
        for name, mean in self.mean.items():
            mean.copy_(tensors[f"mean.{name}"])
        slots: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, slot = key.split(".")
                like = parameters[int(index)]  # a fused step reads moments in its memory order
                kept = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                slots.setdefault(int(index), {})[slot] = kept
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": slots})

    def averaged(self) -> nn.Module:
        """A copy of the network with the running mean as weights, to be used and not trained."""
        copy: nn.Module = type(self.network)(**self.network.config)  # type: ignore[arg-type]
        copy.load_state_dict({**self.network.state_dict(), **self.mean})
        return copy.to(next(self.network.parameters()).device).eval().requires_grad_(False)


def rate(step: int, train: Mapping[str, Any]) -> float:
    """The learning rate: a linear rise over `warmup` steps, then half a cosine down to 3% at the last."""
    progress = min(1.0, step / train["steps"])
    fall: float = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))
    rise = min(1.0, (step + 1) / max(1, train.get("warmup", 100)))
    return float(train["learning_rate"] * rise * fall)


def crops(x: Tensor, size: int, generator: np.random.Generator) -> Tensor:
    """A random piece of each signal, `size` in each dimension of space; half of the pictures mirrored."""
    if size > min(x.shape[2:]):
        raise ValueError(f"crop is {size}; the examples are {' x '.join(map(str, x.shape[2:]))}")
    pieces = []
    for one in x:
        for dim in range(1, one.dim()):
            one = one.narrow(dim, int(generator.integers(0, one.shape[dim] - size + 1)), size)
        mirrored = one.dim() > 2 and generator.integers(2)  # time runs one way
        pieces.append(one.flip(-1) if mirrored else one)
    return torch.stack(pieces)


def train(
    recipe: Recipe, pool: Pool, out: Path, empty: Conditioning | None = None, accelerator: Any = None
) -> Iterator[tuple[State, float]]:
    """The training loop; what to do with each step is the caller's.

    Args:
        recipe: as `read_recipe` gives it.
        pool: the examples.
        out: where `checkpoint.safetensors` is looked for and, every `save_every` steps, written.
        empty: features of the empty prompt, which takes the place of a share `drop` of the captions.
        accelerator: accelerate's, for precision, devices and several processes; one is made if None.

    Yields: the state after each step, and its loss.
    """
    from accelerate import Accelerator

    told, seed = recipe["train"], int(recipe.get("seed", 0))
    accelerator = accelerator or Accelerator(mixed_precision=told.get("precision", "no"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = storage.built(recipe["network"], "the recipe")
    if accelerator.device.type == "cpu" and recipe["network"].get("dims", 2) == 2:
        network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    if told.get("init"):
        given = storage.find(told["init"])
        weights = storage.weights(given)
        storage.fill(network, network.grown(weights) if hasattr(network, "grown") else weights, given)
    if hasattr(network, "fit"):
        network.fit(pool.signal(slice(0, FITTED)))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(told.get("frozen", ()))))
    wrapped, optimiser = accelerator.prepare(network, optimiser)
    state, checkpoint = (
        State(network, getattr(optimiser, "optimizer", optimiser)),
        out / "checkpoint.safetensors",
    )
    if checkpoint.is_file():
        state.load(checkpoint)
    denoiser = None
    if recipe["kind"] == "diffusion":
        denoiser = Denoiser(wrapped, make(**recipe["schedule"]), recipe["prediction"])
    teacher = Teacher(told["teacher"], accelerator.device) if told.get("teacher") else None
    micro = int(told.get("accumulate", 1))
    while state.step < told["steps"]:
        for group in optimiser.param_groups:
            group["lr"] = rate(state.step, told)
        total = 0.0
        for part in range(micro):
            number = (seed, state.step, part, accelerator.process_index)
            rows_from = np.random.default_rng(number)
            noise = torch.Generator().manual_seed(int(np.random.SeedSequence(number).generate_state(1)[0]))
            rows = rows_from.integers(0, len(pool.signals), told["batch"])
            last = part == micro - 1
            with nullcontext() if last else accelerator.no_sync(wrapped), accelerator.autocast():
                x = pool.signal(rows)
                if told.get("frames"):  # of clips, so many, evenly spaced
                    apart = x.shape[2] // int(told["frames"])
                    x = x[:, :, int(rows_from.integers(apart)) :: apart]
                if denoiser is None:
                    x = crops(x, told["crop"], rows_from) if told.get("crop") else x
                    x = x.to(
                        accelerator.device,
                        memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format,
                    )
                    if recipe["kind"] == "vocoder":
                        y, magnitude = wrapped(network.mel(x))
                        loss = vocoder_loss(x, y, network.analysis(x).abs(), magnitude)
                    else:
                        y, mean, logvar = wrapped(x, noise, told.get("latent_noise", 0.0))
                        loss = autoencoder_loss(x, y, mean, logvar, told["kl_weight"])
                else:
                    keep = np.ones(len(rows), bool)
                    if empty is not None and told.get("drop", 0.1):
                        keep = rows_from.random(len(rows)) >= told.get("drop", 0.1)
                    cond = pool.text(rows).or_else(empty, keep.tolist())
                    x, cond = x.to(accelerator.device), cond.to(accelerator.device)
                    if teacher is None:
                        levels = {name: told[name] for name in ("shift", "spread") if name in told}
                        loss = denoising_loss(denoiser, x, cond, noise, **levels).mean()
                    else:
                        assert empty is not None, "a diffusion model reads text"
                        none = empty.to(accelerator.device)
                        lesson = teacher.lesson(x, cond, none, keep.tolist(), noise)
                        loss = distillation_loss(denoiser, lesson).mean()
            accelerator.backward(loss / micro)
            total += loss.item() / micro
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is {total} at step {state.step}; lower learning_rate or resume from {checkpoint}"
            )
        accelerator.clip_grad_norm_(network.parameters(), told.get("clip", 1.0))
        optimiser.step()
        optimiser.zero_grad()
        state.step += 1
        state.average(told.get("ema", 0.999))
        yield state, total  # what is written of the last step is written before its checkpoint says so
        if accelerator.is_main_process and (
            state.step % told.get("save_every", 250) == 0 or state.step == told["steps"]
        ):
            state.save(checkpoint)


@torch.no_grad()
def finished_autoencoder(module: Any, pool: Pool, count: int = 256) -> dict[str, float]:
    """Fits the preview to the pool by least squares and measures the latents.

    Args:
        module: the autoencoder; its preview buffers are set.
        pool: signals.
        count: how many of them to measure on.

    Returns: `scaling_factor`, `shift_factor` and the reconstruction's `psnr` in dB.
    """
    device = next(module.parameters()).device
    wanted, latents, error = [], [], 0.0
    for start in range(0, min(count, len(pool.signals)), 16):
        x = pool.signal(slice(start, start + 16)).to(device)
        z, _ = module.encode(x)
        error += (module.decode(z).clamp(-1, 1) - x).square().mean(tuple(range(1, x.dim()))).sum().item()
        wanted.append(nn.functional.interpolate(x, z.shape[2:], mode="area"))
        latents.append(z)
    flat = [torch.cat(part).movedim(1, -1).flatten(0, -2) for part in (latents, wanted)]
    ones = torch.cat([flat[0], flat[0].new_ones(len(flat[0]), 1)], dim=1)
    solution = torch.linalg.lstsq(ones.double().cpu(), flat[1].double().cpu()).solution.to(flat[0])
    module.preview_weight.copy_(solution[:-1].T)
    module.preview_bias.copy_(solution[-1])
    items = sum(map(len, latents))
    return {
        "scaling_factor": 1 / flat[0].std().item(),
        "shift_factor": flat[0].mean().item(),
        "psnr": round(10 * math.log10(4 * items / error), 2),
    }


def run(
    adapter: Adapter,
    recipe: Recipe,
    data: Path,
    out: Path,
    near: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Path:
    """Everything from data to a model folder: pool, training, sheets of samples, weights.

    Args:
        adapter: the medium.
        recipe: what to train.
        data: the folder of the packs, or a folder with metadata.jsonl.
        out: becomes the model folder; also holds the pool, the checkpoint, log.jsonl and sheet.png.
        near: the folder in which the recipe's autoencoder is looked for first.
        say: is told of progress.

    Returns: `out`.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=recipe["train"].get("precision", "no"))
    diffusion, device = recipe["kind"] == "diffusion", accelerator.device
    latent: Latent = IdentityLatent()
    if diffusion:
        network: Any = storage.built(recipe["network"], "the recipe")
        told = network.config
        latent = latent_of(
            recipe.get("latent"), told["channels"], near or out, device=device, frames=bool(told.get("time"))
        )
    text = load_text(recipe["text"]["name"], recipe["text"].get("limit")) if diffusion else None
    if accelerator.is_main_process:
        draw = adapter.examples(data, int(recipe.get("seed", 0)), recipe["data"])
        for drawn in prepare(recipe, draw, out / "pool", latent if diffusion else None, text, device):
            say(f"examples {drawn}/{recipe['data']['pool']}")
    accelerator.wait_for_everyone()
    pool = read_pool(out / "pool")
    say(f"training in {accelerator.num_processes} processes on {device}")
    empty = text.encode([""]) if text else None
    since, log, smooth = time.monotonic(), out / "log.jsonl", None
    for state, loss in train(recipe, pool, out, empty, accelerator):
        if not accelerator.is_main_process:
            continue
        if smooth is None and log.is_file():  # what the checkpoint did not hold comes again
            lines = log.read_text("utf-8").splitlines(keepends=True)
            log.write_text("".join(line for line in lines if json.loads(line)["step"] < state.step), "utf-8")
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        if state.step % 50 == 0 or state.step == recipe["train"]["steps"]:
            seconds, since = time.monotonic() - since, time.monotonic()
            say(f"step {state.step}/{recipe['train']['steps']} loss {smooth:.4f} ({seconds:.1f} s)")
            with log.open("a") as file:
                file.write(
                    json.dumps({"step": state.step, "loss": round(smooth, 5), "seconds": round(seconds, 1)})
                    + "\n"
                )
        if (
            state.step % recipe["train"].get("sheet_every", 1000) == 0
            or state.step == recipe["train"]["steps"]
        ):
            write(state, recipe, adapter, pool, latent, text, out)
    return out


def write(
    state: State,
    recipe: Recipe,
    adapter: Adapter,
    pool: Pool,
    latent: Latent,
    text: TextEncoder | None,
    out: Path,
) -> None:
    """Writes the running mean as a model folder in fp16, and a sheet of what it does now."""
    module: Any = state.averaged()
    settings: dict[str, Any] = {
        "modality": recipe["modality"],
        "kind": recipe["kind"],
        "network": {"type": recipe["network"]["type"], **module.config},
        **{key: recipe[key] for key in DESCRIBES if key in recipe},
    }
    signals = pool.signal(slice(0, 8)).to(next(module.parameters()).device)
    if recipe["kind"] == "vocoder":
        with torch.no_grad():
            mels = module.mel(signals)
            items = adapter.preview(torch.cat([mels, module.mel(module.decode(mels))]).cpu())
    elif text is None:
        settings |= finished_autoencoder(module, pool)
        if "encoder" in recipe["train"].get("frozen", ()):  # models that draw in its latents know its scale
            given = storage.config(storage.find(recipe["train"]["init"]))
            settings |= {key: given[key] for key in ("scaling_factor", "shift_factor")}
        with torch.no_grad():
            items = adapter.preview(torch.cat([signals, module.decode(module.encode(signals)[0])]).cpu())
    else:
        settings["text"] = {**recipe["text"], "width": text.width}
        device = next(module.parameters()).device
        pipe = Pipeline(
            module,
            make(**recipe["schedule"]),
            recipe["prediction"],
            text,
            latent,
            adapter,
            defaults=recipe.get("defaults"),
            device=device,
            window=recipe.get("window", 0),
        )
        items = [item for prompt in recipe.get("prompts", []) for item in pipe(prompt, seed=0).items]
    storage.save(out, module, settings, torch.float16)
    if items:
        adapter.sheet(items, out / "sheet.png")


def main(modality: str, argv: Sequence[str], command: str = "train") -> int:
    """Runs `suite train MODALITY`, or `suite distill MODALITY`."""
    adapter, distilled = adapters.find(modality), command == "distill"
    does = "Teaches a model to draw in 1, 2 or 4 steps" if distilled else "Trains a model from a recipe"
    parser = Parser(
        prog=f"suite {command} {modality}",
        description=f"{does}. The same command goes on with a run that was stopped.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of the unpacked packs, or with media files and metadata.jsonl",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the model, its pool and checkpoint"
    )
    parser.add_argument(
        "--recipe", type=Path, help=f"recipe.toml; default: that of the shipped model {modality!r}"
    )
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--batch", type=int, help="instead of the recipe's")
    flag, of = ("--model", "to distil") if distilled else ("--init", "to start from, of the same network")
    parser.add_argument(flag, dest="init", help=f"model {of}: a name or folder")
    told = parser.parse_args(argv)
    path = told.recipe or storage.find(modality) / "recipe.toml"
    recipe = read_recipe(path)
    if recipe.get("modality") != modality:
        raise ValueError(f"recipe {path} is for {recipe.get('modality')!r}; this command trains {modality!r}")
    if distilled:
        if recipe["kind"] != "diffusion":
            raise ValueError(f"recipe {path} has kind {recipe['kind']!r}; to distil it must be 'diffusion'")
        recipe = recipe_of(recipe, str(storage.find(told.init or modality)))
    for name in ("steps", "batch"):
        if getattr(told, name) is not None:
            if getattr(told, name) < 1:
                raise ValueError(f"{name} is {getattr(told, name)}; it must be at least 1")
            recipe["train"][name] = getattr(told, name)
    if told.init and not distilled:
        recipe["train"]["init"] = str(storage.find(told.init))
    if not told.data.is_dir():
        raise ValueError(f"data is {str(told.data)!r}; it must be a folder")
    told.out.mkdir(parents=True, exist_ok=True)
    asked = (("--steps", told.steps), ("--batch", told.batch), (flag, told.init))
    given = [f" {name} {value}" for name, value in asked if value]
    given = [" distilled", *given] if distilled else given
    lines = path.read_text("utf-8").splitlines(keepends=True)
    with storage.replacing(told.out / "recipe.toml") as beside:  # every process writes the same
        beside.write_text("".join([f"# with{''.join(given)}\n"] * bool(given) + lines), "utf-8")
    run(
        adapter,
        recipe,
        told.data,
        told.out,
        path.parent,
        lambda line: sys.stderr.write(line + "\n"),
    )
    return 0
