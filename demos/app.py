"""`suite app`: the page, one tab a medium; it asks for no network and loads a model at its first use."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from importlib import import_module
from threading import Event
from typing import TYPE_CHECKING, Any

from suite import storage
from suite.cli import Parser

if TYPE_CHECKING:
    import gradio as gr

TABS = {"image": "Image", "audio": "Audio", "mesh": "3D", "video": "Video"}  # modules beside this, by label
FIRST = "image"
ONWARD = {"mesh": "image", "video": "image"}  # tabs that a picture may go to, and the field that takes it
CSS = """
.gradio-container { max-width: 1400px !important; margin: 0 auto; }
h1 { margin: 0; }
.desk { display: grid !important; gap: 16px 24px; align-items: start;
  grid-template: "ask show" auto "controls show" 1fr / minmax(320px, 5fr) minmax(0, 7fr); }
.ask { grid-area: ask; }
.controls { grid-area: controls; }
.show { grid-area: show; position: sticky; top: 8px; }
@media (max-width: 820px) {
  .desk { grid-template: "ask" "show" "controls" / minmax(0, 1fr); }
  .show { position: static; }
}
.show { --tall: min(600px, 110vw); }
.desk.audio .show { --tall: min(340px, 66vw); }
.desk.viewed .show { --tall: min(420px, 80vw); }
.player, .source { --neutral-400: var(--neutral-500); }
.dark :is(.player, .source) { --neutral-400: var(--neutral-300); }
.gallery { height: var(--tall) !important; }
.live:not(:has(img)) { display: none !important; }
.show:has(.live img) .gallery { display: none !important; }
.desk.viewed .show > :is(.live, .viewer) { order: -1; }
.desk.viewed .show:has(.live img) .viewer, .desk.viewed .show .gallery:not(:has(img)),
.desk.viewed .show .gallery .preview > :is(.icon-button-wrapper, .media-button) { display: none !important; }
.desk.viewed .show .gallery { height: 120px !important; }
.desk.viewed .show .thumbnails { height: 80px; justify-content: safe center !important; }
.desk.viewed .show .thumbnail-small { width: 72px; height: 72px; }
.gallery .preview::before { opacity: 1 !important; }
.live .html-container, .status .html-container { padding: 0 !important; }
.live img { display: block; width: 100%; height: var(--tall); object-fit: contain;
  border-radius: var(--radius-lg); background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.status p { margin: 0; font-variant-numeric: tabular-nums; }
.status .refused { color: var(--error-text-color); font-weight: 700; }
.status progress { appearance: none; display: block; width: 100%; height: 6px; border: 0; border-radius: 3px;
  overflow: hidden; }
.status progress, .status progress::-webkit-progress-bar { background: var(--border-color-primary); }
.status progress::-webkit-progress-value { background: var(--primary-600); }
.status progress::-moz-progress-bar { background: var(--primary-600); }
.min_value, .max_value { color: var(--block-info-text-color) !important; }
:is(.gallery, .editor, .restore, .player, .source) button { min-width: 24px; min-height: 24px; }
"""

# Ctrl+Enter starts a run in the tab in sight and, unlike Enter, turns no checkbox; the blur first lets the
# field being edited tell its value.
HEAD = """<script>
document.addEventListener("keydown", event => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  event.stopPropagation();
  document.activeElement?.blur();
  setTimeout(() => [...document.querySelectorAll("button.go:not([disabled])")]
    .find(button => button.offsetParent)?.click(), 80);
}, true);
</script>"""


def build(*models: str) -> gr.Blocks:
    """The page.

    Args:
        models: names or folders of models to open with, one a medium; the shipped one where none is named.
    """
    import gradio as gr

    told = {medium(model): model for model in models}
    with gr.Blocks(title="Diffusion suite", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# Diffusion suite")
        with gr.Tabs(selected=next(iter(told), FIRST)) as tabs:
            desks = {}
            for name, label in TABS.items():
                with gr.Tab(label, id=name):
                    desks[name] = import_module(f"demos.{name}").tab(told.get(name, ""))
        with desks["image"].side, gr.Row():
            for name, field in ONWARD.items():
                desks["image"].lead(desks[name], field, name, tabs)
    return page.queue()


def medium(model: str) -> str:
    """The tab that a model is for: the first if it does not say, as published ones, or is not there."""
    try:
        said = storage.config(storage.find(model)).get("modality")
    except storage.ModelError:
        said = None
    return said if said in TABS else FIRST


def looks() -> dict[str, Any]:
    """What `launch` takes for the page to look as it should; fonts come from Gradio's own files."""
    import gradio as gr

    fonts = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
    mono = [gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"]
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=mono)
    theme.set(block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300")
    for suffix in ("", "_dark"):
        theme.set(**{
            f"button_primary_background_fill{suffix}": "*primary_700",
            f"button_primary_background_fill_hover{suffix}": "*primary_800",
            f"button_primary_text_color{suffix}": "white",
        })  # fmt: skip
    return {"theme": theme, "css": CSS, "head": HEAD, "footer_links": [], "run_history": False}


def main(argv: list[str]) -> int:
    """Runs the app until Ctrl+C; returns the exit code."""
    parser = Parser(prog="suite app", description="Opens the app in the browser.")
    told = "name or folder of a model to open its tab with; once a medium"
    parser.add_argument("--model", action="append", default=[], help=told)
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, help="default 7860, or the next that is free")
    parser.add_argument("--share", action="store_true", help="a public address through Gradio's servers")
    parser.add_argument("--no-browser", action="store_true", help="only serve; open nothing")
    told = parser.parse_args(argv)
    if told.port is not None and not 1 <= told.port <= 65535:
        parser.error(f"port is {told.port}; it must be 1 to 65535")
    desktop = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    logging.basicConfig(format="suite: %(message)s")
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes then, too
    with tempfile.TemporaryDirectory(prefix="suite-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of this run alone
        page = build(*told.model)
        try:
            _, local, public = page.launch(
                server_name=told.host, server_port=told.port, share=told.share, prevent_thread_lock=True,
                inbrowser=desktop and not told.no_browser, quiet=True, ssr_mode=False,
                _frontend=False,  # or a machine too busy to answer itself within 3 s is told to use --share
                **looks(),
            )  # fmt: skip
        except OSError as error:
            where = f"{told.host}, port {told.port or 'any from 7860'}"
            raise OSError(f"the app cannot be served at {where}; try another --port ({error})") from None
        sys.stderr.write(f"suite: the app is at {public or local} (Ctrl+C ends it)\n")
        try:
            Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            page.close()
    return 0
