"""A real browser drives the 3D tab of what `suite app` starts, on a tiny model."""

import io
import json
import re
import time
import zipfile

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from modalities.mesh import restore
from modalities.mesh.read import opened
from tests.judges.conftest import LONG, box, drop, fetched, fill, fits_a_phone, go, seen, told, watch

pytestmark = pytest.mark.browser
TAB, DESK = "3D", "mesh"
LINK = ".desk.mesh .viewer a[download]"
OTHER = "([link, old]) => ![null, old].includes(document.querySelector(link)?.href ?? null)"
# A tiny model may have made its thousand steps before Playwright's own click comes.
STOP = """() => {
    const button = document.querySelector(".desk.mesh button.stop");
    return window.previews.size > 2 && !button.disabled && !button.click();
}"""


def href(page):
    """Where the mesh of the viewer lies; None before there is one."""
    link = page.locator(LINK)
    return link.get_attribute("href") if link.count() else None


def changed(page, old):
    """Waits until the viewer has another mesh than `old`; returns it, as the browser got it."""
    page.wait_for_function(OTHER, arg=[LINK, old])
    return page.request.get(href(page)).body()


def make(page, **fields):
    """Makes meshes; returns the one in the viewer."""
    old = href(page)
    fill(page, **fields)
    go(page)
    return changed(page, old)


def settings(data, tmp_path):
    (tmp_path / "a.glb").write_bytes(data)
    return restore(tmp_path / "a.glb")


def upload(page, accordion, *files):
    """Opens an accordion and gives files to the place in it."""
    page.locator(f".desk.mesh .{accordion}").get_by_role("button").first.click()
    place = page.locator(f".desk.mesh .{accordion}")
    held = place.locator("img[src*='/file='], [aria-label=Clear], [aria-label^=Remove]")
    while not held.count():  # files given before all parts of the place are there are lost
        place.locator("input[type=file]").first.set_input_files(files)
        page.wait_for_timeout(1500)


def clear(page, accordion):
    place = page.locator(f".desk.mesh .{accordion}")
    place.locator("[aria-label=Clear], [aria-label='Remove Image'], [aria-label^=Remove]").first.click()
    place.get_by_role("button").first.click()


def test_a_prompt_becomes_a_mesh_that_the_viewer_shows(page, tmp_path):
    fill(page, prompt="a wooden chair", triangles=500)
    page.keyboard.press("Control+Enter")
    inside, seed = settings(changed(page, None), tmp_path), int(box(page, "seed").input_value())
    assert re.fullmatch(r"made in \d+\.\d s", told(page, "made in"))
    assert (inside["prompt"], inside["seed"], inside["triangles"]) == ("a wooden chair", seed, 500)
    assert settings(fetched(page, f"a-wooden-chair-{seed}.glb"), tmp_path) == inside
    until, share = time.monotonic() + LONG, 0.0
    while not 0.05 < share < 0.95:  # of the canvas
        assert time.monotonic() < until, f"the canvas shows {share:.1%} of a mesh"
        shot = page.locator(".desk.mesh .viewer canvas").screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)[40:]  # below the buttons
        share = float((abs(pixels - pixels[-1, 0]).max(-1) > 30).mean())


def test_the_format_of_the_download_may_be_chosen_afterwards(page, tmp_path):
    inside = settings(make(page, prompt="a tree", triangles=500), tmp_path)
    name = f"a-tree-{inside['seed']}"
    for ending, given in ((".html", ".html"), (".obj", "-obj.zip"), (".glb", ".glb")):
        seen(page, ".ending").get_by_text(ending[1:], exact=True).click()
        data = fetched(page, name + given)
        if ending == ".obj":
            assert f"{name}.obj" in zipfile.ZipFile(io.BytesIO(data)).namelist()
        else:
            assert settings(data, tmp_path) == inside


def test_another_mesh_of_the_session_is_shown_when_its_picture_is_chosen(page, tmp_path):
    first, old = settings(make(page, prompt="two cups", num_meshes=2), tmp_path), href(page)
    page.locator(".desk.mesh .gallery .thumbnails .thumbnail-item").nth(1).click()
    assert settings(changed(page, old), tmp_path) == {**first, "seed": first["seed"] + 1}
    fill(page, num_meshes=1)


def test_the_settings_of_a_dropped_mesh_make_it_again(page, tmp_path):
    first = make(page, prompt="a lamp", negative_prompt="red", num_inference_steps=2, height=0.4)
    make(page, prompt="a sword", negative_prompt="", num_inference_steps=3, height="")
    drop(page, first, "a.glb", "model/gltf-binary")
    told(page, "settings restored; press Make for the same mesh")
    page.wait_for_function("document.querySelector('#mesh-prompt textarea').value === 'a lamp'")
    again = make(page)
    assert settings(again, tmp_path) == settings(first, tmp_path)
    sizes = [json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["accessors"][0]["count"]
             for data in (first, again)]  # fmt: skip
    assert sizes[0] == sizes[1]
    fill(page, height="")
    box(page, "seed").locator("xpath=ancestor::*[contains(@class,'seeds')]").get_by_label("New seed").check()


def test_points_are_seen_on_the_way_and_stop_yields_what_there_is(page):
    watch(page)
    old = href(page)
    fill(page, prompt="a chair", num_inference_steps=1000)
    go(page)
    page.wait_for_function(STOP)
    assert re.search(r"stopped at step \d+ of 1000 after", told(page, "stopped"))
    assert changed(page, old)[:4] == b"glTF"
    fill(page, num_inference_steps=2)


def test_a_picture_becomes_a_mesh_without_a_prompt(page, tmp_path):
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((24, 24, 72, 72), fill="red")
    picture.save(tmp_path / "disc.png")
    upload(page, "pictured", tmp_path / "disc.png")
    inside = settings(make(page, prompt=""), tmp_path)
    assert re.fullmatch(r"<\w+>", inside["image"]) and inside["prompt"] == ""
    clear(page, "pictured")


def test_a_mesh_of_the_user_s_own_is_finished(page, tmp_path):
    trimesh.creation.box((2, 1, 1)).export(tmp_path / "box.stl")
    upload(page, "own", tmp_path / "box.stl")
    data = make(page, prompt="my box", size=1)
    assert re.fullmatch(r"finished in \d+\.\d s", told(page, "finished in"))
    assert settings(data, tmp_path)["input"] == "<Trimesh>"
    assert opened("mesh", str(tmp_path / "a.glb")).extents == pytest.approx([1, 0.5, 0.5])
    clear(page, "own")


def test_the_page_fits_a_phone_asks_no_other_address_and_complains_of_nothing(
    page, address, requests, complaints
):
    assert fits_a_phone(page)
    assert all(url.startswith((address, "data:", "blob:")) for url in requests), requests
    assert [line for line in complaints if "WebGPU" not in line] == []
