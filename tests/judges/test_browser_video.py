"""A real browser drives the Video tab of what `suite app` starts, on tiny models."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from modalities.video import restore
from modalities.video.read import opened
from tests.judges.conftest import box, drop, fetched, fill, fits_a_phone, go, seen, told, watch

pytestmark = pytest.mark.browser
TAB = "Video"
PLAYER = ".desk.video .viewer video"
FILM = f"document.querySelector('{PLAYER}')"
# A tiny model may have made its thousand steps before Playwright's own click comes.
STOP = """() => {
    const button = document.querySelector(".desk.video button.stop");
    return window.previews.size > 2 && !button.disabled && !button.click();
}"""
# Keeps, in `window.shown`, what the browser shows of the clip from now on, and how often it begins again.
WATCH = """selector => {
    const film = document.querySelector(selector), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [film.videoWidth, film.videoHeight];
    [window.shown, window.turns] = [new Set(), 0];
    let last = 0;
    const look = (_, told) => {
        canvas.getContext("2d").drawImage(film, 0, 0);
        window.shown.add(canvas.toDataURL());
        window.turns += told.mediaTime < last;
        last = told.mediaTime;
        film.requestVideoFrameCallback(look);
    };
    film.requestVideoFrameCallback(look);
}"""


def source(page):
    """Where the clip in the player lies; None before there is one."""
    return page.evaluate(f"{FILM}?.currentSrc || null")


def changed(page, old):
    """Waits until the player has another clip than `old`; returns it, as the browser got it."""
    page.wait_for_function(f"old => ![null, '', old].includes({FILM}?.currentSrc ?? null)", arg=old)
    return page.request.get(source(page)).body()


def make(page, **fields):
    """Makes clips; returns the one in the player."""
    old = source(page)
    fill(page, **fields)
    go(page)
    return changed(page, old)


def read(data, tmp_path, ending=".mp4"):
    """The frames of a clip, its rate and the settings it carries."""
    file = tmp_path / f"a{ending}"
    file.write_bytes(data)
    frames, rate = opened("clip", str(file))
    return frames[..., :3], rate, restore(file)


def picture(url):
    """The picture that an address holds itself."""
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def pixels(url):
    return np.asarray(picture(url).convert("RGB")).astype(int)


def test_a_prompt_becomes_a_clip_that_plays_again_and_again(page, tmp_path):
    fill(page, prompt="a dog bouncing", num_inference_steps=4)
    page.keyboard.press("Control+Enter")
    frames, rate, inside = read(changed(page, None), tmp_path)
    assert re.fullmatch(r"made in \d+\.\d s", told(page, "made in"))
    assert (frames.shape, rate, inside["prompt"]) == ((8, 64, 64, 3), 8, "a dog bouncing")
    assert inside["seed"] == int(box(page, "seed").input_value())
    page.wait_for_function(f"{FILM}.currentTime > 0")  # by itself
    page.evaluate(WATCH, PLAYER)
    page.wait_for_function("window.shown.size > 3 && window.turns > 0")
    off = [[np.abs(shown - frame).mean() for frame in frames]
           for shown in map(pixels, page.evaluate("[...window.shown]"))]  # fmt: skip
    assert np.min(off, 1).max() < 8 and len(set(np.argmin(off, 1))) > 3
    assert page.evaluate(f"{FILM}.duration") == 1


def test_a_preview_moves_and_changes_on_the_way_and_stop_yields_what_there_is(page):
    watch(page)
    old = source(page)
    fill(page, prompt="a dog", num_inference_steps=1000)
    go(page)
    page.wait_for_function(STOP)
    previews = page.evaluate("[...window.previews]")
    assert len(previews) > 2 and all(picture(url).n_frames == 8 for url in previews)
    assert re.search(r"stopped at step \d+ of 1000 after", told(page, "stopped"))
    changed(page, old)
    assert "unfinished" in source(page)
    fill(page, num_inference_steps=2)


def test_downloads_are_of_the_format_that_was_chosen_and_carry_the_settings(page, tmp_path):
    frames, _, inside = read(make(page, prompt="a cat"), tmp_path)
    for ending, head in ((".webm", b"\x1a\x45\xdf\xa3"), (".gif", b"GIF89a")):
        seen(page, ".ending").get_by_text(ending[1:], exact=True).click()
        data = fetched(page, f"a-cat-{inside['seed']}{ending}")
        assert data.startswith(head)
        found, rate, told_inside = read(data, tmp_path, ending)
        assert (found.shape, told_inside) == (frames.shape, inside) and rate == pytest.approx(8, abs=0.1)
        assert np.corrcoef(found.mean(-1).ravel(), frames.mean(-1).ravel())[0, 1] > 0.6  # another clip: 0


def test_the_settings_of_a_dropped_clip_make_it_again(page, tmp_path):
    first = make(page, prompt="a lamp", negative_prompt="red", fps=4)
    make(page, prompt="a cat", negative_prompt="", fps=8)
    drop(page, first, "a.mp4", "video/mp4")
    told(page, "settings restored; press Make for the same clip")
    page.wait_for_function("document.querySelector('#video-prompt textarea').value === 'a lamp'")
    assert make(page) == first
    box(page, "seed").locator("xpath=ancestor::*[contains(@class,'seeds')]").get_by_label("New seed").check()
    fill(page, negative_prompt="", fps=8)


def test_a_bad_request_is_told_and_nothing_is_lost(page):
    before = source(page)
    fill(page, num_inference_steps=0)
    go(page)
    assert told(page, "must be") == "num_inference_steps is 0; it must be at least 1"
    assert source(page) == before
    fill(page, num_inference_steps=2)


def test_a_picture_of_the_image_tab_becomes_a_clip_that_begins_with_it(page, tmp_path):
    page.get_by_role("tab", name="Image").click()
    fill(page, prompt="a red apple", num_inference_steps=2)
    go(page)
    told(page, "drawn in")
    shown = page.wait_for_selector(".desk.image .gallery .preview img").get_attribute("src")
    drawn = np.asarray(Image.open(io.BytesIO(page.request.get(shown).body())).convert("RGB")).astype(int)
    seen(page, ".to-video").click()
    page.wait_for_selector(".desk.video .pictured img")
    assert page.get_by_role("tab", name="Video").get_attribute("aria-selected") == "true"
    frames, _, inside = read(make(page, prompt="an apple falling"), tmp_path)
    assert re.fullmatch(r"<\w+>", inside["image"]) and inside["last_image"] is None
    seen(page, ".ending").get_by_text("webp", exact=True).click()
    frames, *_ = read(fetched(page, f"an-apple-falling-{inside['seed']}.webp"), tmp_path, ".webp")
    assert (frames[0] == drawn).all() and not (frames[1] == drawn).all()
    seen(page, ".pictured [aria-label^=Remove]").click()


def test_a_clip_that_was_dropped_is_made_anew(page, tmp_path):
    Image.new("RGB", (64, 64), "red").save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (64, 64), "blue")], duration=500
    )
    seen(page, ".start").get_by_role("button").first.click()
    held = page.locator(".desk.video .start [aria-label=Clear], .desk.video .start [aria-label^=Remove]")
    while not held.count():  # files given before all parts of the place are there are lost
        page.locator(".desk.video .start input[type=file]").first.set_input_files(tmp_path / "a.gif")
        page.wait_for_timeout(1500)
    frames, _, inside = read(make(page, prompt="a ball", strength=0.6), tmp_path)
    assert (inside["init"], len(frames)) == ("<Clip>", 8)
    held.first.click()


def test_the_page_fits_a_phone_asks_no_other_address_and_complains_of_nothing(
    page, address, requests, complaints
):
    assert fits_a_phone(page)
    assert all(url.startswith((address, "data:", "blob:")) for url in requests), requests
    assert complaints == []
