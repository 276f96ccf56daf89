"""The 3D tab's handlers, called as Gradio calls them, on a tiny model."""

import itertools
import zipfile
from pathlib import Path

import gradio as gr
import imageio.v3
import pytest
import trimesh
from PIL import Image, ImageDraw

from demos import fetch, mesh, shared
from modalities.mesh import MeshRequest, adapter, restore
from modalities.mesh.read import opened
from suite.request import controls
from tests.desks import SESSION, ask, desk_of

LIGHT = {"triangles": 200, "texture": "0", "side": 64}


@pytest.fixture
def desk(tiny_mesh_model, words, tmp_path, monkeypatch):
    """The 3D tab."""
    shared.pipeline.cache_clear()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    yield desk_of(mesh.tab, tiny_mesh_model)
    shared.pipeline.cache_clear()


@pytest.fixture
def box(tmp_path):
    """A mesh on disk: a red box of 2 by 1 by 1 without a lid."""
    made = trimesh.creation.box((2, 1, 1))
    made.update_faces(made.face_normals[:, 1] < 0.9)
    made.visual.face_colors = [200, 40, 40, 255]
    made.export(tmp_path / "box.ply")
    return str(tmp_path / "box.ply")


def sent(desk, start=None, **changed):
    """What the page would send: fields, and files by the name of their field."""
    files = {part: changed.pop(name, None) for name, part in desk.others.items()}
    return {**ask(desk, start, **{"prompt": "a chair", **LIGHT, **changed}), **files}


def moments(desk, start=None, **changed):
    return list(desk.making(sent(desk, start, **changed), SESSION))


def made(desk, start=None, **changed):
    """What a run makes."""
    return moments(desk, start, **changed)[-1][desk.history]


def disc():
    """A picture of a red disc on a white ground."""
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((24, 24, 72, 72), fill="red")
    return picture


def values(desk, told):
    """What a handler returned, by name of the field."""
    return {name: told[part] for name, part in {**desk.fields, **desk.others}.items() if part in told}


def test_every_field_of_the_request_is_a_widget_but_files_and_what_a_mesh_cannot_do(desk):
    known = controls(MeshRequest)
    assert set(known) - set(desk.fields) == {"init", "image", "input", "photos", "loop", "draco"}
    assert set(desk.others) == {"image", "input", "photos"}
    assert [value for _, value in desk.fields["texture"].choices] == list(known["texture"].choices)
    assert desk.fields["num_inference_steps"].value == 3 and desk.fields["height"].value is None


def test_the_page_speaks_of_making_meshes(desk):
    names, parts = ("label", "info", "value"), desk.blocks.blocks.values()
    words = " ".join(str(getattr(part, name, "")) for part in parts for name in names)
    assert "Say what to make, then press Make or Ctrl+Enter." in words
    assert not {"draw", "drawn", "redraw"} & set(words.lower().replace(".", " ").split())


def test_a_prompt_becomes_meshes_in_the_gallery_the_viewer_and_the_download(desk, monkeypatch):
    monkeypatch.setattr(shared, "GATE", 0)
    told = moments(desk, prompt="a chair!", seed=7, num_meshes=2, height="0.9")
    assert sum("<img" in str(moment.get(desk.live)) for moment in told) == 3
    first, second = told[-1][desk.history]
    assert (first.file.name, second.file.name) == ("a-chair-7.glb", "a-chair-8.glb")
    assert restore(second.file)["seed"] == 8 and restore(second.file)["height"] == 0.9
    assert opened("mesh", str(first.file)).extents[1] == pytest.approx(0.9)
    captions = [item["caption"] for item in told[-1][desk.gallery].value]
    assert captions == ["a chair!, seed 7", "a chair!, seed 8"]
    assert Image.open(first.picture).format == "PNG" and "made in" in told[-1][desk.line]
    path, button, ending = fetch.viewed(told[-1][desk.shown])
    assert (path, ending) == (str(first.file), ".glb")
    assert button.value["path"] == path and button.interactive


def test_a_picture_goes_to_the_request_and_needs_no_prompt(desk):
    plain, seen = (made(desk, seed=3, prompt="x", image=picture)[0] for picture in (None, disc()))
    assert (restore(plain.file)["image"], restore(seen.file)["image"]) == (None, "<Image>")
    assert plain.file.read_bytes()[-999:] != seen.file.read_bytes()[-999:]
    (alone,) = made(desk, prompt="", seed=3, image=disc())
    assert (alone.file.name, alone.caption) == ("mesh-3.glb", "seed 3")


def test_a_mesh_is_made_anew_in_part(desk, box):
    (item,) = made(desk, box, mask="0.5-", strength=0.5)
    asked = restore(item.file)
    assert (asked["init"], asked["mask"], asked["strength"]) == ("<Trimesh>", "0.5-", 0.5)


def test_a_mesh_is_finished_without_a_model_and_its_settings_ask_for_it(desk, box):
    told = moments(desk, prompt="", input=box, size="1", model="nosuch")
    assert "finished in" in told[-1][desk.line] and shared.pipeline.cache_info().currsize == 0
    (item,) = told[-1][desk.history]
    done = opened("mesh", str(item.file))
    assert max(done.extents) == pytest.approx(1) and trimesh.Trimesh(done.vertices, done.faces).is_watertight
    assert restore(item.file)["input"] == "<Trimesh>"
    assert "drop the mesh to finish as well" in desk.restore(str(item.file))[desk.line]


