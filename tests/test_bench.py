"""`suite bench`: what its rows say, never how fast the machine of the day is."""

import json
import re

import pytest

from suite import bench
from tests.conftest import write_mesh_models


@pytest.fixture(scope="module")
def quick():
    """The rows of every measurement that needs no model, at the smallest sizes."""
    pytest.importorskip("diffusers")
    with bench.single_thread():
        return {name: list(bench.GROUPS[name](True)) for name in ("steps", "pipeline", "latent")}


def test_every_sampler_that_diffusers_has_is_measured_against_it(quick):
    names = [row.name for row in quick["steps"]]
    assert names == list(bench.THEIRS) and len(names) == 12
    assert {row.unit for row in quick["steps"]} == {"us"}
    assert all(
        "Scheduler; the sampler alone 0." in row.note or "alone 1." in row.note for row in quick["steps"]
    )


def test_each_claim_is_a_ratio_of_positive_figures_with_the_target_that_was_set(quick):
    targets = {(row.group, row.name): row.target for rows in quick.values() for row in rows}
    assert {target for (group, _), target in targets.items() if group == "steps"} == {1 / 3}
    assert targets[("pipeline", "tiny")] == 1.0
    assert targets[("latent", "time")] == 0.2 and targets[("latent", "memory")] == 0.25
    for row in (row for rows in quick.values() for row in rows):
        assert row.ours > 0 and row.other > 0 and row.ratio == row.ours / row.other
        assert row.met is (None if row.target is None else row.ours <= row.target * row.other)
        assert row.repeats >= 1


def test_latents_are_cheaper_than_pixels(quick):
    time, memory, weighed = quick["latent"]
    assert (time.name, memory.name, weighed.name) == ("time", "memory", "memory with weights")
    assert memory.ratio < 1 and weighed.ours > memory.ours


def test_least_takes_turns_counts_no_first_round_and_keeps_the_smallest():
    now, order = [0.0], []
    lasts = {"a": iter([99, 5, 3, 4]), "b": iter([99, 1, 7, 2])}

    def call(name):
        order.append(name)
        now[0] += next(lasts[name])

    found = bench.least([lambda: call("a"), lambda: call("b")], 3, clock=lambda: now[0])
    assert found == [3, 1]
    assert order == ["a", "b"] * 4


def test_the_table_has_the_command_the_machine_and_a_line_a_row(monkeypatch, capsys):
    rows = [
        bench.Row("steps", "euler", 10.0, 40.0, "us", 1 / 3, 20, "a note"),
        bench.Row("steps", "heun", 30.0, 40.0, "us", 1 / 3, 20),
        bench.Row("startup", "first image", 2.0, 4.0, "s", None, 2),
    ]
    monkeypatch.setattr(bench, "GROUPS", {"steps": lambda quick: rows})
    assert bench.main(["--only", "steps", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "$ suite bench --only steps --quick" in out and "torch 2." in out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "0.25    0.33  20 met" in lines["steps: euler"] and "a note" in lines["steps: euler"]
    assert "0.75    0.33  20 missed" in lines["steps: heun"]
    assert "0.50       -   2" in lines["startup: first image"]


def test_json_carries_the_same(monkeypatch, capsys):
    row = bench.Row("pipeline", "tiny", 3.0, 4.0, "ms", 1.0, 20)
    monkeypatch.setattr(bench, "GROUPS", {"pipeline": lambda quick: [row]})
    assert bench.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "suite bench --json" and told["machine"]["cores"] >= 1
    assert told["rows"][0]["ratio"] == 0.75 and told["rows"][0]["met"] is True


def test_what_cannot_be_measured_is_refused():
    told = "only is 'colour'; it must be one of steps, pipeline, latent, startup, realtime, assets"
    with pytest.raises(ValueError, match=told):
        bench.main(["--only", "colour"])
    with pytest.raises(ValueError, match="nothing-there"):
        bench.main(["--model", "nothing-there"])


def test_start_up_runs_the_command_to_its_file(monkeypatch, tiny_model):
    commands = []
    monkeypatch.setattr(bench, "printed", lambda command: commands.append(list(command)))
    monkeypatch.setattr(bench, "_children", lambda: float(len(commands)))
    rows = list(bench.startup(True, str(tiny_model)))
    drawn = commands[0]
    assert drawn[:4] == ["-m", "suite.cli", "image", "a red apple"] and drawn[-1].endswith(".png")
    assert [row.name for row in rows] == [f"first image, {what}" for what in bench.IMPORTS]
    assert all("diffusers" in command[1] for command in commands[1:3])


def test_real_time_is_seconds_of_computing_a_second_of_sound(tiny_audio_model, words, monkeypatch):
    drawn, real = [], bench.load

    def counting(*asked):
        pipe = real(*asked)
        return lambda *words, **settings: drawn.append((settings, pipe(*words, **settings).items[0]))

    monkeypatch.setattr(bench, "load", counting)
    rows = list(bench.realtime(True, str(tiny_audio_model)))
    assert [(row.name, row.target, row.other) for row in rows] == [
        ("audio, 20 steps", 0.4, 1.0),
        ("audio, 4 steps", 0.1, 1.0),
    ]
    assert min(row.ours for row in rows) > 0
    assert [settings["num_inference_steps"] for settings, _ in drawn] == [20, 20, 4, 4]
    assert all(sound.samples.shape[-1] == sound.sample_rate for _, sound in drawn)


def test_a_mesh_is_measured_by_step_against_its_budget(tmp_path):
    model = write_mesh_models(tmp_path, "all-MiniLM-L6-v2", 384)
    rows = {row.name: row for row in bench.assets(True, str(model))}
    assert rows["prompt to GLB"].target == rows["finish a mesh"].target == 1.0
    assert {row.other for name, row in rows.items() if "xatlas" not in name} == {10.0}
    parts = [row.ours for name, row in rows.items() if name in ("of it: decoding", "of it: saving")]
    assert len(parts) == 2 and min(parts) > 0
    counted = re.match(r"of (\d+) triangles", rows["finish a mesh"].note)
    assert "of it: baking" in rows and 4_000 < int(counted[1]) < 16_000


def test_a_clip_is_measured_by_steps_frames_and_attention(tiny_video_model, words, monkeypatch):
    peaks = []
    monkeypatch.setattr("modalities.video.bench.printed", lambda command: peaks.append(command) or len(peaks))
    rows = {row.name: row for row in bench.assets(True, str(tiny_video_model))}
    assert rows["clip, 4 steps"].target == 1.0 and rows["clip, 20 steps"].other == 5.0
    assert rows["clip, memory"].ratio == 2 and [command[-1] for command in peaks] == ["4", "16"]
    assert min(row.ours for row in rows.values()) > 0 and "joint attention in time" in rows
