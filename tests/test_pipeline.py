import json
import shutil

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import suite.pipeline
from modalities.image import adapter, load
from suite import storage
from suite.latent import IdentityLatent
from suite.pipeline import Pipeline
from suite.schedules import make
from tests.conftest import Words

GREEN = torch.tensor([-1.0, 1.0, -1.0]).view(1, 3, 1, 1)


class Painter(torch.nn.Module):
    """Always sure that the picture is green; remembers the batches it was asked about."""

    def __init__(self, value=GREEN):
        super().__init__()
        self.value, self.batches = value, []

    def forward(self, x, timestep, context, mask):
        self.batches.append(len(x))
        return self.value.expand_as(x)


def painting(network, **defaults):
    latent = IdentityLatent()
    defaults = {"width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 1.0, **defaults}
    return Pipeline(network, make("flow"), "sample", Words(), latent, adapter, defaults=defaults)


@pytest.fixture(scope="module")
def pipe(tiny_model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suite.pipeline.load_text", lambda name, limit=None: Words())
        return load(tiny_model, device="cpu")


def pixels(picture):
    return torch.tensor(list(picture.convert("RGB").tobytes()), dtype=torch.int16)


def test_a_network_that_is_sure_is_believed():
    (picture,) = painting(Painter())("anything").images
    assert picture.size == (64, 64)
    assert picture.getcolors() == [(64 * 64, (0, 255, 0))]


def test_the_same_request_gives_the_same_picture_and_another_seed_another(pipe):
    first, again, other = (pipe("a red apple", seed=seed).images[0] for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_prompt_negative_prompt_and_guidance_each_change_the_picture(pipe):
    asked = [
        {},
        {"prompt": "a blue ball"},
        {"negative_prompt": "blue"},
        {"guidance_scale": 5},
        {"guidance": "none"},
    ]
    drawn = {pipe(**{"prompt": "a red apple", **fields}).images[0].tobytes() for fields in asked}
    assert len(drawn) == len(asked)


@pytest.mark.parametrize("sampler", ["euler", "ancestral"])
def test_item_i_of_a_batch_is_the_picture_of_the_seed_i_higher(pipe, sampler):
    batch = pipe("a red apple", seed=2**32 - 2, num_images=3, sampler=sampler)
    for picture, settings, seed in zip(batch.images, batch.settings, (2**32 - 2, 2**32 - 1, 0), strict=True):
        alone = pipe("a red apple", seed=seed, sampler=sampler).images[0]
        assert (pixels(picture) - pixels(alone)).abs().max() <= 1
        assert settings["request"]["seed"] == seed


def test_the_settings_of_an_item_draw_it_again(pipe):
    batch = pipe("a red apple", seed=5, num_images=2, sampler="heun", width=96)
    again = pipe(**batch.settings[1]["request"])
    assert (pixels(again.images[0]) - pixels(batch.images[1])).abs().max() <= 1
    assert again.settings[0] == batch.settings[1]


def test_the_model_s_defaults_fill_what_was_not_asked(pipe):
    request = pipe("a red apple", num_inference_steps=2).request
    assert (request.num_inference_steps, request.guidance_scale, request.width) == (2, 3.0, 64)


def test_progress_counts_every_call_of_the_network():
    seen = []
    painting(Painter())("x", callback=seen.append, sampler="heun")
    assert [p.step for p in seen] == list(range(1, seen[0].steps + 1))
    assert seen[0].steps == 7  # heun asks twice a step, once in the last
    assert seen[0].preview()[0].getcolors() == [(64 * 64, (0, 255, 0))]


def test_closing_the_trace_stops_the_network():
    network = Painter()
    pipe = painting(network)
    steps = pipe.trace(pipe.request("x"))
    next(steps)
    steps.close()
    assert len(network.batches) == 1


def test_many_items_are_drawn_in_batches_that_fit(monkeypatch):
    monkeypatch.setattr(suite.pipeline, "BATCH", 2 * 64 * 64)
    network, seen = Painter(), []
    result = painting(network)("x", num_images=5, callback=seen.append)
    assert len(result.images) == 5
    assert network.batches == [2] * 4 + [2] * 4 + [1] * 4
    assert [p.step for p in seen] == list(range(1, 13)) and {p.steps for p in seen} == {12}


@pytest.mark.parametrize(
    "fields, rows",
    [
        ({"guidance_scale": 1}, 1),
        ({"guidance_scale": 2}, 2),
        ({"guidance": "none", "guidance_scale": 2}, 1),
    ],
)
def test_a_second_pass_is_made_only_for_guidance(fields, rows):
    network = Painter()
    painting(network)("x", **fields)
    assert set(network.batches) == {rows}


@pytest.mark.parametrize("fields, batches", [
    ({}, [2, 2, 2]),
    ({"guidance_scale": 1.0}, [1, 1, 1, 1]),
    ({"num_inference_steps": 1}, [2]),
    ({"num_inference_steps": 2}, [2]),
    ({"init": Image.new("RGB", (64, 64)), "strength": 1.0}, [2, 2, 2, 2]),
])  # fmt: skip
def test_cfg_zero_stays_at_pure_noise_for_the_first_of_several_steps_that_it_guides(fields, batches):
    network = Painter()
    (picture,) = painting(network)("x", **{"guidance": "cfg_zero", "guidance_scale": 3.0, **fields}).images
    assert network.batches == batches and picture.getcolors() == [(64 * 64, (0, 255, 0))]


@pytest.mark.parametrize("strength, calls", [(1.0, 4), (0.5, 2)])
def test_strength_is_the_share_of_steps_taken(strength, calls):
    network = Painter()
    painting(network)("x", init=Image.new("RGB", (64, 64), "red"), strength=strength)
    assert len(network.batches) == calls


def test_an_init_is_where_the_picture_starts():
    class Trusting(
        torch.nn.Module
    ):  # believes that what it sees, less the noise it cannot know, is the picture
        def forward(self, x, timestep, context, mask):
            return x.mean((2, 3), keepdim=True).expand_as(x)

    pipe = painting(Trusting(), num_inference_steps=10)
    colours = [
        pipe("x", init=Image.new("RGB", (64, 64), colour), strength=0.1).images[0]
        for colour in ("red", "blue")
    ]
    (red_r, _, red_b), (blue_r, _, blue_b) = (picture.getextrema() for picture in colours)
    assert red_r[0] > 200 > 55 > red_b[1] and blue_b[0] > 200 > 55 > blue_r[1]


def test_a_mask_keeps_what_is_black_to_the_last_pixel():
    init, mask = Image.effect_noise((64, 64), 80).convert("RGB"), Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 0, 64, 40))
    picture = painting(Painter())("x", init=init, mask=mask, strength=1.0).images[0]
    for xy in [(0, 0), (15, 20), (40, 40), (63, 63)]:
        assert picture.getpixel(xy) == init.getpixel(xy)
    for xy in [(16, 0), (63, 39)]:
        assert picture.getpixel(xy) == (0, 255, 0)


def test_a_looping_picture_is_decoded_with_its_edges_joined():
    class Blur(IdentityLatent):
        factor = 2

        def decode(self, z):
            return torch.nn.functional.avg_pool2d(z.repeat_interleave(2, 2).repeat_interleave(2, 3), 3, 1, 1)

    pipe = painting(Painter())
    pipe.latent = Blur()
    pipe.latent.factor = 2
    z = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = pipe._decode(z.roll((3, 5), (2, 3)), loop=True)
    torch.testing.assert_close(turned, pipe._decode(z, loop=True).roll((6, 10), (2, 3)))


def test_a_loop_closes_only_the_dimensions_that_the_medium_has_it_close():
    seen = []

    class Shown(torch.nn.Module):  # remembers where the brightest place is that it is shown
        def forward(self, x, timestep, context, mask):
            seen.append(divmod(int(x[0, 0].argmax()), 64))
            return torch.zeros_like(x)

    pipe = painting(Shown(), num_inference_steps=6)
    pipe.adapter = type("Upright", (type(adapter),), {"closed": slice(0, 1)})()
    spot = Image.new("RGB", (64, 64))
    spot.putpixel((20, 30), (255, 255, 255))
    pipe("x", init=spot, strength=0.5, loop=True)
    rows, columns = zip(*seen, strict=True)
    assert len(set(rows)) > 1 and len(set(columns)) == 1


def test_what_is_longer_than_the_window_is_seen_in_windows_whose_frames_have_their_places():
    seen = []

    class Numbered(torch.nn.Module):  # takes what it sees for clean, and remembers it
        def forward(self, x, timestep, context, mask):
            seen.append(x[0, 0, :, 0, 0].tolist())
            return x

    network = Numbered()
    clip = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 1, 8, 2, 2)
    denoise = suite.pipeline._windowed(lambda x, sigma: network(x, sigma, None, None), 4, frames=True)
    torch.testing.assert_close(denoise(clip, 1.0), clip)
    assert seen == [[0, 1, 2, 3], [4, 5, 2, 3], [4, 5, 6, 7]]


