"""The 3D tab: a prompt, a picture or photos become meshes; a mesh becomes another, or is finished."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from demos import shared
from demos.desk import QUICK, TELLING, Desk, Made
from modalities.mesh import adapter
from modalities.mesh.read import SUFFIXES, opened
from modalities.mesh.save import Model

WORDS = shared.Words("make", "made", "mesh")
EXAMPLES = (
    "a wooden chair",
    "a red sofa",
    "a golden sword",
    "a tree",
)
BUTTON = "Download"
LOOK = ("metallic", "roughness", "side")


def given(
    init: str | None, image: Image.Image | None, input: str | None, photos: list[str] | None
) -> dict[str, Any]:
    """Files as fields of the request: what they hold, since they have no names that settings could keep.

    Raises: ValueError if one is no mesh.
    """
    told = {"image": image, "init": held("init", init), "input": held("input", input)}
    return {**told, "photos": together(photos) if photos else None}


def held(name: str, path: str | None) -> Any:
    """The mesh of a file, which the user knows by its name alone; None without one."""
    try:
        return opened(name, path) if path else None
    except ValueError as error:
        raise ValueError(shared.by_name(error, path)) from None


def together(files: list[str]) -> str:
    """A folder that holds all of some files, each of which was uploaded to a folder of its own."""
    place = tempfile.mkdtemp(dir=Path(files[0]).parent)
    for file in files:
        shutil.copy(file, place)
    return place


def written(shown: Made, ending: str) -> Path:
    """The mesh as a file of the format asked for, made of the GLB; zipped if that takes several files."""
    levels = sorted(shown.file.parent.glob(f"{shown.file.stem}-lod*.glb"))
    if ending == shown.file.suffix and not levels:
        return shown.file
    place = shown.file.with_suffix(".files") / ending[1:]
    file = place / f"{shown.file.stem}{ending}"
    if not file.exists():
        asked = shown.settings["request"] if shown.settings else {}
        mesh, *others = [opened("mesh", str(one)) for one in (shown.file, *levels)]
        look = {name: asked[name] for name in LOOK if name in asked}
        place.mkdir(parents=True, exist_ok=True)
        Model(mesh, others, shown.settings, **look).save(file)
    if len(list(place.iterdir())) == 1:
        return file
    packed = shown.file.with_name(f"{shown.file.stem}-{ending[1:]}")
    return Path(shutil.make_archive(str(packed), "zip", place))


def fetched(shown: Made | None, ending: str) -> Generator[Any, None, None]:
    """The download in another format, and that it is at work on it."""
    if shown is None:
        return
    yield gr.DownloadButton(f"Writing the {ending[1:]} ...", interactive=False)
    try:
        yield download(written(shown, ending))
    except (ValueError, OSError, ImportError) as error:
        shared.warn(str(error))
        yield download(shown.file)


def download(file: Path) -> gr.DownloadButton:
    """The button for a file."""
    return gr.DownloadButton(f"{BUTTON} {file.name}", value=str(file), interactive=True)


def viewed(shown: Made | None) -> Any:
    """What the viewer gets, the download, and its format."""
    return gr.skip() if shown is None else (str(shown.file), download(shown.file), shown.file.suffix)


def tab(model: str = "") -> None:
    """Builds the tab inside a Blocks.

    Args:
        model: the model to open with; the request's own if empty.
    """
    desk = Desk(adapter, WORDS, model)
    with gr.Column(elem_classes=["desk", adapter.name]):
        desk.ask(EXAMPLES)
        with desk.show("Meshes"):
            viewer = gr.Model3D(label="Mesh", interactive=False, height="var(--tall)", elem_classes="viewer")
            endings = [ending for ending in adapter.suffixes if ending != ".usdz" or find_spec("pxr")]
            ending = gr.Radio(
                [(ending[1:], ending) for ending in endings], value=endings[0], label="File format",
                info="usdz is for AR, stl for printing; html is a page that turns it, mp4, gif, webp a film.",
                elem_classes="ending",
            )  # fmt: skip
            button = gr.DownloadButton(BUTTON, interactive=False, elem_classes="fetch")
        with gr.Column(elem_classes="controls"):
            with gr.Row():
                desk.place("triangles")
                told = [("none", "0"), *((f"{side} px", side) for side in desk.known["texture"].choices[1:])]
                desk.place("texture", choices=told, info="Without one there are colours alone.")
            desk.rows(("height", "size"), ("num_meshes",), ("num_inference_steps", "guidance_scale"))
            desk.seeds()
            with gr.Accordion("Start from a picture", open=False, elem_classes="pictured"):
                picture = gr.Image(
                    type="pil", image_mode=None, format="png", label="Picture", height=240, buttons=[],
                    sources=["upload", "clipboard"], elem_classes="picture",
                )  # fmt: skip
                gr.Markdown("Of one thing on a plain or transparent ground. A prompt beside it may help.")
            with gr.Accordion("Start from photos of all sides", open=False, elem_classes="photos"):
                gr.Markdown(
                    "Drop photos of one thing on a plain ground, taken while it turns once and named in "
                    "that order, and press Make: they are carved into a mesh. No model is asked."
                )
                photos = gr.File(
                    label="Photos", file_count="multiple", file_types=["image", ".json"], height=160
                )
                desk.place("elevation")
            with gr.Accordion("Start from a mesh", open=False, elem_classes="start"):
                start = gr.File(label="Mesh to start from", file_types=[*SUFFIXES], height=160)
                desk.again()
                told = "Shares of its height, from the floor; empty is all of it."
                desk.place("mask", label="Make anew only", placeholder="0-0.3, 0.5-", info=told)
                desk.place("strength")
            with gr.Accordion("Finish a mesh of your own", open=False, elem_classes="own"):
                gr.Markdown(
                    "Drop a mesh and press Make: it is closed, decimated, unwrapped, textured and placed as "
                    "the controls say. No model is asked, and the prompt is only its name."
                )
                own = gr.File(label="Mesh to finish", file_types=[*SUFFIXES], height=160)
            desk.rest(but=("init", "image", "input", "photos", "loop"))
    desk.wire(start, given, None, image=picture, input=own, photos=photos)
    desk.shown.change(viewed, desk.shown, [viewer, button, ending], **QUICK)
    ending.input(fetched, [desk.shown, ending], button, trigger_mode="always_last", **TELLING)
