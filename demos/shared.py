"""What every tab shares: widgets from the request's controls, loaded models, a run that can be stopped."""

from __future__ import annotations

import base64
import logging
import math
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image
from pydantic import ValidationError

from modalities.image.sheet import tiled
from suite import storage
from suite.adapter import Adapter, settings
from suite.request import Control, controls, explain

if TYPE_CHECKING:
    from suite.pipeline import Pipeline

GATE = 0.125  # seconds between previews; a browser drops the picture it loads when the next one comes
POSITIONS = 200  # a slider with more is no help
PREVIEW = 256  # pixels


@dataclass(frozen=True)
class Words:
    """How the page speaks of a medium.

    Attributes:
        make: what is done, "draw".
        made: what it is then, "drawn".
        thing: what it is done to, "picture".
    """

    make: str
    made: str
    thing: str


@dataclass(frozen=True)
class Moment:
    """What a run has to show: a status line, and perhaps pictures or results.

    Attributes:
        status: one sentence.
        done: share of the work, 0 to 1; None while that is unknown or when it is over.
        preview: pictures of the items at work.
        items: finished, or as far as they got; empty until the end.
        settings: of each item, if it was finished.
        refused: the status says why nothing was made.
    """

    status: str
    done: float | None = None
    preview: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    refused: bool = False


@lru_cache(maxsize=2)
def pipeline(adapter: Adapter, model: str) -> Pipeline:
    """The model, loaded at its first use."""
    from suite.pipeline import load

    return load(adapter, model)


def models(adapter: Adapter, first: str) -> list[tuple[str, str]]:
    """(label, value) of the models a medium can choose from: `first`, then the shipped ones."""
    found = [first]
    for name, folder in storage.shipped().items():
        try:
            told = storage.config(folder)
        except storage.ModelError:
            continue
        if (told.get("modality"), told.get("kind")) == (adapter.name, "diffusion") and name != first:
            found.append(name)
    return [(Path(model).name, model) for model in found]


def defaults(adapter: Adapter, model: str) -> dict[str, Any]:
    """Field -> value that a tab opens with; the request's own where the model is missing or says nothing."""
    known = {name: control.default for name, control in controls(adapter.request).items()}
    try:
        told = storage.config(storage.find(model)).get("defaults", {})
    except storage.ModelError:
        told = {}
    return {**known, **{name: told[name] for name in told if name in known}, "model": model}


def widget(control: Control, value: Any, words: Words, **more: Any) -> gr.components.Component:
    """The Gradio component for a field of the request; `more` goes to its constructor."""
    help = re.sub(r"\bdraw\b", words.make, control.help)
    help = re.sub(r"\bdrawn\b", words.made, help)
    label = re.sub("^num_", "number of ", control.alias or control.name).replace("_", " ").capitalize()
    told: dict[str, Any] = {
        "value": value,
        "label": f"{label} ({control.unit})" if control.unit else label,
        "info": help if help.rstrip(".").lower() != label.lower() else None,
        **more,
    }
    if control.kind == "bool":
        return gr.Checkbox(**told)
    if control.kind == "choice" or "choices" in more:
        return gr.Dropdown(**{"choices": list(control.choices), **told})
    if control.kind == "text":
        return gr.Textbox(**told)
    low, high, step = control.low, control.high, control.step or 0.01
    if value is None:  # a gr.Number would open with 0
        return gr.Textbox(**{"placeholder": "chosen by itself", **told})
    if low is None or high is None or (high - low) / step > POSITIONS:
        return gr.Number(step=step, **told)  # without bounds: the request judges, in its own words
    told = {"min_width": 200, "precision": 0 if control.kind == "int" else 4, **told}
    return gr.Slider(low, high, step=step, **told)