def test_the_previews_of_a_looping_picture_stand_still():
    places = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    init = adapter.preview(places)[0]

    class Sure(torch.nn.Module):  # sees the picture it is shown, and takes it for what is meant
        def forward(self, x, timestep, context, mask):
            return x

    seen = []
    painting(Sure(), num_inference_steps=10)("x", init=init, strength=0.3, loop=True, callback=seen.append)
    rows = torch.stack([progress.denoised.mean((0, 1, 2)) for progress in seen])
    assert len(rows) == 3 and (rows.diff(dim=1) > -0.2).all()  # a turned ramp would fall by 2 at its seam


def test_nan_stops_the_run_in_words():
    with pytest.raises(FloatingPointError, match="NaN"):
        painting(Painter(torch.tensor(float("nan"))))("x")


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"width": 72}, "multiple of 16"),
        ({"num_inference_steps": 0}, "greater than or equal to 1"),
        ({"steps": 3}, "not permitted"),
        ({"init": "nowhere.png"}, "no such file"),
        ({"init": 3}, "path or a PIL image"),
    ],
)
def test_a_bad_request_is_refused_before_the_network_is_asked(fields, said):
    network = Painter()
    with pytest.raises(ValueError, match=said):
        painting(network)("x", **fields)
    assert not network.batches


