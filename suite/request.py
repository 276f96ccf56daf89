"""What may be asked, once: every control's field, default, bounds, unit and help.

The command line, the app's controls, the settings in a saved file and the error sentences derive from this
model; a medium adds its own fields in a subclass. Importing it loads no torch.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

SamplerName = Literal[
    "euler", "ancestral", "ddim", "ddpm", "heun", "dpm2", "dpmpp_2s", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde",
    "lms", "unipc", "lcm",
]  # fmt: skip
SpacingName = Literal["leading", "linspace", "trailing", "karras", "exponential", "beta", "shifted"]
GuidanceName = Literal["none", "cfg", "cfg_zero", "apg"]


def _media(value: object) -> object:
    """A path becomes a string; an object in memory (a PIL image, say) stays, for the adapter to read."""
    if isinstance(value, (str, PathLike)):
        value = str(value)
        if not value:
            raise ValueError("it must name a file")
    return value


def _label(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else f"<{type(value).__name__}>"


Media = Annotated[
    Any,
    BeforeValidator(_media),
    PlainSerializer(_label, return_type=str | None),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}),
]

Kind = Literal["text", "int", "float", "bool", "choice", "file"]
_KINDS: dict[Any, Kind] = {int: "int", float: "float", bool: "bool", str: "text", Any: "file"}
R = TypeVar("R", bound="Request")
FINE: dict[str, Any] = {"step": 0.05}
TENTHS: dict[str, Any] = {"step": 0.1}


class Request(BaseModel):
    """What every medium may be asked; the fields left out are filled from the model's own defaults."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, validate_default=True)

    prompt: str = Field(max_length=10_000, description="What to draw. (word:1.3) weighs a word.")
    negative_prompt: str = Field("", max_length=10_000, description="What to keep away from.")
    seed: int = Field(0, ge=0, lt=2**32, description="Same seed, same result; of several, each has the next.")
    num_inference_steps: int = Field(
        20, ge=1, le=1000, description="Steps of the sampler.", json_schema_extra={"alias": "steps"}
    )
    guidance_scale: float = Field(
        4.0, ge=1, le=30, description="How closely to follow the prompt; 1 is off.", json_schema_extra=TENTHS
    )
    guidance: GuidanceName = Field("cfg", description="The kind of guidance; none is off.")
    guidance_rescale: float = Field(
        0.0, ge=0, le=1, description="Pulls contrast back after guidance.", json_schema_extra=FINE
    )
    guidance_low: float = Field(
        0.0, ge=0, lt=1, description="Guide only above this noise (0 clean, 1 all).", json_schema_extra=FINE
    )
    guidance_high: float = Field(
        1.0, gt=0, le=1, description="Guide only below this noise (0 clean, 1 all).", json_schema_extra=FINE
    )
    sampler: SamplerName = Field("euler", description="The method that takes the noise away.")
    spacing: SpacingName = Field("trailing", description="How the noise levels are spaced.")
    shift: float = Field(
        1.0, gt=0, le=20, description="Shift of the levels towards noise, for spacing 'shifted'.",
        json_schema_extra=TENTHS,
    )  # fmt: skip
    eta: float | None = Field(
        None, ge=0, le=1, description="Fresh noise of the stochastic samplers: 0 none, 1 all.",
        json_schema_extra=FINE,
    )  # fmt: skip
    init: Media = Field(None, description="File to start from.")
    strength: float = Field(
        0.6, gt=0, le=1, description="How much to change what it starts from; 1 leaves a trace at most.",
        json_schema_extra=FINE,
    )  # fmt: skip
    mask: Media = Field(None, description="File that is white where the init file is to be redrawn.")
    loop: bool = Field(False, description="Make the result tile without a seam.")
    model: str = Field("", description="A shipped model's name, a folder, a safetensors file, a hub id.")

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: str) -> str:
        words = re.sub(r":\s*[-+.\d]+\s*\)", "", prompt)  # less the weights of (word:1.3)
        if not any(unicodedata.category(character)[0] in "LNS" for character in words):
            raise ValueError("it must say what to draw")
        return prompt

    @model_validator(mode="after")
    def _together(self) -> Request:
        if self.mask is not None and self.mask != "" and self.init is None:
            raise ValueError("mask is given without init; a mask says where to redraw the init file")
        if self.guidance_low >= self.guidance_high:
            raise ValueError(f"guidance_low is {self.guidance_low}; it must be below guidance_high")
        return self

    def filled(self: R, defaults: Mapping[str, Any]) -> R:
        """The same request with `defaults` for the fields the caller did not set.

        Args:
            defaults: field -> value, as in a model's config.json.
        Returns: a validated copy.
        """
        set_by_caller = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**defaults, **set_by_caller})


