"""A real browser drives what `suite app` starts, on a tiny model; every address but localhost is cut off."""

import base64
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image, ImageChops, ImageStat

from modalities.image import restore
from tests.conftest import write_models

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser test needs playwright: pip install playwright"
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="the browser test needs a Chromium: apt-get install chromium"),
]
SHOWN = ".gallery .preview img"
LONG = 300  # seconds; a loaded machine is slow
FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Where the app, once started, says where it is."""
    folder = tmp_path_factory.mktemp("app")
    model = write_models(folder, "all-MiniLM-L6-v2", 384)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "suite.cli",
        "app",
        "--model",
        model,
        "--port",
        str(port),
        "--no-browser",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1",
    }
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
    yield folder / "log"
    server.terminate()
    assert server.wait(LONG) == 0


@pytest.fixture(scope="module")
def address(log):
    until = time.monotonic() + LONG
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert time.monotonic() < until and "Error" not in log.read_text(), log.read_text()
        time.sleep(0.1)
    return found[0]


@pytest.fixture(scope="module")
def requests():
    """Every address the page asked for."""
    return []


@pytest.fixture(scope="module")
def browser(log):  # started while the app starts
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser, address, requests):
    page = browser.new_page(viewport={"width": 900, "height": 700}, reduced_motion="reduce")
    page.set_default_timeout(LONG * 1000)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("button.draw")
    return page


def fill(page, **fields):
    for name, value in fields.items():
        box = page.locator(f"#field-{name}").locator("input, textarea").first
        box.fill(str(value))
        box.blur()


def told(page, words):
    """Waits until the status line holds the words; returns it."""
    page.wait_for_function("words => document.querySelector('.status')?.innerText.includes(words)", arg=words)
    return page.inner_text(".status")


def draw(page, **fields):
    """Draws; returns the picture the gallery shows, as the browser got it."""
    before = page.locator(".gallery .thumbnail-item").count()
    fill(page, **fields)
    page.click("button.draw:not([disabled])")
    told(page, "drawn in")
    page.wait_for_function(
        "n => document.querySelectorAll('.gallery .thumbnail-item').length > n", arg=before
    )
    return shown(page)


def shown(page):
    return page.request.get(page.locator(SHOWN).first.get_attribute("src")).body()


def painted(page):
    """The pixels the browser shows of it."""
    url = page.evaluate(
        """async selector => {
            const image = document.querySelector(selector), canvas = document.createElement("canvas");
            await image.decode();  // the address stands before the pixels have come
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL();
        }""",
        SHOWN,
    )
    return opened(base64.b64decode(url.split(",")[1]))


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def difference(one, other):
    """The mean over a picture, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def drop(page, data, name="a.png"):
    """Drops a file on the place that takes settings."""
    transfer = page.evaluate_handle(
        """([data, name]) => {
            const held = new DataTransfer(), bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
            held.items.add(new File([bytes], name, {type: "image/png"}));
            return held;
        }""",
        [base64.b64encode(data).decode(), name],
    )
    page.dispatch_event(".restore button", "drop", {"dataTransfer": transfer})


def test_the_page_opens_offline_with_one_heading(page, address, requests):
    assert page.locator("h1").count() == 1
    assert all(url.startswith((address, "data:", "blob:")) for url in requests), requests


def test_a_prompt_becomes_a_picture_with_previews_on_the_way(page, tmp_path):
    page.evaluate(
        """() => {
            const seen = window.previews = new Set(), live = document.querySelector(".live");
            const look = () => live.querySelector("img") && seen.add(live.querySelector("img").src);
            new MutationObserver(look).observe(live, {subtree: true, childList: true, attributes: true});
        }"""
    )
    fill(page, prompt="a red apple", num_inference_steps=40)
    page.keyboard.press("Control+Enter")
    assert re.search(r"drawn in \d+\.\d s", told(page, "drawn in"))
    assert page.evaluate("window.previews.size") > 1
    data = shown(page)
    (tmp_path / "a.png").write_bytes(data)
    settings = restore(tmp_path / "a.png")
    assert (settings["prompt"], settings["num_inference_steps"]) == ("a red apple", 40)
    image = page.locator(SHOWN).first
    assert settings["seed"] == int(
        page.input_value("#field-seed input")
    ) and "a red apple" in image.get_attribute("alt")
    assert difference(painted(page), opened(data)) == 0


