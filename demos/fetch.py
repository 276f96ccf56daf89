"""A viewer of the item shown and its download, in any format, which is written when it is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demos import shared
from demos.desk import QUICK, TELLING, Desk, Made

BUTTON = "Download"
Write = Callable[[Made, str], Path]


def place(
    desk: Desk, viewer: gr.components.Component, write: Write, endings: Sequence[str], info: str
) -> None:
    """The choice of a format and the download, tied to a viewer.

    Args:
        desk: of the tab.
        viewer: gets the file of the item shown.
        write: makes a file of an item, in the format of an ending.
        endings: of the files that may be had; the first is that of the item's own.
        info: what to say of them.
    """
    choices = [(ending[1:], ending) for ending in endings]
    told: dict[str, Any] = {"label": "File format", "info": info, "elem_classes": "ending"}
    ending = gr.Radio(choices, value=endings[0], **told)
    button = gr.DownloadButton(BUTTON, interactive=False, elem_classes="fetch")
    desk.shown.change(viewed, desk.shown, [viewer, button, ending], **QUICK)
    chosen = [desk.shown, ending]
    ending.input(partial(fetched, write), chosen, button, trigger_mode="always_last", **TELLING)


def viewed(shown: Made | None) -> Any:
    """What the viewer gets, the download, and its format."""
    return gr.skip() if shown is None else (str(shown.file), download(shown.file), shown.file.suffix)


def fetched(write: Write, shown: Made | None, ending: str) -> Generator[Any, None, None]:
    """The download in another format, and that it is at work on it."""
    if shown is None:
        return
    yield gr.DownloadButton(f"Writing the {ending[1:]} ...", interactive=False)
    try:
        yield download(write(shown, ending))
    except (ValueError, OSError, ImportError) as error:
        shared.warn(str(error))
        yield download(shown.file)


def download(file: Path) -> gr.DownloadButton:
    """The button for a file."""
    return gr.DownloadButton(f"{BUTTON} {file.name}", value=str(file), interactive=True)


def written(shown: Made, ending: str, save: Callable[[Path], None]) -> Path:
    """The file of a format, once `save` has written it; zipped if that took several."""
    place = shown.file.with_suffix(".files") / ending[1:]
    file = place / f"{shown.file.stem}{ending}"
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        save(file)
    if file.is_file() and len(list(place.iterdir())) == 1:
        return file
    packed = shown.file.with_name(f"{shown.file.stem}-{ending[1:]}")
    return Path(shutil.make_archive(str(packed), "zip", place))
