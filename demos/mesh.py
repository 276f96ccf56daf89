"""The 3D tab: a prompt, a picture or photos become meshes; a mesh becomes another, or is finished."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from demos import fetch, shared
from demos.desk import Desk, Made
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
LOOK = ("metallic", "roughness", "side")


def given(
    init: str | None, image: Image.Image | None, input: str | None, photos: list[str] | None
) -> dict[str, Any]:
    """Files as fields of the request: what they hold, since they have no names that settings could keep.

    Raises: ValueError if one is no mesh.
    """
    meshes = {name: shared.opened(opened, name, path) for name, path in (("init", init), ("input", input))}
    return {**meshes, "image": image, "photos": together(photos) if photos else None}


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

    def save(file: Path) -> None:
        asked = shown.settings["request"] if shown.settings else {}
        mesh, *others = [opened("mesh", str(one)) for one in (shown.file, *levels)]
        look = {name: asked[name] for name in LOOK if name in asked}
        Model(mesh, others, shown.settings, **look).save(file)

    return fetch.written(shown, ending, save)


def tab(model: str = "") -> Desk:
    """Builds the tab inside a Blocks.

    Args:
        model: the model to open with; the request's own if empty.
    """
    desk = Desk(adapter, WORDS, model)
    with gr.Column(elem_classes=["desk", adapter.name, "viewed"]):
        desk.ask(EXAMPLES)
        with desk.show("Meshes"):
            viewer = gr.Model3D(label="Mesh", interactive=False, height="var(--tall)", elem_classes="viewer")
            endings = [ending for ending in adapter.suffixes if ending != ".usdz" or find_spec("pxr")]
            told = "usdz is for AR, stl for printing; html is a page that turns it, mp4, gif, webp a film."
            fetch.place(desk, viewer, written, endings, told)
        with gr.Column(elem_classes="controls"):
            with gr.Row():
                desk.place("triangles")
                told = [("none", "0"), *((f"{side} px", side) for side in desk.known["texture"].choices[1:])]
                desk.place("texture", choices=told, info="Without one there are colours alone.")
            desk.rows(("height", "size"), ("num_meshes",), ("num_inference_steps", "guidance_scale"))
            desk.seeds()
            with gr.Accordion("Start from a picture", open=False, elem_classes="pictured"):
                picture = shared.picture("Picture")
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
            desk.rest(but=("init", "image", "input", "photos", "loop", "draco"))  # the viewer reads no Draco
    desk.wire(start, given, None, image=picture, input=own, photos=photos)
    return desk
