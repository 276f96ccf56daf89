"""The command line: `suite MEDIUM PROMPT -o FILE`, and what goes with it; it knows no medium.

Options are the fields of the medium's request; that one model judges them, so a bad value gets the same words
here as in the app. Helping loads no torch. Exit codes: 0 done, 1 failed, 2 refused, 130 cancelled.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

import suite
from suite import adapter as media
from suite import storage
from suite.adapter import Adapter
from suite.request import Control, controls, explain

if TYPE_CHECKING:
    from suite.pipeline import Progress

COMMANDS = "suite.commands"  # entry points of commands that stand above the core, such as the app


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, in one sentence; `main` then exits with 2."""
        raise ValueError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return _run(args)
    except ValidationError as error:
        return _say(explain(error), 2)
    except (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        return _say(str(error), 2)
    except (FloatingPointError, MemoryError, OSError, ImportError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        more = "; the same command goes on" if args[:1] in (["train"], ["distill"]) else ""
        return _say(f"cancelled{more}", 130)


def _run(args: list[str]) -> int:
    command, rest = (args[0], args[1:]) if args else ("--help", [])
    apps = {point.name: point for point in entry_points(group=COMMANDS)}
    if command in apps:
        return apps[command].load()(rest) or 0
    if command == "bench":
        return import_module("suite.bench").main(rest) or 0
    if command in ("train", "distill", "eval"):
        usage = f"suite {command} {'|'.join(media.names())} [options]; options with --help"
        if rest[:1] in (["-h"], ["--help"]):
            print(usage)
            return 0
        if not rest or rest[0] not in media.names():
            raise ValueError(f"say what to {command}: {usage}")
        if command != "eval":
            return import_module("suite.train").main(rest[0], rest[1:], command) or 0
        return media.find(rest[0]).judge(rest[1:]) or 0

    parser = Parser(prog="suite", description="Draws what a prompt says, offline, on a CPU or a GPU.")
    parser.add_argument("--version", action="version", version=f"suite {suite.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name in media.names():
        medium = commands.add_parser(name, help=f"draw {name}s from a prompt")
        if command == name:
            _options(medium, media.find(name))
    models = commands.add_parser("models", help="list or show the shipped models")
    actions = models.add_subparsers(dest="action", metavar="list|show", required=True, parser_class=Parser)
    actions.add_parser("list", help="every shipped model, one a line")
    actions.add_parser("show", help="a model's card and config").add_argument("model", help="name or folder")
    inspect = commands.add_parser("inspect", help="print the settings a saved file carries")
    inspect.add_argument("file", type=Path)
    for name, does in (("train", "train a model: suite train image --data DIR --out DIR"),
                       ("distill", "teach a model to draw in 1, 2 or 4 steps: suite distill image ..."),
                       ("eval", "judge a model: suite eval image"), ("bench", "measure speed and memory"),
                       *((name, "open the app in the browser") for name in apps)):  # fmt: skip
        commands.add_parser(name, help=does)

    told = parser.parse_args(args)
    if told.command == "models":
        return _list() if told.action == "list" else _show(told.model)
    if told.command == "inspect":
        return _inspect(told.file)
    return _draw(media.find(told.command), vars(told))


def _options(parser: argparse.ArgumentParser, adapter: Adapter) -> None:
    told = controls(adapter.request)["prompt"].help
    parser.add_argument("prompt", nargs="?", default=argparse.SUPPRESS, help=told)
    where = f"where to save: {', '.join(adapter.suffixes)}; several get -0, -1, ..."
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=where)
    again = "take the settings a saved file carries; options given here win"
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help=again)
    options(parser, adapter)


def options(parser: argparse.ArgumentParser, adapter: Adapter, but: Sequence[str] = ("prompt",)) -> None:
    """Adds an option for every field of a medium's request `but` these, and those that say where it runs."""
    fields = controls(adapter.request)
    try:
        model = storage.config(storage.find(fields["model"].default)).get("defaults", {})
    except storage.ModelError:
        model = {}
    for name, control in fields.items():
        if name in but:
            continue
        flags = [f"--{name.replace('_', '-')}", *([f"--{control.alias}"] if control.alias else [])]
        text = _help(control, model.get(name, control.default))
        if control.kind == "bool":
            action = argparse.BooleanOptionalAction
            parser.add_argument(*flags, dest=name, action=action, default=argparse.SUPPRESS, help=text)
        else:
            meta = {"choice": "NAME", "file": "FILE", "int": "N", "float": "X", "text": "TEXT"}[control.kind]
            parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, metavar=meta, help=text)
    parser.add_argument("--device", help="cpu, cuda, mps; chosen by itself")
    parser.add_argument("--dtype", help="float32, bfloat16, float16; chosen by itself")


