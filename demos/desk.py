"""What every tab is made of: the prompt, the run, what came of it, the way back from a saved file."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import gradio as gr

from demos import shared
from suite import storage
from suite.adapter import Adapter
from suite.request import controls

KEPT = 24  # items of a session
OWN = {"prompt", "negative_prompt", "seed"}  # stay when another model brings its defaults
PLAIN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
QUICK: dict[str, Any] = {**PLAIN, "queue": False}
Given = Callable[..., dict[str, Any]]
TELLING: dict[str, Any] = {**PLAIN, "concurrency_limit": None}  # only the queue tells of warnings and states


class Made(NamedTuple):
    """An item of the session.

    Attributes:
        file: where it lies.
        picture: what the gallery shows of it.
        caption: its prompt, and its seed or how far it got.
        settings: None if it was stopped.
    """

    file: Path
    picture: Path
    caption: str
    settings: dict[str, Any] | None


class Desk:
    """A tab: its widgets by field of the request, and each session's way to stop its run.

    A medium's own module lays the parts out between its own, then calls `wire`.
    """

    def __init__(
        self,
        adapter: Adapter,
        words: shared.Words,
        model: str = "",
        keep: Callable[[Any, Path], Path] = shared.keep,
        preview: Callable[[Sequence[Any], str], str] = shared.preview,
    ) -> None:
        """Takes the medium and how to speak of it.

        Args:
            adapter: the medium.
            words: of the medium.
            model: the model to open with; the request's own if empty.
            keep: saves an item and returns where a picture of it lies.
            preview: makes an HTML element of what the adapter previews, and what it is.
        """
        self.adapter, self.words, self.keep, self.preview = adapter, words, keep, preview
        self.known = controls(adapter.request)
        self.choices = shared.models(adapter, model or self.known["model"].default)
        self.values = shared.defaults(adapter, self.choices[0][1])
        self.fields: dict[str, gr.components.Component] = {}
        self.stops: dict[str, Event] = {}
        self.history, self.shown = gr.State([]), gr.State(None)

    def place(self, *names: str, **more: Any) -> None:
        """The widgets of some fields; `more` goes to their constructors."""
        for name in names:
            told = {"elem_id": f"{self.adapter.name}-{name}", **more}
            self.fields[name] = shared.widget(self.known[name], self.values[name], self.words, **told)

    def rows(self, *rows: Sequence[str]) -> None:
        """Rows of widgets."""
        for names in rows:
            with gr.Row():
                self.place(*names)

    def ask(self, examples: Sequence[str]) -> None:
        """The prompts, what starts and stops a run, and examples."""
        with gr.Column(elem_classes="ask"):
            self.place("prompt", lines=2, placeholder=examples[0])
            self.place("negative_prompt")
            with gr.Row():
                make = self.words.make.capitalize()
                self.go = gr.Button(make, variant="primary", elem_classes="go", scale=3)
                self.stop = gr.Button(
                    "Stop", variant="stop", interactive=False, elem_classes="stop", min_width=90
                )
            gr.Examples([[text] for text in examples], [self.fields["prompt"]], label="Examples")

    def show(self, label: str) -> gr.Column:
        """The run as it goes, a gallery of what was made, the status line; more may be put below."""
        make = self.words.make
        try:
            storage.find(self.values["model"])
            opening = shared.status(f"Say what to {make}, then press {make.capitalize()} or Ctrl+Enter.")
        except storage.ModelError as error:
            opening = shared.status(str(error), refused=True)
        with gr.Column(elem_classes="show") as self.side:
            self.live = gr.HTML(elem_classes="live", label="Preview")
            self.gallery = gr.Gallery(
                label=label, format="png", preview=True, object_fit="contain", interactive=False,
                buttons=["download", "fullscreen"], elem_classes="gallery",
            )  # fmt: skip
            template = '<div role="status">${value}</div>'
            self.line = gr.HTML(opening, elem_classes="status", html_template=template)
        return self.side

    def seeds(self) -> None:
        """The seed, and where another comes from."""
        with gr.Row(elem_classes="seeds"):
            with gr.Group():
                self.place("seed")
                self.rolling = gr.Checkbox(True, label="New seed every time", elem_classes="rolling")
            with gr.Column(scale=0, min_width=110):
                self.dice = gr.Button("Random", size="sm", elem_classes="dice")
                self.reuse = gr.Button("Reuse shown", size="sm", elem_classes="reuse")

    def again(self) -> None:
        """What starts from the item shown."""
        self.take = gr.Button(f"Take the {self.words.thing} shown", size="sm", elem_classes="again")

    def rest(self, but: Sequence[str]) -> None:
        """The fields not yet placed, but some, and the place for a file whose settings to restore."""
        with gr.Accordion("Advanced", open=False, elem_classes="advanced"):
            self.place("model", choices=self.choices)
            self.place(*(name for name in self.known if name not in {*self.fields, *but}))
        told = f"Drop a {self.words.thing} {self.words.made} here to restore its settings"
        self.file = gr.File(label=told, height=160, elem_classes="restore")

    def wire(
        self, start: gr.components.Component, given: Given, empty: Any, **others: gr.components.Component
    ) -> None:
        """Ties the parts together.

        Args:
            start: holds what to start from.
            given: its value, and those of `others` by name, to fields of the request; may raise ValueError.
            empty: its value that holds nothing.
            others: hold other files, by field of the request; None is nothing there.
        """
        self.start, self.given, self.empty, self.others = start, given, empty, others
        every, seed = list(self.fields.values()), self.fields["seed"]
        self.go.click(self.begin, self.rolling, [self.go, self.stop, seed, self.line], **QUICK).then(
            self.making, {*every, start, *others.values(), self.history},
            [self.line, self.live, self.gallery, self.history, self.shown],
            concurrency_id="gpu", concurrency_limit=1, **PLAIN,
        ).then(self.finish, None, [self.live, self.go, self.stop], **QUICK)  # fmt: skip
        self.stop.click(self.halt, **QUICK)
        self.dice.click(lambda: (self.roll(), False), None, [seed, self.rolling], **QUICK)
        self.reuse.click(self.reuse_seed, self.shown, [seed, self.rolling], **TELLING)
        self.take.click(self.taken, self.shown, start, **TELLING)
        self.gallery.select(self.select, self.history, self.shown, **TELLING)
        told = [*every, start, *others.values(), self.rolling, self.line, self.file]
        self.file.upload(self.restore, self.file, told, **TELLING)
        self.fields["model"].input(self.adopt, self.fields["model"], every, **QUICK)
        gr.context.Context.root_block.unload(self.forget)

    def roll(self) -> int:
        """A seed."""
        return random.randrange(int(self.known["seed"].high) + 1)

    def begin(self, anew: bool, session: gr.Request) -> dict[Any, Any]:
        """Gets ready for a run, with another seed if asked."""
        self.stops[session.session_hash] = Event()
        buttons = {self.go: gr.Button(interactive=False), self.stop: gr.Button(interactive=True)}
        new = {self.fields["seed"]: self.roll()} if anew else {}
        return {**buttons, **new, self.line: shared.status("waiting for its turn", 0.0)}

    def making(self, told: dict[Any, Any], session: gr.Request) -> Generator[dict[Any, Any], None, None]:
        """The run."""
        asked = {name: told[component] for name, component in self.fields.items()}
        empty = [name for name, value in asked.items() if value == "" and self.known[name].kind != "text"]
        asked |= dict.fromkeys(empty)
        stopped = self.stops.setdefault(session.session_hash, Event())
        try:
            others = {name: told[part] for name, part in self.others.items()}
            asked |= self.given(told[self.start], **others)
            moments = shared.run(self.adapter, asked, stopped, self.words)
        except ValueError as error:
            moments = iter([shared.Moment(str(error), refused=True)])
        for moment in moments:
            made = []
            try:
                if moment.items:
                    made = [*self.kept(moment, asked["prompt"]), *told[self.history]][:KEPT]
            except (ValueError, OSError, ImportError) as error:
                moment = shared.Moment(str(error), refused=True)
            update = {self.line: shared.status(moment.status, moment.done, refused=moment.refused)}
            if moment.refused:
                shared.warn(moment.status)
            if moment.preview:
                update[self.live] = self.preview(moment.preview, moment.status)
            if made:
                pictures = [(str(one.picture), one.caption) for one in made]
                update |= {self.gallery: gr.Gallery(pictures, selected_index=0)}
                update |= {self.history: made, self.shown: made[0]}
            yield update

    def kept(self, moment: shared.Moment, prompt: str) -> list[Made]:
        """A run's items, saved with their settings."""
        Path(self.gallery.GRADIO_CACHE).mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=self.gallery.GRADIO_CACHE))
        stem = re.sub(r"\W+", "-", prompt).strip("-")[:40] or self.words.thing
        kept = []
        for i, item in enumerate(moment.items):
            settings = moment.settings[i] if moment.settings else None
            name, told = f"{stem}-unfinished-{i}", moment.status
            if settings:
                seed = settings["request"]["seed"]
                name, told = f"{stem}-{seed}", f"seed {seed}"
            file = place / f"{name}{self.adapter.suffixes[0]}"
            caption = ", ".join(filter(None, [prompt[:80], told]))
            kept.append(Made(file, self.keep(item, file), caption, settings))
        return kept

    def finish(self) -> dict[Any, Any]:
        """Gets ready for the next run."""
        return {self.live: "", self.go: gr.Button(interactive=True), self.stop: gr.Button(interactive=False)}

    def halt(self, session: gr.Request) -> None:
        """Stops the session's run."""
        self.stops.setdefault(session.session_hash, Event()).set()

    def forget(self, session: gr.Request) -> None:
        """Stops what a session leaves behind."""
        self.stops.pop(session.session_hash, Event()).set()

    def restore(self, path: str) -> dict[Any, Any]:
        """Takes the settings a file carries, and says what no file can carry."""
        try:
            found = shared.restored(self.adapter, path)
        except ValueError as error:
            shared.warn(str(error))
            return {self.file: None}
        values = {component: found[name] for name, component in self.fields.items()}
        make, thing = self.words.make.capitalize(), self.words.thing
        todo = ["settings restored"]
        painted = found["mask"] if "mask" not in {*self.fields, *self.others} else None
        if found["init"]:
            part = " and paint the part again" if painted else ""
            todo.append(f"drop the {thing} it started from as well{part}")
        else:
            values[self.start] = self.empty
        for name, part in self.others.items():
            if found[name]:
                todo.append(f"drop the {part.label.lower()} as well")
            else:
                values[part] = None
        if found["model"] in [value for _, value in self.choices]:
            todo.append(f"press {make}" if painted else f"press {make} for the same {thing}")
        else:
            del values[self.fields["model"]]
            told = f"so {make} {self.words.make}s another {thing}"
            todo.append(f"its model {found['model']!r} is not in the list, {told}")
        return {**values, self.rolling: False, self.file: None, self.line: shared.status("; ".join(todo))}

    def adopt(self, name: str) -> dict[Any, Any]:
        """Takes the defaults of a model."""
        told = shared.defaults(self.adapter, name)
        return {part: told[field] for field, part in self.fields.items() if field not in OWN}

    def reuse_seed(self, shown: Made | None) -> Any:
        """Takes the seed of the item shown."""
        if shown and shown.settings:
            return {self.fields["seed"]: shown.settings["request"]["seed"], self.rolling: False}
        shared.warn(f"there is no finished {self.words.thing} whose seed could be used again")
        return gr.skip()

    def taken(self, shown: Made | None) -> Any:
        """Takes the item shown to start from."""
        if shown:
            return str(shown.file)
        shared.warn(f"there is no {self.words.thing} yet")
        return gr.skip()

    def lead(self, other: Desk, field: str, name: str, tabs: gr.Tabs) -> None:
        """A button that has the item shown begin something in another tab.

        Args:
            other: of that tab.
            field: of its request, which takes the item.
            name: of the tab.
            tabs: that hold both.
        """
        place = part = other.others[field]
        while not isinstance(place, gr.Accordion):
            place = place.parent
        tab = next(one for one in tabs.children if one.id == name)
        button = gr.Button(f"To {tab.label}", size="sm", elem_classes=f"to-{name}")

        def led(shown: Made | None) -> Any:
            path = self.taken(shown)
            return (path, gr.Accordion(open=True), gr.Tabs(selected=name)) if shown else path

        button.click(led, self.shown, [part, place, tabs], **TELLING)

    def select(self, history: list[Made], event: gr.SelectData) -> Made:
        """Keeps in mind what is shown."""
        return history[event.index]