def test_photos_that_were_uploaded_one_by_one_are_carved_into_a_mesh_without_a_model(desk, tmp_path):
    photos = [tmp_path / str(i) / f"{i}.png" for i in range(6)]
    for photo in photos:
        photo.parent.mkdir()
        disc().save(photo)
    told = moments(desk, prompt="", photos=[str(photo) for photo in photos], size="1")
    assert "finished in" in told[-1][desk.line] and shared.pipeline.cache_info().currsize == 0
    (item,) = told[-1][desk.history]
    assert opened("mesh", str(item.file)).extents == pytest.approx([1, 1, 1], abs=0.2)
    assert "drop the photos as well" in desk.restore(str(item.file))[desk.line]


@pytest.mark.parametrize("field", ["init", "input"])
def test_a_broken_mesh_is_refused_by_its_name(desk, tmp_path, field):
    (tmp_path / "notes.glb").write_text("no mesh")
    path = str(tmp_path / "notes.glb")
    with pytest.warns(UserWarning, match=f"^{field} is &#x27;notes.glb&#x27;; it must be a mesh"):
        (*_, last) = moments(desk, path) if field == "init" else moments(desk, input=path)
    assert set(last) == {desk.line}


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"prompt": ""}, "prompt is missing; say what to draw, or give an image, an input file or photos"),
        ({"height": "1", "size": "1"}, "height is 1.0 and size is 1.0; give one of the two"),
        ({"image": Image.new("RGB", (64, 64))}, "image shows nothing that stands out"),
        ({"mask": "0.5-"}, "mask is given without init"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_sentence(desk, changed, sentence):
    with pytest.warns(UserWarning):
        last = moments(desk, **changed)[-1]
    assert set(last) == {desk.line} and sentence in last[desk.line]


def test_settings_clear_the_files_that_they_did_not_have(desk):
    (item,) = made(desk, image=disc(), triangles=300)
    told = desk.restore(str(item.file))
    assert values(desk, told)["triangles"] == 300 and told[desk.start] is None
    assert values(desk, told)["input"] is None and "image" not in values(desk, told)
    assert "drop the picture as well; press Make for the same mesh" in told[desk.line]


@pytest.fixture
def shown(desk):
    """A mesh of the session."""
    (item,) = made(desk, seed=3, metallic=0.5)
    return item


def fetched(shown, ending):
    """The file that the download button ends with."""
    waiting, button = fetch.fetched(mesh.written, shown, ending)
    assert not waiting.interactive and waiting.label == f"Writing the {ending[1:]} ..."
    path = Path(button.value["path"])
    assert button.interactive and button.label == f"Download {path.name}"
    return path


@pytest.mark.parametrize("ending", [".html", ".png"])
def test_a_page_and_a_picture_carry_the_settings(shown, ending):
    path = fetched(shown, ending)
    assert path.name == f"a-chair-3{ending}" and restore(path) == restore(shown.file)


@pytest.mark.parametrize("ending", [".ply", ".stl"])
def test_the_same_surface_is_in_other_formats(shown, ending):
    here, there = opened("mesh", str(shown.file)), opened("mesh", str(fetched(shown, ending)))
    assert there.bounds == pytest.approx(here.bounds, rel=1e-5)
    assert there.area == pytest.approx(here.area, rel=1e-4)


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webp"])
def test_a_turntable_turns(shown, ending):
    first, second = itertools.islice(imageio.v3.imiter(fetched(shown, ending)), 2)
    assert first.shape[:2] == (64, 64) and (first != second).any()


def test_a_format_of_several_files_is_one_archive_and_the_glb_is_the_file_itself(desk, shown):
    with zipfile.ZipFile(fetched(shown, ".obj")) as files:
        assert sorted(files.namelist()) == ["a-chair-3.mtl", "a-chair-3.obj", "a-chair-3_texture.png"]
    assert fetched(shown, ".glb") == shown.file
    (item,) = made(desk, seed=4, levels=2)
    with zipfile.ZipFile(fetched(item, ".glb")) as files:
        assert sorted(files.namelist()) == ["a-chair-4-lod1.glb", "a-chair-4.glb"]


def test_ar_is_offered_where_it_can_be_written(desk, monkeypatch):
    def endings():
        parts = desk_of(mesh.tab, "").blocks.blocks.values()
        (radio,) = (part for part in parts if isinstance(part, gr.Radio))
        return [value for _, value in radio.choices]

    monkeypatch.setattr(mesh, "find_spec", lambda name: None)
    without = endings()
    monkeypatch.setattr(mesh, "find_spec", lambda name: name)
    assert endings() == list(adapter.suffixes) and set(endings()) - set(without) == {".usdz"}


def test_a_stopped_run_can_be_downloaded_as_far_as_it_came_and_what_fails_leaves_the_glb(desk, monkeypatch):
    desk.begin(False, SESSION)
    steps = desk.making(sent(desk, num_inference_steps=9), SESSION)
    while "step" not in next(steps)[desk.line]:
        pass
    desk.halt(SESSION)
    (item,) = list(steps)[-1][desk.history]
    assert item.settings is None and fetched(item, ".stl").name == "a-chair-unfinished-0.stl"
    monkeypatch.setattr(mesh.Model, "save", lambda self, path: float("no number"))
    with pytest.warns(UserWarning, match="could not convert"):
        assert fetched(item, ".ply") == item.file


def test_nothing_made_is_nothing_shown():
    assert fetch.viewed(None) == gr.skip() and list(fetch.fetched(mesh.written, None, ".stl")) == []
