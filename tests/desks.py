"""A tab's handlers, called as Gradio calls them."""

from types import SimpleNamespace

import gradio as gr

from demos.desk import Desk

SESSION = SimpleNamespace(session_hash="a")


def desk_of(tab, model):
    """The desk of a page that has only this tab."""
    with gr.Blocks() as blocks:
        tab(str(model))
    owners = {getattr(held.fn, "__self__", None) for held in blocks.fns.values()}
    (desk,) = (owner for owner in owners if isinstance(owner, Desk))
    desk.blocks = blocks
    return desk


def ask(desk, start=None, **changed):
    """What the page would send."""
    told = {part: changed.get(name, part.value) for name, part in desk.fields.items()}
    return {**told, desk.start: start, desk.history: []}


def make(desk, start=None, **changed):
    """What a run ends with."""
    *_, last = desk.making(ask(desk, start, **{"prompt": "x", **changed}), SESSION)
    return last


def made(desk, start=None, **changed):
    """What a run makes."""
    return make(desk, start, **changed)[desk.history]


def outputs(desk, handler):
    """The components that a handler may change."""
    return {part for held in desk.blocks.fns.values() if held.fn == handler for part in held.outputs}
