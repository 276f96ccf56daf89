"""The Image tab: a prompt becomes pictures; a picture, whole or under a painted mask, becomes another."""

from __future__ import annotations

import base64
import random
import re
import tempfile
from collections.abc import Generator, Mapping
from html import escape
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from demos import shared
from modalities.image import adapter
from modalities.image.sheet import tiled
from suite import storage
from suite.request import controls

BASIC = (
    ("num_inference_steps", "guidance_scale"),
    ("width", "height"),
    ("num_images", "sampler"),
)  # rows in sight
EMPTY = {"background": None, "layers": [], "composite": None}  # for an editor; None may leave it as it is
BY_HAND = {"init", "mask"}  # through the editor
EXAMPLES = (
    "a red apple",
    "two lemons",
    "a strawberry on a blue background",
    "a blue automobile, flat emoji",
)
OWN = {"prompt", "negative_prompt", "seed"}  # stay when another model brings its defaults
KEPT = 24  # pictures in the gallery
PREVIEW = 256  # pixels


def mask_of(drawn: Mapping[str, Any] | None) -> tuple[Image.Image | None, Image.Image | None]:
    """(init, mask) of an ImageEditor's value: the picture, and white where anything was painted over it."""
    if not drawn:
        return None, None
    mask = None
    for layer in drawn["layers"]:
        painted = layer.getchannel("A").point(lambda alpha: 255 * (alpha > 0))
        mask = ImageChops.lighter(mask, painted) if mask else painted
    return drawn["background"], mask if mask and mask.getbbox() else None


def blank(picture: Image.Image) -> bool:
    """Whether all is white, as the canvas that an ImageEditor sends when no picture is loaded."""
    return all(low == 255 for low, _ in picture.convert("RGBA").getextrema())


def preview(pictures: list[Image.Image], what: str) -> str:
    """Pictures side by side in one JPEG of at most PREVIEW pixels, inside an HTML element."""
    sheet = tiled(pictures)
    scale = PREVIEW / max(sheet.size)
    sheet = sheet.resize([max(1, round(side * scale)) for side in sheet.size], Image.Resampling.BICUBIC)
    held = BytesIO()
    sheet.save(held, "JPEG", quality=80)
    data = base64.b64encode(held.getvalue()).decode()
    return f'<img alt="Preview: {escape(what)}" src="data:image/jpeg;base64,{data}">'


