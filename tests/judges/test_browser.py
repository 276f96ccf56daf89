"""A real browser drives the Image tab of what `suite app` starts, on a tiny model."""

import base64
import io
import re

import pytest
from PIL import Image, ImageChops, ImageStat

from modalities.image import restore
from tests.judges.conftest import box, drop, fill, fits_a_phone, go, seen, told, watch

pytestmark = pytest.mark.browser
TAB = "Image"
SHOWN, THUMBNAILS = ".desk.image .gallery .preview img", ".desk.image .gallery .thumbnail-item"


def draw(page, **fields):
    """Draws; returns the picture the gallery shows, as the browser got it."""
    before = page.locator(THUMBNAILS).count()
    fill(page, **fields)
    go(page)
    told(page, "drawn in")
    page.wait_for_function(
        "([all, n]) => document.querySelectorAll(all).length > n", arg=[THUMBNAILS, before]
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


def test_the_page_opens_offline_with_one_heading(page, address, requests):
    assert page.locator("h1").count() == 1
    assert all(url.startswith((address, "data:", "blob:")) for url in requests), requests


def test_a_prompt_becomes_a_picture(page, tmp_path):
    fill(page, prompt="a red apple", num_inference_steps=10)
    page.keyboard.press("Control+Enter")
    assert re.search(r"drawn in \d+\.\d s", told(page, "drawn in"))
    data = shown(page)
    (tmp_path / "a.png").write_bytes(data)
    settings = restore(tmp_path / "a.png")
    assert (settings["prompt"], settings["num_inference_steps"]) == ("a red apple", 10)
    image = page.locator(SHOWN).first
    assert settings["seed"] == int(box(page, "seed").input_value())
    assert "a red apple" in image.get_attribute("alt")
    assert difference(painted(page), opened(data)) == 0


def test_the_settings_of_a_dropped_picture_draw_it_again(page):
    first = draw(page, prompt="two blue balls", negative_prompt="red", num_inference_steps=4)
    draw(page, prompt="a cup", negative_prompt="", num_inference_steps=3)
    drop(page, first)
    told(page, "settings restored")
    assert box(page, "prompt").input_value() == "two blue balls"
    assert box(page, "num_inference_steps").input_value() == "4"
    assert draw(page) == first


def test_previews_are_seen_on_the_way_and_stop_yields_what_there_is(page):
    watch(page)
    fill(page, prompt="a red apple", num_inference_steps=1000)
    go(page)
    page.wait_for_function("window.previews.size > 2")
    seen(page, "button.stop:not([disabled])").click()
    assert re.search(r"stopped at step \d+ of 1000 after", told(page, "stopped"))
    page.wait_for_selector(".gallery img[alt*=stopped]")
    draw(page, num_inference_steps=2)


def test_a_bad_request_is_told_and_nothing_is_lost(page):
    before = draw(page, prompt="a red apple", num_inference_steps=2)
    fill(page, num_inference_steps=0)
    go(page)
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
    assert fits_a_phone(page)