def test_a_size_that_the_model_cannot_draw_is_refused(pipe):
    pipe.network.factor, factor = 4, pipe.network.factor
    try:
        with pytest.raises(
            ValueError, match=r"width is 80; this model's must be a multiple of 32 \(try 64\)"
        ):
            pipe("x", width=80)
    finally:
        pipe.network.factor = factor


def test_a_request_is_refused_for_what_pydantic_refuses():
    with pytest.raises(ValidationError):
        painting(Painter())(" ")


@pytest.mark.parametrize(
    "folder, changed, said",
    [
        ("image", {"text": {"name": "words", "width": 8, "limit": 5}, "schedule": 5}, "lacks or misstates"),
        ("image", {"text": "words"}, "lacks or misstates"),
        ("image", {"prediction": None}, "prediction is None; it must be one of"),
        ("image", {"latent": 5}, "lacks or misstates"),
        ("image-vae", {"scaling_factor": "x"}, "lacks or misstates could not convert string to float: 'x'"),
        ("image-vae", {"shift_factor": None}, "lacks or misstates"),
    ],
)
def test_a_model_whose_config_misstates_a_part_is_refused_when_loaded(
    tiny_model, words, tmp_path, folder, changed, said
):
    models = shutil.copytree(tiny_model.parent, tmp_path / "models")
    config = models / folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changed}))
    with pytest.raises(ValueError, match=said):
        load(models / "image", device="cpu")


def test_an_autoencoder_and_a_text_encoder_must_fit_the_network(tiny_model, words, tmp_path, monkeypatch):
    models = shutil.copytree(tiny_model.parent, tmp_path / "models")
    module, settings = storage.load(models / "image-vae")
    settings["network"]["latent_channels"] = 3
    options = {key: value for key, value in settings["network"].items() if key != "type"}
    storage.save(models / "image-vae", type(module)(**options), settings)
    with pytest.raises(storage.ModelError, match="image-vae has 3 channels; the network denoises 4"):
        load(models / "image", device="cpu")
    monkeypatch.setattr(type(words), "width", 9)  # the encoder that is loaded
    with pytest.raises(storage.ModelError, match="reads text 8 wide; words gives 9"):
        load(models / "image", device="cpu")


def test_a_network_that_denoises_the_signal_itself_has_as_many_channels(tiny_model, words, tmp_path):
    module, settings = storage.load(tiny_model)
    del settings["latent"]
    pipe = load(storage.save(tmp_path / "pixels", module, settings), device="cpu")
    assert pipe.latent.channels == 4 and pipe("x", num_inference_steps=1).images


def test_a_model_of_another_kind_is_refused(tiny_model, words):
    with pytest.raises(ValueError, match="image autoencoder"):
        load(tiny_model.parent / "image-vae")