def kept(moment: shared.Moment, prompt: str, folder: str) -> list[tuple[str, str]]:
    """(path, caption) of a run's pictures, saved as PNG with their settings."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder))
    stem = re.sub(r"\W+", "-", prompt).strip("-")[:40] or "picture"
    saved = []
    for i, picture in enumerate(moment.items):
        if moment.settings:
            seed = moment.settings[i]["request"]["seed"]
            path, caption = place / f"{stem}-{seed}.png", f"{prompt[:80]}, seed {seed}"
            adapter.save(picture, path, moment.settings[i])
        else:
            path, caption = place / f"{stem}-unfinished-{i}.png", f"{prompt[:80]}, {moment.status}"
            picture.save(path)
        saved.append((str(path), caption))
    return saved


def tab(model: str = "") -> None:
    """Builds the tab inside a Blocks.

    Args:
        model: the model to open with; the request's own if empty.
    """
    known = controls(adapter.request)
    choices = shared.models(adapter, model or known["model"].default)
    values = shared.defaults(adapter, choices[0][1])
    fields: dict[str, gr.components.Component] = {}
    stops: dict[str, Event] = {}

    def place(*names: str, **more: Any) -> None:
        fields.update({name: shared.widget(known[name], values[name], **more) for name in names})

    try:
        storage.find(values["model"])
        opening = shared.status("Say what to draw, then press Draw or Ctrl+Enter.")
    except storage.ModelError as error:
        opening = shared.status(str(error), refused=True)

    with gr.Column(elem_classes="desk"):
        with gr.Column(elem_classes="ask"):
            place("prompt", lines=2, placeholder=EXAMPLES[0])
            place("negative_prompt")
            with gr.Row():
                draw = gr.Button("Draw", variant="primary", elem_classes="draw", scale=3)
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_classes="stop", min_width=90)
            gr.Examples([[text] for text in EXAMPLES], [fields["prompt"]], label="Examples")
        with gr.Column(elem_classes="show"):
            live = gr.HTML(elem_classes="live", label="Preview")
            gallery = gr.Gallery(
                label="Pictures", format="png", preview=True, object_fit="contain",
                buttons=["download", "fullscreen"], elem_classes="gallery", interactive=False,
            )  # fmt: skip
            line = gr.HTML(opening, elem_classes="status", html_template='<div role="status">${value}</div>')
        with gr.Column(elem_classes="controls"):
            for names in BASIC:
                with gr.Row():
                    place(*names)
            with gr.Row(elem_classes="seeds"):
                with gr.Group():
                    place("seed")
                    rolling = gr.Checkbox(True, label="New seed for every drawing", elem_classes="rolling")
                with gr.Column(scale=0, min_width=110):
                    dice = gr.Button("Random", size="sm", elem_classes="dice")
                    reuse = gr.Button("Reuse shown", size="sm", elem_classes="reuse")
            with gr.Accordion("Start from a picture", open=False, elem_classes="start"):
                gr.Markdown(
                    "Drop a picture to redraw it; it is cropped to the width and height asked for. "
                    "Paint over a part to redraw only that part."
                )
                editor = gr.ImageEditor(
                    type="pil", image_mode="RGBA", format="png", label="Picture", transforms=None,
                    sources=["upload", "clipboard"], layers=gr.LayerOptions(allow_additional_layers=False),
                    brush=gr.Brush(16, [("rgb(219, 39, 119)", 0.7)], color_mode="fixed"), buttons=[],
                    elem_classes="editor",
                )  # fmt: skip
                again = gr.Button("Take the picture shown", size="sm", elem_classes="again")
                place("strength")
            with gr.Accordion("Advanced", open=False, elem_classes="advanced"):
                place("model", choices=choices)
                place(*(name for name in known if name not in fields and name not in BY_HAND))
            file = gr.File(
                label="Drop a picture drawn here to restore its settings", height=160, elem_classes="restore"
            )
    history, chosen, seed = gr.State([]), gr.State(0), fields["seed"]

    def roll() -> int:
        return random.randrange(int(known["seed"].high) + 1)

    def begin(anew: bool, session: gr.Request) -> dict[Any, Any]:
        stops[session.session_hash] = Event()
        buttons = {draw: gr.Button(interactive=False), stop: gr.Button(interactive=True)}
        new = {seed: roll()} if anew else {}
        return {**buttons, **new, line: shared.status("waiting for its turn", 0.0)}

    def drawing(told: dict[Any, Any], session: gr.Request) -> Generator[dict[Any, Any], None, None]:
        asked = {name: told[component] for name, component in fields.items()}
        asked |= {name: None for name, value in asked.items() if value == "" and known[name].kind != "text"}
        asked["init"], asked["mask"] = mask_of(told[editor])
        if asked["mask"] and asked["init"] and blank(asked["init"]):
            shared.warn("no picture is loaded below the painting; what is not painted stays white")
        for moment in shared.run(adapter, asked, stops.setdefault(session.session_hash, Event())):
            update = {line: shared.status(moment.status, moment.done, refused=moment.refused)}
            if moment.refused:
                shared.warn(moment.status)
            if moment.preview:
                update[live] = preview(moment.preview, moment.status)
            if moment.items:
                shown = [*kept(moment, asked["prompt"], gallery.GRADIO_CACHE), *told[history]][:KEPT]
                update |= {gallery: gr.Gallery(shown, selected_index=0), history: shown, chosen: 0}
            yield update

    def finish() -> dict[Any, Any]:
        return {live: "", draw: gr.Button(interactive=True), stop: gr.Button(interactive=False)}

    def halt(session: gr.Request) -> None:
        stops.setdefault(session.session_hash, Event()).set()

    def forget(session: gr.Request) -> None:
        stops.pop(session.session_hash, Event()).set()

    def restore(path: str) -> dict[Any, Any]:
        try:
            found = shared.restored(adapter, path)
        except ValueError as error:
            shared.warn(str(error))
            return {file: None}
        values = {component: found[name] for name, component in fields.items()}
        todo = ["settings restored"]
        if found["init"]:
            part = " and paint the part again" if found["mask"] else ""
            todo.append(f"drop the picture it started from as well{part}")
        else:
            values[editor] = EMPTY
        if found["model"] in [value for _, value in choices]:
            todo.append("press Draw" if found["mask"] else "press Draw for the same picture")
        else:
            del values[fields["model"]]
            todo.append(f"its model {found['model']!r} is not in the list, so Draw makes another picture")
        return {**values, rolling: False, file: None, line: shared.status("; ".join(todo))}

    def adopt(name: str) -> dict[Any, Any]:
        told = shared.defaults(adapter, name)
        return {part: told[field] for field, part in fields.items() if field not in OWN}

    def reuse_seed(pictures: list[tuple[str, str]], number: int) -> Any:
        try:
            return {seed: adapter.restore(Path(pictures[number][0]))["seed"], rolling: False}
        except (ValueError, IndexError):
            shared.warn("there is no finished picture whose seed could be used again")
            return gr.skip()

    def take(pictures: list[tuple[str, str]], number: int) -> Any:
        if number < len(pictures):
            return pictures[number][0]
        shared.warn("there is no picture yet")
        return gr.skip()

    def select(event: gr.SelectData) -> int:
        return event.index

    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    quick, telling = (
        {**plain, "queue": False},
        {**plain, "concurrency_limit": None},
    )  # only the queue carries warnings
    draw.click(begin, rolling, [draw, stop, seed, line], **quick).then(
        drawing, {*fields.values(), editor, history}, [line, live, gallery, history, chosen],
        concurrency_id="gpu", concurrency_limit=1, **plain,
    ).then(finish, None, [live, draw, stop], **quick)  # fmt: skip
    stop.click(halt, **quick)
    dice.click(lambda: (roll(), False), None, [seed, rolling], **quick)
    reuse.click(reuse_seed, [history, chosen], [seed, rolling], **telling)
    again.click(take, [history, chosen], editor, **telling)
    gallery.select(select, None, chosen, **quick)
    file.upload(restore, file, [*fields.values(), editor, rolling, line, file], **telling)
    fields["model"].input(adopt, fields["model"], list(fields.values()), **quick)
    gr.context.Context.root_block.unload(forget)
