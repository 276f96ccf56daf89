"""The app's handlers, called as Gradio calls them, on a tiny model; test_browser.py looks at the page."""

import base64
import io
import json
import shutil
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from demos import app, image, shared
from demos.desk import Made
from modalities.image import ImageRequest, adapter, restore
from suite import cli
from suite.request import controls
from tests.desks import SESSION, ask, desk_of, made, make, outputs


@pytest.fixture
def fields(tiny_model, words):
    shared.pipeline.cache_clear()
    yield {**shared.defaults(adapter, str(tiny_model)), "prompt": "a red apple"}
    shared.pipeline.cache_clear()


@pytest.fixture
def desk(fields, tmp_path, monkeypatch):
    """The Image tab."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return desk_of(image.tab, fields["model"])


def run(fields, stopped=None, **changed):
    return list(shared.run(adapter, {**fields, **changed}, stopped or Event(), image.WORDS))


def test_every_field_of_the_request_is_a_widget_with_its_bounds_and_the_model_s_defaults(desk):
    known = controls(ImageRequest)
    assert set(known) - set(desk.fields) == {"init", "mask"}
    for name, control in known.items():
        part = desk.fields.get(name)
        if isinstance(part, gr.Slider):
            assert (part.minimum, part.maximum, part.step) == (control.low, control.high, control.step)
        if control.kind == "choice":
            assert [value for _, value in part.choices] == list(control.choices)
    assert desk.fields["num_inference_steps"].value == 3 and desk.fields["width"].value == 64


def test_building_the_page_loads_no_model_and_names_no_other_address(fields):
    page = app.build(fields["model"])
    assert shared.pipeline.cache_info().currsize == 0
    assert "//" not in app.CSS + app.HEAD.replace("//<", "")
    theme = app.looks()["theme"]
    assert not theme._stylesheets and page.analytics_enabled is False


def test_a_run_shows_previews_then_pictures_with_their_settings(fields, monkeypatch):
    monkeypatch.setattr(shared, "GATE", 0)
    began, loading, *steps, last = run(fields, num_images=2, seed=7)
    assert (began.status, loading.status) == ("at work", "loading the model")
    assert [moment.done for moment in steps] == pytest.approx([1 / 3, 2 / 3, 1])
    assert all(len(moment.preview) == 2 for moment in steps)
    assert len(last.items) == 2 and [told["request"]["seed"] for told in last.settings] == [7, 8]
    assert last.status.startswith("drawn in ") and last.status.endswith(" s")


def test_previews_are_gated_by_time(fields, monkeypatch):
    monkeypatch.setattr(shared, "GATE", 1e9)
    assert sum(bool(moment.preview) for moment in run(fields, num_inference_steps=9)) == 1
    assert 1 / 0.125 <= 8


def test_a_stopped_run_yields_what_it_has(fields):
    stopped, moments = Event(), []
    for moment in shared.run(adapter, {**fields, "num_inference_steps": 50}, stopped, image.WORDS):
        moments.append(moment)
        if moment.preview:
            stopped.set()
    assert moments[-1].status.startswith("stopped at step 2 of 50 after")
    assert len(moments[-1].items) == 1 and not moments[-1].settings
    assert [moment.status for moment in run(fields, stopped)] == ["stopped before the first step"]


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"prompt": " "}, "prompt is ' '; it must say what to draw"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5; it must be a whole number"),
        ({"num_inference_steps": None}, "num_inference_steps is None; it must be a whole number"),
        ({"eta": 0.5}, "eta is 0.5 but sampler 'euler' takes none"),
        ({"model": "nosuch"}, "model 'nosuch' was not found at"),
        ({"mask": Image.new("L", (8, 8))}, "mask is given without init"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_sentence(fields, changed, sentence):
    last = run(fields, **changed)[-1]
    assert last.refused and last.status.startswith(sentence) and not last.items


@pytest.mark.parametrize(
    "error, sentence",
    [(RuntimeError("CUDA out of memory"), "not enough memory"), (KeyError("odd"), "the run failed: 'odd'")],
)
def test_the_app_lives_on_after_any_exception(fields, monkeypatch, error, sentence):
    def broken(self, x, sigma, cond):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("suite.denoiser.Denoiser.__call__", broken)
        last = run(fields)[-1]
    assert last.refused and sentence in last.status
    assert run(fields)[-1].items


def test_a_drawing_goes_to_the_gallery_as_a_file_that_restores_it(desk):
    last = make(desk, prompt="a red apple!", seed=7)
    (picture,), gallery = last[desk.history], last[desk.gallery]
    assert picture.file.name == "a-red-apple-7.png" and picture.caption == "a red apple!, seed 7"
    assert restore(picture.file)["seed"] == 7 and gallery.value[0]["image"]["path"] == str(picture.file)
    assert last[desk.shown] == picture
    told = desk.restore(str(picture.file))
    assert told[desk.fields["prompt"]] == "a red apple!" and told[desk.fields["seed"]] == 7
    assert desk.reuse_seed(picture)[desk.fields["seed"]] == 7
    assert desk.taken(picture) == str(picture.file)


def test_the_latest_pictures_stand_first_and_one_of_them_is_shown(desk):
    first = made(desk, prompt="a cup")
    told = {**ask(desk, prompt="a hat"), desk.history: first}
    *_, last = desk.making(told, SESSION)
    assert [picture.caption for picture in last[desk.history]] == ["a hat, seed 0", "a cup, seed 0"]
    assert desk.select(last[desk.history], SimpleNamespace(index=1)) == first[0]


def status(told):
    """The status line among what a handler returned."""
    return next(value for value in told.values() if str(value).startswith("<p"))


def edited(painted=False, colour="red"):
    """An ImageEditor's value: a picture, perhaps with a stroke over it."""
    layer = Image.new("RGBA", (64, 64))
    if painted:
        layer.paste((255, 0, 255, 90), (16, 16, 48, 48))
    return {"background": Image.new("RGBA", (64, 64), colour), "layers": [layer]}


