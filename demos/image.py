"""The Image tab: a prompt becomes pictures; a picture, whole or under a painted mask, becomes another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from demos import shared
from demos.desk import Desk
from modalities.image import adapter

WORDS = shared.Words("draw", "drawn", "picture")
BASIC = (
    ("num_inference_steps", "guidance_scale"),
    ("width", "height"),
    ("num_images", "sampler"),
)  # rows in sight
EMPTY = {"background": None, "layers": [], "composite": None}  # for an editor; None may leave it as it is
EXAMPLES = (
    "a red apple",
    "two lemons",
    "a strawberry on a blue background",
    "a blue automobile, flat emoji",
)


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


def given(drawn: Mapping[str, Any] | None) -> dict[str, Any]:
    """Init and mask as fields of the request, from an ImageEditor's value."""
    init, mask = mask_of(drawn)
    if mask and init and blank(init):
        shared.warn("no picture is loaded below the painting; what is not painted stays white")
    return {"init": init, "mask": mask}


def tab(model: str = "") -> Desk:
    """Builds the tab inside a Blocks.

    Args:
        model: the model to open with; the request's own if empty.
    """
    desk = Desk(adapter, WORDS, model)
    with gr.Column(elem_classes=["desk", adapter.name]):
        desk.ask(EXAMPLES)
        desk.show("Pictures")
        with gr.Column(elem_classes="controls"):
            desk.rows(*BASIC)
            desk.seeds()
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
                desk.again()
                desk.place("strength")
            desk.rest(but=("init", "mask"))  # by hand, through the editor
    desk.wire(editor, given, EMPTY)
    return desk