def test_the_settings_of_a_dropped_picture_draw_it_again(page):
    first = draw(page, prompt="two blue balls", negative_prompt="red", num_inference_steps=4)
    draw(page, prompt="a cup", negative_prompt="", num_inference_steps=3)
    drop(page, first)
    told(page, "settings restored")
    assert page.input_value("#field-prompt textarea") == "two blue balls"
    assert page.input_value("#field-num_inference_steps input") == "4"
    assert draw(page) == first


def test_stop_yields_what_there_is(page):
    fill(page, prompt="a red apple", num_inference_steps=1000)
    page.click("button.draw:not([disabled])")
    told(page, "step 2")
    page.click("button.stop:not([disabled])")
    assert re.search(r"stopped at step \d+ of 1000 after", told(page, "stopped"))
    page.wait_for_selector(".gallery img[alt*=stopped]")
    draw(page, num_inference_steps=2)


def test_a_bad_request_is_told_and_nothing_is_lost(page):
    before = draw(page, prompt="a red apple", num_inference_steps=2)
    fill(page, num_inference_steps=0)
    page.click("button.draw:not([disabled])")
    assert told(page, "must be") == "num_inference_steps is 0; it must be at least 1"
    assert "at least 1" in page.locator(".toast-body").first.inner_text()
    assert shown(page) == before
    drop(page, b"no picture")
    page.wait_for_selector(".toast-body :text('no picture whose settings can be read')")
    fill(page, num_inference_steps=2)


def test_a_picture_is_redrawn_whole_or_only_where_it_was_painted(page, tmp_path):
    plain = draw(page, prompt="a cup", num_inference_steps=4)
    page.click("text=Start from a picture")
    with io.BytesIO() as held:
        Image.new("RGB", (128, 128), "red").save(held, "PNG")
        start = {"name": "red.png", "mimeType": "image/png", "buffer": held.getvalue()}
    page.wait_for_selector(".editor canvas")
    page.locator(".editor input[type=file]").first.set_input_files(start)
    page.wait_for_selector(".editor [aria-label=Undo]:not([disabled])")
    whole = draw(page, prompt="a cup", num_inference_steps=4, strength=0.5)
    (tmp_path / "a.png").write_bytes(whole)
    assert (restore(tmp_path / "a.png")["init"], restore(tmp_path / "a.png")["mask"]) == ("<Image>", None)

    canvas = page.locator(".editor canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    middle, side = box["x"] + box["width"] / 2, min(box["width"], box["height"]) / 8
    y = box["y"] + box["height"] / 2
    page.mouse.move(middle - side, y)
    page.mouse.down()
    page.mouse.move(middle + side, y, steps=2)
    page.mouse.up()
    part = opened(draw(page))
    red = Image.new("RGB", part.size, "red")
    rim, core = (0, 0, part.width, part.height // 8), [part.width * i // 16 for i in (7, 7, 9, 9)]
    assert difference(part.crop(rim), red.crop(rim)) == 0
    assert difference(part.crop(core), red.crop(core)) > 20
    assert difference(opened(whole).crop(rim), red.crop(rim)) > 20

    drop(page, plain)  # drawn from the prompt alone: nothing may be left to start from
    told(page, "settings restored; press Draw for the same picture")
    page.wait_for_selector(".editor [aria-label=Undo][disabled]")  # the canvas empties a moment later
    again = draw(page)
    (tmp_path / "plain.png").write_bytes(plain)
    (tmp_path / "again.png").write_bytes(again)
    assert restore(tmp_path / "again.png") == restore(tmp_path / "plain.png")
    assert again == plain


def test_the_page_fits_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    places = [
        page.locator(f"{name} >> visible=true").first.bounding_box()
        for name in (".ask", ".show", ".controls")
    ]
    assert [place["y"] for place in places] == sorted(place["y"] for place in places)
