"""The Audio tab: a prompt becomes sounds; a sound, whole or in part, becomes another or goes on."""

from __future__ import annotations

from typing import Any

import gradio as gr
import soundfile

from demos import shared
from demos.desk import QUICK, Desk, Made
from modalities.audio import adapter
from modalities.audio.read import opened
from modalities.audio.save import Sound

WORDS = shared.Words("make", "made", "sound")
EXAMPLES = (
    "a dog barking",
    "a flute playing A4, then C5",
    "four piano notes at 120 bpm",
    "rain",
)
# A part that a user asks to make anew starts from noise, as `AudioRequest.filled` has it.
STRONGER = "(text, strength) => text === window.region ? strength : text.trim() ? 1 : %s"


def given(path: str | None) -> dict[str, Any]:
    """Init as a field of the request: its samples, since the file has no name that settings could keep.

    Raises: ValueError if it is no sound.
    """
    found = shared.opened(opened, "init", path)
    return {"init": Sound(*found, None) if found else None}


def played(shown: Made | None, ending: str) -> dict[str, Any]:
    """What the player gets: the sound as a file of the format asked for, from one that is there."""
    if shown is None:
        return gr.skip()
    file = shown.file.with_suffix(ending)
    if not file.exists():
        samples, rate = soundfile.read(shown.file, dtype="float32", always_2d=True)
        Sound(samples.T, rate, shown.settings).save(file)
    return gr.Audio(str(file), loop=bool(shown.settings and shown.settings["request"]["loop"]))


def tab(model: str = "") -> Desk:
    """Builds the tab inside a Blocks.

    Args:
        model: the model to open with; the request's own if empty.
    """
    desk = Desk(adapter, WORDS, model)
    with gr.Column(elem_classes=["desk", adapter.name]):
        desk.ask(EXAMPLES)
        with desk.show("Spectrograms"):
            player = gr.Audio(
                label="Sound", interactive=False, buttons=["download"], elem_classes="player", type="filepath"
            )
            endings = [(ending[1:], ending) for ending in adapter.suffixes]
            ending = gr.Radio(endings, value=endings[0][1], label="File format", elem_classes="ending")
        with gr.Column(elem_classes="controls"):
            with gr.Row():
                desk.place("seconds", label="Seconds")
                desk.place("channels", choices=[("mono", 1), ("stereo", 2)])
            with gr.Row():
                desk.place("num_audios", label="Number of sounds")
                desk.place("loop", info="The end goes on at the beginning; the player repeats it.")
            with gr.Row():
                desk.place("num_inference_steps", "guidance_scale")
            desk.seeds()
            with gr.Accordion("Start from a sound", open=False, elem_classes="start"):
                gr.Markdown(
                    "Drop a sound or record one to make it anew, or only a part of it. To go on after its "
                    "end, ask for more seconds than it has and make it anew from there."
                )
                start = gr.Audio(
                    label="Sound to start from", sources=["upload", "microphone"], type="filepath",
                    buttons=[], elem_classes="source",
                )  # fmt: skip
                desk.again()
                told = "Empty is all of it; 4- is from there to the end."
                desk.place("mask", label="Make anew only these seconds", placeholder="1-2.5, 4-", info=told)
                desk.place("strength")
            with gr.Accordion("Loudness", open=False, elem_classes="loudness"):
                desk.place("normalize", "loudness", "ceiling")
            desk.rest(but=("init",))
    desk.wire(start, given, None)
    gr.on([desk.shown.change, ending.input], played, [desk.shown, ending], player, **QUICK)
    region, strength = desk.fields["mask"], desk.fields["strength"]
    region.focus(None, region, None, js="text => { window.region = text; }", **QUICK)
    region.blur(None, [region, strength], strength, js=STRONGER % desk.values["strength"], **QUICK)
    return desk
