"""Our meshes as others read them: Khronos' validator and auditor, OpenUSD's validators, ffmpeg, a browser."""

import io
import json
import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from pytest import approx
from scipy import ndimage
from scipy.spatial import cKDTree
from trimesh.visual import TextureVisuals

from modalities.mesh import save as saving
from modalities.mesh.finish import finish, surface_of
from modalities.mesh.measure import faults_gltf, faults_usd
from modalities.mesh.read import colours_at, linear, material, opened
from modalities.mesh.save import save
from tests.judges.conftest import LONG

TITLE = "a <b> chair 🪑 </script>"
SETTINGS = {"suite": "0.1.0", "modality": "mesh", "request": {"prompt": TITLE, "seed": 7}}


def coloured():
    """Boxes of three colours, 1 m high."""
    colours = ([200, 40, 30, 255], [40, 180, 60, 255], [60, 80, 200, 255])
    parts = [trimesh.creation.box((1 - i / 4, 0.3, 0.5)) for i in range(3)]
    for i, (part, colour) in enumerate(zip(parts, colours, strict=True)):
        part.apply_translation([0, 0.15 + 0.35 * i, 0])
        part.visual.face_colors = colour
    return trimesh.util.concatenate(parts)


def textured(side=512):
    """A field of hills, 1 m wide, with a picture on it."""
    x, z = np.meshgrid(np.linspace(0, 1, 24), np.linspace(0, 1, 24))
    y = 0.1 * np.sin(9 * x) * np.cos(7 * z)
    corner = (np.arange(23)[:, None] * 24 + np.arange(23)).reshape(-1, 1, 1)
    faces = (corner + np.array([[0, 24, 1], [1, 24, 25]])).reshape(-1, 3)
    pixels = np.random.default_rng(0).integers(60, 200, (side // 32, side // 32, 3), dtype=np.uint8)
    pixels = pixels.repeat(32, 0).repeat(32, 1)
    uv = np.stack([x, 1 - z], -1).reshape(-1, 2)
    visual = TextureVisuals(uv, material=material(Image.fromarray(pixels)))
    return trimesh.Trimesh(np.stack([x, y, z], -1).reshape(-1, 3), faces, visual=visual, process=False)


def large():
    """81,920 triangles, coloured by vertex; some without any area."""
    made = trimesh.creation.icosphere(6, 0.4)
    vertices = made.vertices.copy()
    vertices[:50] = vertices[0]
    colours = np.rint((vertices + 0.4) * 318).clip(0, 255).astype(np.uint8)
    return trimesh.Trimesh(vertices, made.faces, vertex_colors=colours, process=False)


def finished():
    """A crumpled ball of 60 cells, decimated to many slivers, unwrapped and baked."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(60, 60, 60)), 1.5)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, 60)] * 3, indexing="ij"))
    field = 0.7 - np.linalg.norm(places, axis=0) + 3 * noise
    return finish(surface_of(np.concatenate([field[None], places]).astype(np.float32)), 6_000, texture=512)


MESHES = {"finished": finished, "coloured": coloured, "textured": textured, "large": large}


@pytest.mark.parametrize("name", MESHES)
def test_khronos_validator_and_auditor_have_nothing_to_say(tmp_path, name):
    save(MESHES[name](), tmp_path / "a.glb", SETTINGS)
    found = faults_gltf([tmp_path / "a.glb"])
    if found is None:
        pytest.skip("node, or gltf-validator and gltf-asset-auditor in SUITE_NODE_MODULES, are not there")
    assert found == [[]]


def test_khronos_validator_and_auditor_find_what_is_wrong(tmp_path):
    (tmp_path / "a.glb").write_bytes(trimesh.creation.box().export(file_type="glb"))
    found = faults_gltf([tmp_path / "a.glb"])
    if found is None:
        pytest.skip("node, or gltf-validator and gltf-asset-auditor in SUITE_NODE_MODULES, are not there")
    assert found[0]


READ = """
import {createRequire} from "module"; import fs from "fs";
const [modules, path] = process.argv.slice(1), need = createRequire(modules + "/");
const {NodeIO} = need("@gltf-transform/core"), {KHRDracoMeshCompression} = need("@gltf-transform/extensions");
const decoder = await need("draco3dgltf").createDecoderModule();
const io = new NodeIO().registerExtensions([KHRDracoMeshCompression])
    .registerDependencies({"draco3d.decoder": decoder});
const document = await io.readBinary(new Uint8Array(fs.readFileSync(path)));
const primitive = document.getRoot().listMeshes()[0].listPrimitives()[0], found = {};
for (const name of primitive.listSemantics()) found[name] = [...primitive.getAttribute(name).getArray()];
found.indices = [...primitive.getIndices().getArray()];
found.extras = document.getRoot().getAsset().extras;
found.texture = document.getRoot().listTextures().map(each => each.getImage().length);
console.log(JSON.stringify(found));
"""


@pytest.mark.parametrize("name", MESHES)
def test_google_s_decoder_reads_what_draco_packed(tmp_path, name):
    pytest.importorskip("DracoPy")
    modules = Path(os.environ.get("SUITE_NODE_MODULES", "node_modules")).absolute()
    if not (modules / "draco3dgltf").is_dir():
        pytest.skip("node, or @gltf-transform and draco3dgltf in SUITE_NODE_MODULES, are not there")
    settings = {**SETTINGS, "request": {**SETTINGS["request"], "draco": True}}
    save(MESHES[name](), tmp_path / "plain.glb", SETTINGS)
    save(MESHES[name](), tmp_path / "packed.glb", settings)
    command = ["node", "--input-type=module", "-e", READ, "--", modules, tmp_path / "packed.glb"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    plain = trimesh.load_mesh(tmp_path / "plain.glb", process=False)
    corners = np.array(found["POSITION"]).reshape(-1, 3)[found["indices"]].reshape(-1, 3, 3)
    assert corners.mean((0, 1)) == approx(plain.triangles.mean((0, 1)), abs=1e-4)
    near, beside = cKDTree(plain.triangles.mean(1)).query(corners.mean(1))
    assert near.max() < 2e-4 * plain.extents.max() and len(corners) > 0.99 * len(plain.faces)
    assert found["extras"][saving.KEY] == settings
    if "COLOR_0" in found:
        colours = np.array(found["COLOR_0"]).reshape(-1, 4)[found["indices"]][:, :3].reshape(-1, 3, 3).mean(1)
        middles = np.full((len(plain.faces), 3), 1 / 3)
        shown = colours_at(opened("mesh", tmp_path / "plain.glb"), np.arange(len(middles)), middles)
        far = np.abs(colours / 65535 - linear(shown)[beside]).max(1)
        assert np.quantile(far, 0.99) < 0.01  # of triangles without area, several have one middle
    else:
        uv = np.array(found["TEXCOORD_0"]).reshape(-1, 2)[found["indices"]].reshape(-1, 3, 2).mean(1)
        told = plain.visual.uv[plain.faces[beside]].mean(1) * [1, -1] + [0, 1]
        assert np.abs(uv - told).max() < 1e-4 and found["texture"][0] > 1000


@pytest.mark.parametrize("name", MESHES)
def test_openusd_validators_have_nothing_to_say(tmp_path, name):
    pytest.importorskip("pxr")
    save(MESHES[name](), tmp_path / "a.usdz", SETTINGS)
    assert faults_usd([tmp_path / "a.usdz"]) == [[]]


def test_ffmpeg_reads_a_turntable_that_starts_at_once_with_its_colour_tags(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "FRAMES", 5)
    save(coloured(), tmp_path / "a.mp4", SETTINGS, 98)  # no multiple of 16
    command = [get_ffmpeg_exe(), "-i", str(tmp_path / "a.mp4"), "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, check=True).stderr.decode()
    assert re.search(r"Video: h264.*yuv420p\(tv, bt709, progressive\), 98x98.*20 fps", told), told
    assert re.search(r"frame= *5 ", told)
    assert json.loads(re.search(r"comment\s+: (\{.*)", told)[1]) == SETTINGS
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of a page with a pile of three colours, and of one with hills."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("coloured", "textured"):
        save(MESHES[name](), folder / f"{name}.html", SETTINGS)
    return folder


def pixels(page):
    """What is on the screen: (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot(timeout=LONG * 1000))).convert("RGB")).astype(int)


