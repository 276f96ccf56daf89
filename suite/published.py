"""Published pipelines behind our interface: Stable Diffusion by diffusers, with our samplers and guidance.

`pipeline(pipe)` makes our Pipeline of its parts, `load` of its folder, `fetched` has that from the hub.
diffusers is imported when one is asked for, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from suite import storage
from suite.adapter import Adapter, find
from suite.compat import trained_on
from suite.latent import AutoencoderLatent, out_of_memory
from suite.storage import ModelError
from suite.text import Conditioning

if TYPE_CHECKING:
    from suite.pipeline import Pipeline
    from suite.text import TextEncoder


class _Network(nn.Module):
    """A diffusers UNet2DConditionModel, called as our networks are."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet, self.factor = unet, 2 ** (len(unet.config.block_out_channels) - 1)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W) of the network's prediction; Stable Diffusion attends to padding too, so no mask."""
        predicted: Tensor = self.unet(x, timestep, encoder_hidden_states=context, return_dict=False)[0]
        return predicted


class _Autoencoder(nn.Module):
    """A diffusers AutoencoderKL, called as our autoencoders are."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae, self.latent_channels = vae, int(vae.config.latent_channels)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the unscaled latents."""
        posterior = self.vae.encode(x).latent_dist
        return posterior.mean, posterior.logvar

    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, H, W), about [-1, 1]."""
        decoded: Tensor = self.vae.decode(z, return_dict=False)[0]
        return decoded


class _Text:
    """The text encoder of a diffusers pipeline, prompts padded as the pipeline pads them."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.limit = pipe, int(pipe.tokenizer.model_max_length)
        self.width = int(pipe.unet.config.cross_attention_dim)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row a prompt; ValueError for one that the pipeline would cut."""
        for prompt in prompts:
            if (length := len(self.pipe.tokenizer(prompt).input_ids)) > self.limit:
                raise ValueError(f"the prompt has {length} tokens; this model reads {self.limit}: shorten it")
        tokens = self.pipe.encode_prompt(list(prompts), self.pipe.device, 1, False)[0].float()
        return Conditioning(tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool))


def pipeline(pipe: Any, adapter: Adapter | None = None, name: str = "") -> Pipeline:
    """Puts a published pipeline behind our interface: our samplers and guidance, a seed an item, cancel.

    Args:
        pipe: of diffusers, with `unet`, `vae`, `text_encoder` and `tokenizer`: Stable Diffusion 1 or 2.
        adapter: the medium; pictures if None.
        name: of the model, for the settings of what it draws.

    Returns:
        our Pipeline on the same modules, which it does not copy.

    Raises:
        ValueError: its network is no UNet that takes a text and nothing more.
    """
    from suite.pipeline import Pipeline

    parts = [getattr(pipe, part, None) for part in ("unet", "vae", "tokenizer", "scheduler")]
    unet, vae, tokenizer, scheduler = cast("list[Any]", parts)
    told = getattr(unet, "config", {})
    if (
        None in (vae, tokenizer)
        or not isinstance(told.get("cross_attention_dim"), int)
        or told["addition_embed_type"]
        or told["in_channels"] != vae.config.latent_channels
        or not hasattr(scheduler, "alphas_cumprod")
    ):
        raise ValueError(
            f"{type(pipe).__name__} is not of the Stable Diffusion 1 or 2 kind; let it run its own loop with "
            "pipe.scheduler = SamplerScheduler.replacing(pipe.scheduler)"
        )
    network, module, text = _Network(unet), _Autoencoder(vae), _Text(pipe)
    size = int(told["sample_size"]) * module.factor
    return Pipeline(
        network,
        trained_on(scheduler),
        scheduler.config.get("prediction_type", "epsilon"),
        cast("TextEncoder", text),
        AutoencoderLatent(module, vae.config.scaling_factor, vae.config.shift_factor or 0.0),
        adapter or find("image"),
        defaults={"width": size, "height": size, "guidance_scale": 7.5, "sampler": "dpmpp_2m"},
        name=name,
        device=pipe.device,
    )


def fetched(name: str) -> Path:
    """The folder of a published pipeline, from the hub's cache or downloaded; safetensors only.

    Raises: ModelError if it can be had from neither.
    """
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except Exception as error:  # the hub's client has a dozen errors of its own, with no common base
        sentence = f"model {name!r} is no folder here and cannot be had from the hub: {_first_line(error)}"
        raise ModelError(sentence) from None


def load(
    folder: Path, adapter: Adapter, device: torch.device, dtype: torch.dtype, name: str = ""
) -> Pipeline:
    """A published pipeline's folder behind our interface.

    Args:
        folder: with model_index.json.
        adapter: the medium.
        device: where to put the networks.
        dtype: of them.
        name: as in `pipeline`.
    Raises: ModelError if it cannot be read or is of a kind that `pipeline` refuses.
    """
    import diffusers

    index = storage.config(folder)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not hasattr(diffusers, kind):
        raise ModelError(f"{folder} is of kind {kind!r}, which diffusers {diffusers.__version__} has not")
    if "width" not in adapter.request.model_fields:
        told = "of the published ones only Stable Diffusion 1 and 2, which draw pictures, run here"
        raise ModelError(f"{folder} is a {kind}, which cannot be asked for {adapter.plural}; {told}")
    for part, source in index.items():  # older versions of diffusers would run it
        if isinstance(source, list) and source and (folder / part / f"{source[0]}.py").is_file():
            raise ModelError(f"{folder} brings code of its own, {part}/{source[0]}.py; we run none")
    try:
        read = diffusers.DiffusionPipeline.from_pretrained
        return pipeline(read(folder, use_safetensors=True, torch_dtype=dtype).to(device), adapter, name)
    except Exception as error:  # diffusers judges little of what it reads, so a broken file ends in any error
        if out_of_memory(error):
            raise
        raise ModelError(f"{folder} cannot be used: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    return line if line and isinstance(error, OSError | ValueError) else f"{type(error).__name__} {line}"