def test_settings_of_a_text_to_image_picture_clear_the_editor_lest_it_be_redrawn(desk):
    restored = desk.restore(str(made(desk)[0].file))
    assert not any(restored[desk.start].values())  # no ground, no layer
    assert "settings restored; press Draw for the same picture" in status(restored)
    assert desk.start in outputs(desk, desk.restore)


@pytest.mark.parametrize(
    "painted, sentence",
    [
        (False, "drop the picture it started from as well; press Draw for the same picture"),
        (True, "drop the picture it started from as well and paint the part again; press Draw<"),
    ],
)
def test_settings_of_a_redrawn_picture_ask_for_what_no_file_can_carry(desk, painted, sentence):
    restored = desk.restore(str(made(desk, edited(painted))[0].file))
    assert sentence in status(restored) and desk.start not in restored


def test_settings_of_another_model_say_that_it_is_not_at_hand(desk, fields, tmp_path):
    picture = run(fields)[-1]
    told = picture.settings[0]
    told["request"]["model"] = "grand <b>"
    adapter.save(picture.items[0], tmp_path / "a.png", told)
    restored = desk.restore(str(tmp_path / "a.png"))
    assert desk.fields["model"] not in restored
    assert "its model &#x27;grand &lt;b&gt;&#x27; is not in the list, so Draw" in status(restored)


def test_another_model_brings_its_own_defaults_to_the_controls_they_belong_to(desk, fields, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(fields["model"], other)
    config = json.loads((other / "config.json").read_text())
    config["defaults"] = {"width": 96, "height": 128, "num_inference_steps": 7, "guidance_scale": 2.5}
    (other / "config.json").write_text(json.dumps(config))
    known, wanted = controls(ImageRequest), {**config["defaults"], "model": str(other)}
    told = desk.adopt(str(other))
    assert set(told) <= outputs(desk, desk.adopt)
    for name in set(known) - {"prompt", "negative_prompt", "seed", "init", "mask"}:
        assert told.pop(desk.fields[name]) == wanted.get(name, known[name].default)
    assert not told


def test_a_mask_painted_where_no_picture_is_loaded_is_drawn_on_white_with_a_warning(desk):
    canvas = edited(painted=True, colour="white")  # the editor's own
    with pytest.warns(UserWarning, match="no picture is loaded below the painting"):
        drawn = Image.open(made(desk, canvas)[0].file)
    assert drawn.getpixel((0, 0)) == (255, 255, 255) != drawn.getpixel((32, 32))


def test_the_command_line_asks_for_the_picture_in_memory_that_settings_started_from(desk, tmp_path, capsys):
    again = ["image", "--from", str(made(desk, edited())[0].file), "-o", str(tmp_path / "b.png")]
    assert cli.main(again) == 2
    assert capsys.readouterr().err == (
        "suite: init was a picture in memory, which settings cannot carry; give it with --init FILE\n"
    )


def test_a_number_left_to_the_sampler_is_an_empty_box_not_zero(desk):
    assert desk.fields["eta"].value is None and not isinstance(desk.fields["eta"], gr.Number)
    for typed, wanted in (("", None), (None, None), ("0.5", 0.5)):
        assert restore(made(desk, sampler="ancestral", eta=typed)[0].file)["eta"] == wanted


def test_a_refused_drawing_leaves_the_pictures_alone(desk):
    with pytest.warns(UserWarning, match="it must say what to draw"):
        last = make(desk, prompt="")
    assert [type(part) for part in last] == [gr.HTML]


def test_stop_stops_the_session_s_own_run(desk):
    desk.begin(False, SESSION)
    desk.halt(SimpleNamespace(session_hash="b"))
    steps = desk.making(ask(desk, prompt="x", num_inference_steps=9), SESSION)
    next(steps)
    desk.halt(SESSION)
    assert "stopped at step" in " ".join(str(value) for value in list(steps)[-1].values())


def test_a_seed_is_rolled_within_bounds_only_when_asked(desk):
    seed = desk.fields["seed"]
    rolled = {desk.begin(True, SESSION)[seed] for _ in range(4)}
    assert len(rolled) == 4 and all(0 <= value < 2**32 for value in rolled)
    assert seed not in desk.begin(False, SESSION)


def test_a_file_without_usable_settings_is_told_by_its_name(desk, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.warns(UserWarning, match="^plain.png carries no settings"):
        desk.restore(str(tmp_path / "plain.png"))


def test_without_a_finished_picture_there_is_no_seed_to_use_again_and_without_any_none_to_take(desk):
    unfinished = Made(Path("a.png"), Path("a.png"), "a cup, stopped at step 2 of 9", None)
    for picture in (None, unfinished):
        with pytest.warns(UserWarning, match="no finished picture"):
            desk.reuse_seed(picture)
    assert desk.taken(unfinished) == "a.png"
    with pytest.warns(UserWarning, match="there is no picture yet"):
        desk.taken(None)


def test_settings_that_no_request_allows_are_refused(fields, tmp_path):
    picture = run(fields)[-1]
    told = picture.settings[0]
    told["request"]["sampler"] = "magic"
    adapter.save(picture.items[0], tmp_path / "a.png", told)
    with pytest.raises(ValueError, match="cannot be used: sampler is 'magic'; it must be one of euler"):
        shared.restored(adapter, str(tmp_path / "a.png"))


def test_the_mask_is_what_was_painted():
    ground, layer = Image.new("RGBA", (4, 2), "red"), Image.new("RGBA", (4, 2))
    assert image.mask_of(None) == image.mask_of({"background": None, "layers": [layer]}) == (None, None)
    assert image.mask_of({"background": ground, "layers": []}) == (ground, None)
    assert image.mask_of({"background": ground, "layers": [layer]}) == (ground, None)
    layer.putpixel((1, 0), (255, 0, 255, 90))
    init, mask = image.mask_of({"background": ground, "layers": [layer]})
    assert init is ground and mask.tobytes() == bytes([0, 255, 0, 0, 0, 0, 0, 0])


def test_a_preview_is_a_small_jpeg_of_all_pictures_as_near_a_square_as_they_go():
    html = shared.preview([Image.new("RGB", (512, 256), colour) for colour in ("red", "blue")], "step 1 <b>")
    assert 'alt="Preview: step 1 &lt;b&gt;"' in html
    sheet = Image.open(io.BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0])))
    assert sheet.format == "JPEG" and sheet.size == (256, 256)
    assert sheet.getpixel((128, 64))[0] > 240 and sheet.getpixel((128, 192))[2] > 240


