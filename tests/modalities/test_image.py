import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from sd_parsers import ParserManager

from modalities.image import ImageRequest, adapter, restore
from modalities.image.read import opened
from modalities.image.save import save

FIELDS = {
    "prompt": 'a "red" apple, 50% off\nNegative prompt: no <b> & ümlaut 苹果 🍎',
    "negative_prompt": "worm, 'stem'",
    "seed": 2**32 - 1,
    "guidance_scale": 3.7,
    "sampler": "dpmpp_2m",
    "spacing": "karras",
    "width": 48 + 16,
    "height": 96,
    "loop": True,
    "eta": None,
    "model": "image",
}


def settings(**fields):
    request = ImageRequest(**{**FIELDS, **fields})
    return {"suite": "0.1.0", "modality": "image", "request": request.model_dump(mode="json")}


@pytest.fixture
def noise():
    pixels = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return adapter.preview(pixels)[0]


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_every_setting_comes_back_from_every_format(noise, tmp_path, ending):
    path = tmp_path / f"a{ending}"
    save(noise, path, settings())
    assert ImageRequest(**restore(path)) == ImageRequest(**FIELDS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".png", ".webp"])
def test_lossless_formats_keep_every_pixel(noise, tmp_path, ending):
    save(noise, tmp_path / f"a{ending}", settings())
    with Image.open(tmp_path / f"a{ending}") as back:
        assert np.array_equal(np.asarray(back.convert("RGB")), np.asarray(noise))


def test_a_jpeg_is_near_a_smooth_picture(tmp_path):
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    picture = adapter.preview(ramp)[0]
    save(picture, tmp_path / "a.jpg", settings())
    with Image.open(tmp_path / "a.jpg") as back:
        difference = np.asarray(back.convert("RGB"), int) - np.asarray(picture, int)
    assert abs(difference).max() <= 4


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_the_same_picture_gives_the_same_bytes(noise, tmp_path, ending):
    for name in "ab":
        save(noise, tmp_path / f"{name}{ending}", settings())
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_another_program_reads_the_settings(noise, tmp_path, ending):
    save(noise, tmp_path / f"a{ending}", settings(prompt="a red apple 🍎, glossy"))
    info = ParserManager().parse(str(tmp_path / f"a{ending}"))
    (sampler,) = info.samplers
    assert [prompt.value for prompt in sampler.prompts] == ["a red apple 🍎, glossy"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["worm, 'stem'"]
    assert sampler.name == "dpmpp_2m" and sampler.model.name == "image"
    told = {"seed": str(2**32 - 1), "cfg_scale": "3.7", "steps": "20", "scheduler": "karras"}
    assert {key: sampler.parameters[key] for key in told} == told
    assert info.metadata["Size"] == "64x96"


def test_a_picture_saves_itself_with_its_settings(tmp_path):
    (picture,) = adapter.finish(torch.zeros(1, 3, 64, 64), ImageRequest(prompt="x"), [settings()])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "plain.png", format="PNG")
    assert restore(tmp_path / "a.png")["seed"] == 2**32 - 1
    with pytest.raises(ValueError, match="no settings"):
        restore(tmp_path / "plain.png")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut", None])
def test_what_carries_no_settings_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png"):
        restore(path)


@pytest.mark.parametrize("ours", ["[]", "{", '{"request": 3}', '{"other": {}}', json.dumps({"request": [1]})])
def test_settings_that_are_not_ours_are_refused(tmp_path, ours):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("suite", ours)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(ValueError, match=r"a\.png"):
        restore(tmp_path / "a.png")


def test_an_unknown_ending_is_refused_and_nothing_written(noise, tmp_path):
    with pytest.raises(ValueError, match="must be one of"):
        save(noise, tmp_path / "a.bmp", settings())
    assert not list(tmp_path.iterdir())


def test_pixels_pass_through_tensors_unchanged(noise):
    init, _ = adapter.read(ImageRequest(prompt="x", init=noise, width=64, height=96), (96, 64))
    assert init.shape == (1, 3, 96, 64) and init.min() >= -1 and init.max() <= 1
    assert np.array_equal(np.asarray(adapter.preview(init)[0]), np.asarray(noise))


