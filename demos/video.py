"""The Video tab: a prompt becomes clips that move while they are made; pictures or a clip begin them."""

from __future__ import annotations

import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from demos import fetch, shared
from demos.desk import Desk, Made
from modalities.image.sheet import tiled
from modalities.video import VideoAdapter, VideoRequest
from modalities.video.read import opened
from modalities.video.save import Clip
from suite.request import Request

if TYPE_CHECKING:
    from torch import Tensor

WORDS = shared.Words("make", "made", "clip")
EXAMPLES = (
    "a red apple flying from left to right",
    "a dog bouncing",
    "a rocket taking off",
    "a blue car spinning clockwise",
)
FRAMES, SIDE = 24, 96  # of a preview at most; pixels


class Live(VideoAdapter):
    """Clips as the page has them: they move while they are made, and none is lost to what is done to it."""

    def preview(self, small: Tensor) -> list[Any]:
        """(B, 3, T, h, w) in [-1, 1] to small clips of some of the frames."""
        count = min(FRAMES, small.shape[2])
        chosen = small[:, :, [i * small.shape[2] // count for i in range(count)]]
        pixels = chosen.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 4, 1)
        rate = VideoRequest.model_fields["fps"].default * count / small.shape[2]
        return [Clip(frames, rate) for frames in pixels.contiguous().numpy()]

    def finish(
        self, decoded: Tensor, request: Request, settings: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any]:
        """As of `VideoAdapter`; a clip stays as the model made it if it was stopped."""
        bare = request.model_copy(update={"interpolate": 1, "transparent": False, "sound": ""})
        return super().finish(decoded, request if settings else bare, settings)

    def warn(self, sentence: str) -> None:
        """Tells on the page what could not be had."""
        shared.warn(sentence)

    def restore(self, path: Path) -> dict[str, Any]:
        """As of `VideoAdapter`; of an archive of frames or of a sprite sheet, too."""
        if not zipfile.is_zipfile(path):
            return super().restore(path)
        try:
            with zipfile.ZipFile(path) as packed, tempfile.TemporaryDirectory() as place:
                name = next(name for name in packed.namelist() if name.endswith(".json"))
                return super().restore(Path(packed.extract(name, place)))
        except (StopIteration, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
            raise ValueError(f"{path} is an archive without settings of a clip that can be read") from None


def moving(clips: Sequence[Clip], what: str) -> str:
    """Small clips beside each other in one animated WebP, inside an HTML element.

    It begins at the moment that one which began with the clock would be at, so that the next preview goes on
    where this one was.
    """
    moments = zip(*(clip.frames for clip in clips), strict=True)
    frames = [tiled([Image.fromarray(frame) for frame in moment]) for moment in moments]
    for frame in frames:
        frame.thumbnail((SIDE, SIDE))
    now, held = int(time.monotonic() * clips[0].fps) % len(frames), BytesIO()
    first, *others = frames[now:] + frames[:now]
    told: dict[str, Any] = {"duration": round(1000 / clips[0].fps), "loop": 0, "quality": 80, "method": 0}
    first.save(held, "WEBP", save_all=True, append_images=others, **told)
    return shared.inline(held.getvalue(), "webp", what)


def keep(clip: Clip, file: Path) -> Path:
    """Saves a clip, beside it what other formats are made of, and the picture of its middle, as returned."""
    clip.save(file)
    samples, rate = clip.sound or (np.zeros((1, 0), np.float32), 0)
    heard = {"samples": samples, "rate": rate}
    np.savez(file.with_suffix(".npz"), frames=clip.frames, fps=clip.fps, loop=clip.loop, **heard)
    picture, middle = file.with_suffix(".png"), len(clip.frames) // 2
    Clip(clip.frames[middle : middle + 1], clip.fps).picture(1).save(picture)
    return picture


def kept(shown: Made) -> Clip:
    """The clip that `keep` saved, without the losses of its file."""
    with np.load(shown.file.with_suffix(".npz")) as held:
        sound = (held["samples"], int(held["rate"])) if held["rate"] else None
        return Clip(held["frames"], float(held["fps"]), shown.settings, sound, bool(held["loop"]))


def written(shown: Made, ending: str) -> Path:
    """The clip as a file of the format asked for; zipped if that takes several."""
    if ending == shown.file.suffix:
        return shown.file
    return fetch.written(shown, ending, lambda file: kept(shown).save(file))


def given(init: str | None, **pictures: Image.Image | None) -> dict[str, Any]:
    """Files as fields of the request: what they hold, since they have no names that settings could keep.

    Raises: ValueError if one is no clip.
    """
    found = shared.opened(opened, "init", init)
    if found is None:
        return {"init": None, **pictures}
    frames, rate = found
    return {"init": Clip(frames, rate) if rate else Image.fromarray(frames[0]), **pictures}


def tab(model: str = "") -> Desk:
    """Builds the tab inside a Blocks.

    Args:
        model: the model to open with; the request's own if empty.
    """
    adapter = Live()
    desk = Desk(adapter, WORDS, model, keep, moving)
    with gr.Column(elem_classes=["desk", adapter.name, "viewed"]):
        desk.ask(EXAMPLES)
        with desk.show("Clips"):
            player = gr.Video(
                label="Clip", interactive=False, autoplay=True, loop=True, buttons=[], height="var(--tall)",
                elem_classes="viewer",
            )  # fmt: skip
            told = "gif, webp and png move, too; frames are zipped PNGs, json is a zipped sheet of sprites."
            fetch.place(desk, player, written, adapter.suffixes, f"{told} Only mp4 is never transparent.")
        with gr.Column(elem_classes="controls"):
            with gr.Row():
                desk.place("num_frames")
                desk.place("fps", label="Frame rate")
            with gr.Row():
                desk.place("interpolate")
                desk.place("num_videos", label="Number of clips")
            desk.rows(("width", "height"), ("loop", "transparent"))
            desk.place("sound")
            desk.rows(("num_inference_steps", "guidance_scale"))
            desk.seeds()
            with gr.Accordion("Start from pictures", open=False, elem_classes="pictured"):
                with gr.Row():
                    image, last = shared.picture("First frame"), shared.picture("Last frame")
                gr.Markdown("One of them will do. They are cropped to the width and height asked for.")
            with gr.Accordion("Start from a clip", open=False, elem_classes="start"):
                start = gr.File(label="Clip to start from", file_types=["video", "image"], height=160)
                desk.again()
                mask = shared.picture("Mask")
                gr.Markdown("White in the mask is where to make the clip anew; without one, all of it is.")
                desk.place("strength")
            desk.rest(but=("init", "image", "last_image", "mask"))
    desk.wire(start, given, None, image=image, last_image=last, mask=mask)
    return desk
