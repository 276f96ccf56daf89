"""A real browser at what `suite app` starts, on tiny models; every address but localhost is cut off."""

import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import write_audio_models, write_mesh_models, write_models, write_video_models

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = 300  # seconds; a loaded machine is slow
FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a microphone that beeps
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
SEEN = """words => [...document.querySelectorAll('.status')].some(
    line => line.offsetParent && line.innerText.includes(words))"""

OFFERED = """name => [...document.querySelectorAll('.fetch')].some(
    button => button.offsetParent && button.innerText.trim() === name)"""


@pytest.fixture(scope="session")
def playwright():
    """Its module, where there is a browser for it, too."""
    found = pytest.importorskip(
        "playwright.sync_api", reason="the browser test needs playwright: pip install playwright"
    )
    if not CHROMIUM:
        pytest.skip("the browser test needs a Chromium: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def log(playwright, tmp_path_factory):
    """Where the app, once started, says where it is."""
    folder = tmp_path_factory.mktemp("app")
    writers = write_models, write_audio_models, write_mesh_models, write_video_models
    models = [write(folder / write.__name__, "all-MiniLM-L6-v2", 384) for write in writers]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = [f"--model={model}" for model in models]
    command = [sys.executable, "-m", "suite.cli", "app", *told, f"--port={port}", "--no-browser"]
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


@pytest.fixture(scope="session")
def address(log):
    until = time.monotonic() + LONG
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert time.monotonic() < until and "Error" not in log.read_text(), log.read_text()
        time.sleep(0.1)
    return found[0]


@pytest.fixture(scope="session")
def browser(playwright):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def requests():
    """Every address the page asked for."""
    return []


@pytest.fixture(scope="module")
def complaints():
    """What the page said goes wrong, that there is no WebGPU here included."""
    return []


@pytest.fixture(scope="module")
def page(log, browser, address, requests, complaints, request):  # the app is starting while the browser does
    """The page, at the tab that the test's module names."""
    page = browser.new_page(viewport={"width": 900, "height": 700}, reduced_motion="reduce")
    page.set_default_timeout(LONG * 1000)
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.get_by_role("tab", name=request.module.TAB).click()
    page.wait_for_selector(f".desk.{getattr(request.module, 'DESK', request.module.TAB.lower())} button.go")
    kept = False
    while not kept:  # what is filled in before all parts are there is lost
        fill(page, prompt="a")
        page.wait_for_timeout(500)
        kept = box(page, "prompt").input_value() == "a"
    yield page
    page.close()


def seen(page, selector):
    """What is in sight of it, in whichever tab."""
    return page.locator(f"{selector} >> visible=true").first


def box(page, name):
    """The input of a field, by its name."""
    return page.locator(f"[id$='-{name}'] >> visible=true").locator("input, textarea").first


def fill(page, **fields):
    for name, value in fields.items():
        box(page, name).fill(str(value))
        box(page, name).blur()


def go(page):
    seen(page, "button.go:not([disabled])").click()


def told(page, words):
    """Waits until the status line holds the words; returns it."""
    page.wait_for_function(SEEN, arg=words)
    return seen(page, ".status").inner_text()


def watch(page):
    """Counts, in `window.previews`, the pictures that the live element shows from now on."""
    page.evaluate(
        """() => {
            const seen = window.previews = new Set(), all = [...document.querySelectorAll(".live")];
            const live = all.find(one => one.closest(".desk").offsetParent);
            const look = () => live.querySelector("img") && seen.add(live.querySelector("img").src);
            new MutationObserver(look).observe(live, {subtree: true, childList: true, attributes: true});
        }"""
    )


def fetched(page, name):
    """What the download button gives, once it offers a file of this name."""
    page.wait_for_function(OFFERED, arg=f"Download {name}")
    with page.expect_download() as found:
        seen(page, ".fetch").click()
    assert found.value.suggested_filename == name
    return found.value.path().read_bytes()


def drop(page, data, name="a.png", mime="image/png"):
    """Drops a file on the place that takes settings."""
    transfer = page.evaluate_handle(
        """([data, name, type]) => {
            const held = new DataTransfer(), bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
            held.items.add(new File([bytes], name, {type}));
            return held;
        }""",
        [base64.b64encode(data).decode(), name, mime],
    )
    seen(page, ".restore button").dispatch_event("drop", {"dataTransfer": transfer})


def fits_a_phone(page):
    """Whether nothing is wider than a phone, and the parts stand in order; the page then has its size."""
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_function("document.documentElement.scrollWidth <= 360")
    tops = [seen(page, name).bounding_box()["y"] for name in (".ask", ".show", ".controls")]
    return tops == sorted(tops)