def test_each_model_opens_the_tab_of_its_medium(fields, tiny_audio_model):
    page = app.build(str(tiny_audio_model), fields["model"])
    parts = {part.elem_id: part for part in page.blocks.values() if getattr(part, "elem_id", None)}
    assert parts["image-model"].value == fields["model"]
    assert parts["audio-model"].value == str(tiny_audio_model)
    tabs = [part for part in page.blocks.values() if isinstance(part, gr.Tabs)]
    assert [part.selected for part in tabs] == ["audio"]


@pytest.mark.parametrize("name, label", [("mesh", "Picture"), ("video", "First frame")])
def test_a_picture_goes_to_another_tab(fields, name, label):
    page = app.build(fields["model"])
    (button,) = (part for part in page.blocks.values() if f"to-{name}" in (part.elem_classes or []))
    (led,) = (held for held in page.fns.values() if (button._id, "click") in held.targets)
    part, drawer, tabs = led.outputs
    assert (part.label, part.parent in (drawer, *drawer.children)) == (label, True)
    assert isinstance(tabs, gr.Tabs) and button.value == f"To {app.TABS[name]}"
    path, opened, chosen = led.fn(Made(Path("a.png"), Path("a.png"), "a cup", None))
    assert (path, opened.open, chosen.selected) == ("a.png", True, name)
    with pytest.warns(UserWarning, match="there is no picture yet"):
        led.fn(None)


def test_all_tabs_stand_in_one_queue_and_no_widget_bears_another_s_name(fields):
    page = app.build(fields["model"])
    makers = [held for held in page.fns.values() if held.concurrency_id == "gpu"]
    assert len(makers) == len(app.TABS) and {held.concurrency_limit for held in makers} == {1}
    names = [part.elem_id for part in page.blocks.values() if getattr(part, "elem_id", None)]
    assert len(names) == len(set(names))


def test_a_missing_model_is_said_on_the_page():
    blocks = app.build("nosuch")
    assert "model &#x27;nosuch&#x27; was not found" in str(
        [getattr(b, "value", "") for b in blocks.blocks.values()]
    )


def test_the_app_starts_on_a_machine_too_busy_to_answer_itself(tiny_model, monkeypatch, capsys):
    def end():
        raise KeyboardInterrupt

    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "1")  # so that what the app sets goes after the test
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    monkeypatch.setattr(app, "Event", lambda: SimpleNamespace(wait=end))
    assert app.main(["--model", str(tiny_model), "--no-browser"]) == 0
    assert "the app is at http://127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--port", "99999"], ["--port", "x"], ["--frob"]])
def test_a_wrong_option_is_refused_in_one_sentence(argv, capsys):
    assert cli.main(["app", *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1