def until(page, holds):
    """Waits for an expression about `viewer`; the page's policy allows no function that is handed to it."""
    deadline = time.monotonic() + LONG
    while not page.evaluate(f"{{const viewer = document.querySelector('model-viewer'); {holds}}}"):
        assert time.monotonic() < deadline, holds
        page.wait_for_timeout(100)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["coloured", "textured"])
def test_a_page_opened_from_disk_shows_the_mesh_and_turns_it(browser, pages, name):
    asked, errors = [], []
    page = browser.new_page(viewport={"width": 320, "height": 320})
    page.set_default_timeout(LONG * 1000)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto((pages / f"{name}.html").as_uri())
    until(page, "viewer.modelIsVisible")
    assert page.title() == TITLE
    first = pixels(page)
    shown = np.abs(first - first[-1, 0]).max(2) > 25
    assert 0.05 < shown.mean() < 0.9
    if name == "coloured":
        strong = first[first.max(2) - first.min(2) > 60]
        assert set(strong.argmax(1).tolist()) == {0, 1, 2}
    turned = page.evaluate("document.querySelector('model-viewer').turntableRotation")
    until(page, f"viewer.turntableRotation > {turned} + 0.3")
    assert (np.abs(pixels(page) - first).max(2) > 25).mean() > 0.02
    assert not errors and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    page.close()