@dataclass(frozen=True)
class Control:
    """One field as a user meets it, for a command line's option or an app's widget."""

    name: str
    kind: Kind
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    unit: str = ""
    alias: str = ""


def controls(request: type[Request]) -> dict[str, Control]:
    """The fields of a request as controls, in order."""
    found = {}
    for name, field in request.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        held = [part for part in get_args(field.annotation) if part is not NoneType]
        annotation = held[0] if len(held) < len(get_args(field.annotation)) else field.annotation
        kind = _KINDS.get(annotation, "choice")
        keys = ("ge", "gt", "le", "lt", "multiple_of")
        bounds = {key: getattr(m, key) for m in field.metadata for key in keys if hasattr(m, key)}
        below = bounds["lt"] - 1 if "lt" in bounds and kind == "int" else bounds.get("lt")
        step: Any = extra.get("step", bounds.get("multiple_of", 1 if kind == "int" else None))
        found[name] = Control(
            name=name,
            kind=kind,
            default=None if field.is_required() else field.default,
            help=field.description or "",
            choices=get_args(annotation) if kind == "choice" else (),
            low=bounds.get("ge", bounds.get("gt")),
            high=bounds.get("le", below),
            step=step,
            unit=str(extra.get("unit", "")),
            alias=str(extra.get("alias", "")),
        )
    return found


_BOUNDS = {
    "greater_than_equal": "it must be at least {ge:.10g}",
    "greater_than": "it must be above {gt:.10g}",
    "less_than_equal": "it must be at most {le:.10g}",
    "less_than": "it must be below {lt:.10g}",
    "finite_number": "it must be a finite number",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must be at most {max_length} characters long",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "int_type": "it must be a whole number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "int_parsing_size": "it is too long a number",
    "string_type": "it must be text",
    "bool_parsing": "it must be true or false",
}


def explain(error: ValidationError, fields: Mapping[str, object] | None = None) -> str:
    """One clear sentence for a refused request: what came, what must hold.

    Args:
        error: what pydantic raised; its first error is told.
        fields: those of the request, by name, to suggest a name that is allowed and a number within bounds.
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    kind, got, limits = first["type"], first["input"], first.get("ctx", {})
    shown = repr(got) if len(repr(got)) < 80 else repr(got)[:76] + "..."
    if kind == "missing":
        return f"{name} is missing; it must be given"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, list(fields or ()), 1)
        return f"{name} is not a field of {error.title}" + (f" (did you mean {near[0]}?)" if near else "")
    if kind == "literal_error":
        allowed = str(limits["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{name} is {shown}; it must be one of {allowed}"
    if kind == "multiple_of":
        multiple = int(limits["multiple_of"])
        held = getattr((fields or {}).get(name), "metadata", ())
        low = max([multiple, *(m.ge for m in held if hasattr(m, "ge"))])
        high = min([math.inf, *(m.le for m in held if hasattr(m, "le"))])
        near_by = min(max(low, round(float(got) / multiple) * multiple), high)
        return f"{name} is {shown}; it must be a multiple of {multiple} (try {near_by})"
    if kind == "value_error":
        said = str(limits["error"])
        return f"{name} is {shown}; {said}" if name else said
    return f"{name} is {shown}; " + _BOUNDS.get(kind, first["msg"]).format(**limits)
