"""Model folders: config.json + model.safetensors (+ README.md, recipe.toml); find, check, load, save.

Nothing a user supplies is unpickled and no code runs out of a model folder. A lone .safetensors file works
too: `save` writes the config into its header.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PUBLISHED = "model_index.json"  # a diffusers pipeline's folder has it in place of config.json
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
INSTALLED = "diffusion_suite_models"  # the wheel carries models/ under this name


class ModelError(ValueError):
    """A model is missing, corrupt or not what its config says; the message is one sentence for the user."""


def roots() -> list[Path]:
    """Where shipped models lie: the checkout's models/, or the folder the wheel installed."""
    checkout = Path(__file__).resolve().parent.parent / "models"
    spec = find_spec(INSTALLED)
    installed = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    return list(dict.fromkeys(root.resolve() for root in (checkout, *installed) if root.is_dir()))


def shipped() -> dict[str, Path]:
    """Name -> folder of every shipped model."""
    found = (place.parent for root in reversed(roots()) for place in sorted(root.glob(f"*/{CONFIG}")))
    return {folder.name: folder for folder in found}


def find(model: str | os.PathLike[str], near: Path | None = None) -> Path:
    """The folder (or lone .safetensors file) a model's name or path stands for.

    Args:
        model: a shipped model's name, a folder, a .safetensors file, or the hub id of a published pipeline,
            whose files are fetched unless they are in the hub's cache.
        near: a model that refers to this one; its neighbours and its own subfolders come first.
    Raises: ModelError, naming the path that was looked at.
    """
    name = os.fspath(model)
    for place in (near / name, near.parent / name) if near else ():
        if os.path.isfile(place / CONFIG):
            return place
    if "/" not in name and (found := shipped().get(name)):
        return found
    path = Path(os.path.expanduser(name))  # leaves an unknown ~user as it is
    if os.path.isfile(path / CONFIG) or (os.path.isfile(path) and path.suffix == ".safetensors"):
        return path
    if os.path.isfile(path / PUBLISHED):
        return path
    if os.path.isdir(path):
        raise ModelError(f"{path} is no model folder: it has no {CONFIG}")
    if os.path.isfile(path):
        raise ModelError(f"{path} is no model; it must be a folder with {CONFIG}, or a .safetensors file")
    if HUB_ID.fullmatch(name) and not path.parent.exists():
        from suite.published import fetched

        return fetched(name)
    known = ", ".join(sorted(shipped())) or "none"
    looked = ", ".join(str(root / name) for root in roots() if "/" not in name) or str(path)
    raise ModelError(f"model {name!r} was not found at {looked}; shipped models are {known}")


def config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """A model's config.json, the one in a lone file's header, or a published pipeline's model_index.json.

    Raises: ModelError if it is missing or not a JSON object.
    """
    path = Path(folder)
    try:
        if path.is_file():
            with opened(path) as weights:
                found = json.loads((weights.metadata() or {}).get("config", "null"))
        else:
            path = path / (PUBLISHED if (path / PUBLISHED).is_file() else CONFIG)
            found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} cannot be read as a model's config: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} carries no model config")
    if not isinstance(found.get("defaults", {}), dict):
        raise ModelError(f"{path} has defaults {found['defaults']!r}; they must be field -> value")
    return found


def weights(folder: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """A model's tensors, on the CPU, as stored.

    Raises: ModelError if the file is missing or corrupt.
    """
    path = Path(folder)
    with opened(path if path.is_file() else path / WEIGHTS) as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def load(
    folder: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """A model's network with its weights, in evaluation mode, without gradients.

    Args:
        folder: as `find` returns it.
        dtype: of the weights in memory; None is float32, whatever the file holds.
        device: where to put them.
    Returns: the module and the model's config.
    Raises: ModelError, in one sentence, for anything that is missing, corrupt or does not fit.
    """
    import torch

    settings = config(folder)
    module = built(settings.get("network"), folder)
    fill(module, weights(folder), folder)
    return module.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False), settings


def built(network: Any, where: object) -> nn.Module:
    """A network, untrained, from its `type` and the arguments of its constructor.

    Raises: ModelError, naming `where` they stand.
    """
    from suite.nn import NETWORKS

    try:
        options = dict(network or {})
        kind = options.pop("type", None)
        if kind in NETWORKS:
            module: nn.Module = NETWORKS[kind](**options)
            return module
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(f"{where} has a network config that cannot be built: {error}") from None
    raise ModelError(f"{where} asks for network {kind!r}; it must be one of {', '.join(NETWORKS)}")


def fill(module: nn.Module, state: Mapping[str, torch.Tensor], where: object) -> None:
    """Gives a network its weights.

    Raises: ModelError, naming `where` they lie, if they are of another network.
    """
    wanted = module.state_dict()
    missing, extra = [k for k in wanted if k not in state], [k for k in state if k not in wanted]
    if missing or extra:
        both = (("first missing:", missing), ("first left over:", extra))
        told = [f"{what} {keys[0]}" for what, keys in both if keys]
        raise ModelError(f"the weights in {where} do not fit the network's config; {', '.join(told)}")
    for key, tensor in wanted.items():
        if tensor.shape != state[key].shape:
            shapes = f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
            raise ModelError(f"the weights in {where} do not fit the network's config; {shapes}")
    module.load_state_dict(state)


def save(
    folder: str | os.PathLike[str], module: nn.Module, settings: Mapping[str, Any], dtype: Any = None
) -> Path:
    """Writes a model folder; each file is written beside its place, then renamed.

    Args:
        folder: made if need be.
        module: its state_dict is stored.
        settings: config.json; `network` must hold `type` and the constructor's arguments.
        dtype: torch.dtype of the floating-point weights on disk; None keeps them.
    Returns: the folder.
    """
    from safetensors.torch import save_file

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    state = {}
    for key, tensor in module.state_dict().items():
        kept = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        state[key] = kept.detach().cpu().contiguous().clone()  # clone: tied weights share no memory on disk
    with replacing(path / WEIGHTS) as part:
        save_file(state, part, metadata={"config": json.dumps(dict(settings))})
    with replacing(path / CONFIG) as part:
        part.write_text(json.dumps(dict(settings), indent=2) + "\n", "utf-8")
    return path


def beside(path: Path) -> Path:
    """Where this process writes what is to take `path`'s place."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place at the end, or is removed on failure."""
    part = beside(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file to read from; ModelError, in one sentence, if it is missing or corrupt."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"the weights {path} are missing")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is corrupt or no safetensors file: {error}") from None
