"""Seconds and memory of a finished clip, and what frames and attention between all places cost."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modalities.video import load
from suite.bench import Row, least, printed
from suite.storage import built

BUDGET = 5.0  # seconds that a clip of 24 frames may take in few steps
PEAK = """
import sys
from modalities import video
from suite.bench import peak
pipe = video.load(sys.argv[1], "cpu")
before = peak()
pipe("a dog", num_frames=int(sys.argv[2]), num_inference_steps=1)
print(peak() - before)
"""


def rows(quick: bool, model: str = "video") -> Iterator[Row]:
    """A clip by steps and by frames, its memory, and the network with other attention in time."""
    frames, repeats = (4, 1) if quick else (24, 3)
    cores = f"wall time on {os.cpu_count()} cores"
    pipe = load(model, "cpu")

    def seconds(*calls: Callable[[], object]) -> list[float]:
        return least(calls, repeats, clock=time.perf_counter)

    with tempfile.TemporaryDirectory() as folder:
        for steps, target in ((4, 1.0), (20, None)):

            def whole(count: int = frames, steps: int = steps) -> None:
                made = pipe("a dog bouncing", num_frames=count, num_inference_steps=steps).videos[0]
                made.save(Path(folder, "a.mp4"))

            (best,) = seconds(whole)
            note = f"{frames} frames, guided, from prompt to MP4; {cores}"
            yield Row("assets", f"clip, {steps} steps", best, BUDGET, "s", target, repeats, note)
        once, twice = seconds(partial(whole, frames, 1), partial(whole, 2 * frames, 1))
        note = f"{2 * frames} frames against {frames}, one step; {cores}"
        yield Row("assets", "clip of twice the frames", twice, once, "s", None, repeats, note)
    few, many = (float(printed(["-c", PEAK, model, str(count)])) / 1e6 for count in (frames, 4 * frames))
    note = f"of {4 * frames} frames against {frames}, beyond the imports and the weights"
    yield Row("assets", "clip, memory", many, few, "MB", None, 1, note)
    own: Any = pipe.network
    with torch.inference_mode():
        x = torch.zeros(1, own.config["channels"], frames, *(max(own.factor, 192 // pipe.latent.factor),) * 2)
        told = x, torch.zeros(1), torch.zeros(1, 16, own.config["context_width"]), torch.ones(1, 16).bool()
        ways = {}
        for way in ("alone", "joint"):
            options = {**own.config, "time": [way] * len(own.config["widths"])}
            ways[way] = built({"type": "unet", **options}, "the bench").eval()
        alone, joint = seconds(*(partial(network, *told) for network in ways.values()))
    note = f"a call of the network for {frames} frames: all places of all frames against each place alone"
    yield Row("assets", "joint attention in time", 1e3 * joint, 1e3 * alone, "ms", None, repeats, note)