def run(
    adapter: Adapter, fields: Mapping[str, Any], stopped: Event, words: Words
) -> Generator[Moment, None, None]:
    """Makes what is asked for, telling what to show on the way; whatever goes wrong becomes a sentence.

    Args:
        adapter: the medium.
        fields: of its request.
        stopped: looked at after every step.
        words: of the medium.
    """
    try:
        request = adapter.request(**fields)
        adapter.check(request)
        if stopped.is_set():
            yield Moment("stopped before the first step")
            return
        began = time.monotonic()
        yield Moment("at work", 0.0)
        ready = adapter.ready(request)
        if ready is not None:
            told = [settings(adapter, request, request.seed)]
            yield Moment(f"finished in {time.monotonic() - began:.1f} s", items=[ready], settings=told)
            return
        yield Moment("loading the model", 0.0)
        from suite.drive import Kept

        loaded = pipeline(adapter, request.model)
        shown = float("-inf")
        with closing(loaded.trace(request)) as steps:
            for progress in (run := Kept(steps)):
                at, seconds = f"step {progress.step} of {progress.steps}", f"{progress.seconds:.1f} s"
                if stopped.is_set():
                    partial = adapter.finish(loaded.latent.decode(progress.denoised).float().cpu(), request)
                    yield Moment(f"stopped at {at} after {seconds}", items=partial)
                    return
                if time.monotonic() - shown >= GATE:
                    yield Moment(f"{at}, {seconds}", progress.step / progress.steps, progress.preview())
                    shown = time.monotonic()
        result = run.value
        yield Moment(f"{words.made} in {result.seconds:.1f} s", items=result.items, settings=result.settings)
    except ValidationError as error:
        yield Moment(explain(error, adapter.request.model_fields), refused=True)
    except (ValueError, FloatingPointError, MemoryError, OSError, ImportError) as error:
        yield Moment(str(error), refused=True)
    except Exception as error:  # the app goes on living
        logging.getLogger(__name__).exception("the run failed")
        yield Moment(f"the run failed: {error}", refused=True)


def restored(adapter: Adapter, path: str) -> dict[str, Any]:
    """The fields a saved file carries, judged by the request; files they name are not at hand.

    Args:
        adapter: the medium.
        path: of the file.
    Raises: ValueError, in one sentence.
    """
    try:
        return adapter.request(**adapter.restore(Path(path))).model_dump()
    except ValidationError as error:
        raise ValueError(f"the settings in this file cannot be used: {explain(error)}") from None
    except ValueError as error:
        raise ValueError(by_name(error, path)) from None


def by_name(error: Exception, path: str) -> str:
    """What an error says of a file, which the user knows by its name alone."""
    return str(error).replace(path, Path(path).name)


def opened(reader: Callable[[str, str], Any], name: str, path: str | None) -> Any:
    """What the reader makes of a field's file, which the user knows by its name alone; None without one."""
    try:
        return reader(name, path) if path else None
    except ValueError as error:
        raise ValueError(by_name(error, path)) from None


def picture(label: str) -> gr.Image:
    """The place for a picture that a request takes."""
    return gr.Image(
        type="pil", image_mode=None, format="png", label=label, height=240, buttons=[],
        sources=["upload", "clipboard"], elem_classes="picture",
    )  # fmt: skip


def keep(item: Any, file: Path) -> Path:
    """Saves an item and, if it is no picture itself, one of it; returns where that lies."""
    item.save(file)
    if not hasattr(item, "picture"):
        return file
    item.picture().save(file.with_suffix(".png"))
    return file.with_suffix(".png")


def preview(pictures: Sequence[Image.Image], what: str) -> str:
    """Pictures in one JPEG of at most PREVIEW pixels, as near a square as they go, inside an HTML element."""
    width, height = pictures[0].size
    sheet = tiled(pictures, math.ceil((len(pictures) * height / width) ** 0.5))
    scale = PREVIEW / max(sheet.size)
    sheet = sheet.resize([max(1, round(side * scale)) for side in sheet.size], Image.Resampling.BICUBIC)
    held = BytesIO()
    sheet.save(held, "JPEG", quality=80)
    return inline(held.getvalue(), "jpeg", what)


def inline(picture: bytes, form: str, what: str) -> str:
    """A preview's file as an HTML element."""
    data = base64.b64encode(picture).decode()
    return f'<img alt="Preview: {escape(what)}" src="data:image/{form};base64,{data}">'


def status(sentence: str, done: float | None = None, *, refused: bool = False) -> str:
    """The status line as HTML; with a bar while `done` says how much is."""
    bar = "" if done is None else f'<progress max="1" value="{done:.3f}" aria-hidden="true"></progress>'
    return f'<p class="{"refused" if refused else ""}">{escape(sentence)}</p>{bar}'


def warn(sentence: str) -> None:
    """Tells what the user can mend, without painting over the page."""
    gr.Warning(escape(sentence))