def _help(control: Control, default: object) -> str:
    told = [", ".join(control.choices)] if control.choices else []
    if control.low is not None and control.high is not None:
        told.append(f"{control.low:.10g} to {control.high:.10g}")
    if default is not None and default is not False and default != "":
        told.append(f"default {default}")
    unit = f" in {control.unit}" if control.unit else ""
    return (control.help.rstrip(".") + unit + (f" ({'; '.join(told)})" if told else "")).replace("%", "%%")


def _draw(adapter: Adapter, told: dict[str, Any]) -> int:
    asked = {name: told[name] for name in adapter.request.model_fields if name in told}
    restored = adapter.restore(told["source"]) if told["source"] else {}
    try:
        request = adapter.request(**{**restored, **asked})
    except ValidationError as error:
        raise ValueError(explain(error, adapter.request.model_fields)) from None
    adapter.check(request)
    paths, began = _paths(told["output"], getattr(request, adapter.count), adapter), time.monotonic()
    ready = adapter.ready(request)
    if ready is not None:
        adapter.save(ready, paths[0], media.settings(adapter, request, request.seed))
        return _say(f"{paths[0]} ({time.monotonic() - began:.1f} s)")
    request = request.filled(storage.config(storage.find(request.model)).get("defaults", {}))

    from suite.pipeline import load  # torch, from here on

    pipeline = load(adapter, request.model, told["device"], told["dtype"])
    result = pipeline.run(request, _progress)
    for i, (item, path, settings) in enumerate(zip(result.items, paths, result.settings, strict=True)):
        adapter.save(item, path, settings)
        _say(f"{path} ({result.seconds:.1f} s)" if i == 0 else str(path))
    return 0


def _paths(output: Path, count: int, adapter: Adapter) -> list[Path]:
    """Where each item goes; ValueError if one cannot be written there."""
    path, endings = output, ", ".join(adapter.suffixes)
    if path.suffix.lower() not in adapter.suffixes:
        raise ValueError(f"output is {str(path)!r}; its ending must be one of {endings}")
    paths = [path.with_stem(f"{path.stem}-{i}") for i in range(count)] if count > 1 else [path]
    try:
        for path in paths:
            if path.is_dir():
                raise ValueError(f"output is {str(path)!r}, which is a folder; it must name a file")
            if not path.parent.is_dir():
                raise ValueError(f"output is {str(path)!r}; there is no folder {path.parent}")
            storage.beside(path).touch()
            storage.beside(path).unlink()
    except OSError as error:
        raise ValueError(f"output is {str(path)!r}, which cannot be written: {error.strerror}") from None
    return paths


def _progress(progress: Progress) -> None:
    step, steps = progress.step, progress.steps
    if sys.stderr.isatty():
        sys.stderr.write(f"\rstep {step}/{steps}" + ("\n" if step == steps else ""))
    elif step == steps or step * 10 // steps > (step - 1) * 10 // steps:
        sys.stderr.write(f"step {step}/{steps}\n")
    sys.stderr.flush()


def _list() -> int:
    for name, folder in storage.shipped().items():
        told = storage.config(folder)
        size = (folder / storage.WEIGHTS).stat().st_size / 1e6 if (folder / storage.WEIGHTS).is_file() else 0
        print(f"{name:16} {told.get('modality', '?'):8} {told.get('kind', '?'):12} {size:6.1f} MB  {folder}")
    return 0


def _show(model: str) -> int:
    folder = storage.find(model)
    print(f"{folder}\n{json.dumps(storage.config(folder), indent=2)}")
    card = folder / "README.md"
    if card.is_file():
        print(f"\n{card.read_text('utf-8')}")
    return 0


def _inspect(path: Path) -> int:
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    refused = ""
    for name in media.names():
        adapter = media.find(name)
        if path.suffix.lower() in adapter.suffixes:
            try:
                print(json.dumps(adapter.restore(path), indent=2, ensure_ascii=False))
                return 0
            except ValueError as error:
                refused = str(error)
    known = ", ".join(suffix for name in media.names() for suffix in media.find(name).suffixes)
    raise ValueError(refused or f"{path} is of no kind that carries settings; those are {known}")


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    _say(str(message))


def _say(sentence: str, code: int = 0) -> int:
    sys.stderr.write(f"suite: {' '.join(sentence.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