def test_a_transparent_init_lies_on_white_and_a_mask_is_as_bright_as_it_says():
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    init, mask = adapter.read(
        ImageRequest(prompt="x", init=clear, mask=Image.new("L", (9, 9), 255), width=64, height=64), (64, 64)
    )
    assert torch.equal(init, torch.ones(1, 3, 64, 64)) and torch.equal(mask, torch.ones(1, 1, 64, 64))


def test_another_shape_is_cropped_around_the_middle():
    wide = Image.new("RGB", (192, 64), "red")
    wide.paste("blue", (64, 0, 128, 64))
    init, _ = adapter.read(ImageRequest(prompt="x", init=wide, width=64, height=64), (64, 64))
    assert torch.equal(init[0, :, 32, 32], torch.tensor([-1.0, -1.0, 1.0]))


def test_a_photo_taken_on_its_side_is_read_upright(tmp_path):
    picture, exif = Image.new("RGB", (64, 128), "red"), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    for source in (str(tmp_path / "a.jpg"), Image.open(tmp_path / "a.jpg")):
        assert opened("init", source).size == (128, 64)


GREY = np.linspace(0, 1, 64 * 64).reshape(64, 64)


@pytest.mark.parametrize("ending, pixels", [
    (".png", (GREY * 65535).astype(np.uint16)), (".tiff", (GREY * 65535).astype(np.int32)),
    (".tiff", GREY.astype(np.float32)), (".tiff", (GREY * 255).astype(np.float32)),
])  # fmt: skip
def test_deep_grey_keeps_its_tones(tmp_path, ending, pixels):
    path = tmp_path / f"a{ending}"
    Image.fromarray(pixels).save(path)
    for source in (str(path), Image.open(path)):
        asked = ImageRequest(prompt="x", init=source, mask=source, width=64, height=64)
        init, mask = adapter.read(asked, (64, 64))
        assert np.allclose(init[0].mean(0) / 2 + 0.5, GREY, atol=0.006)
        assert np.allclose(mask[0, 0], GREY, atol=0.006)


def test_a_mask_is_black_where_it_is_transparent():
    mask = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 32, 64))
    _, read = adapter.read(ImageRequest(prompt="x", init=mask, mask=mask, width=64, height=64), (64, 64))
    assert read[..., :32].eq(1).all() and read[..., 32:].eq(0).all()


def test_what_a_decoder_gives_up_on_is_refused(tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("Failed to decode frame 0")  # as Pillow does of a broken AVIF

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(PngImageFile, "load", broken)
    for source in (str(path), Image.open(path)):
        with pytest.raises(ValueError, match=r"init is .*; it must be a picture that can be read \(Failed"):
            adapter.check(ImageRequest(prompt="x", init=source))
    with pytest.raises(ValueError, match=r"a\.png is no picture whose settings can be read"):
        restore(path)


@pytest.mark.parametrize("again", [
    copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), lambda it: it.copy(),
])  # fmt: skip
def test_a_copy_of_a_picture_saves_its_settings_too(again, tmp_path):
    (picture,) = adapter.finish(torch.zeros(1, 3, 64, 64), ImageRequest(prompt="x"), [settings()])
    again(picture).save(tmp_path / "a.png")
    assert ImageRequest(**restore(tmp_path / "a.png")) == ImageRequest(**FIELDS)
    assert again(picture).tobytes() == picture.tobytes()


def test_a_sheet_has_every_picture_in_its_place_and_is_written_whole_or_not(tmp_path, monkeypatch):
    pictures = [Image.new("RGB", (8, 4), (n, 0, 0)) for n in range(5)]
    adapter.sheet(pictures, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (24, 8)
        middles = [sheet.getpixel((8 * (n % 3) + 4, 4 * (n // 3) + 2)) for n in range(6)]
    assert middles == [*((n, 0, 0) for n in range(5)), (255, 255, 255)]

    def full(self, place, *more):
        Path(place).write_bytes(b"half")
        raise OSError("no space left")

    before = (tmp_path / "sheet.png").read_bytes()
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        adapter.sheet(pictures, tmp_path / "sheet.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_values_beyond_the_range_are_clipped_not_wrapped():
    (picture,) = adapter.preview(torch.tensor([1.5, -1.5, 0.0]).view(1, 3, 1, 1))
    assert picture.getpixel((0, 0)) == (255, 0, 128)
