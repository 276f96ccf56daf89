"""A real browser drives the Audio tab of what `suite app` starts, on a tiny model."""

import io
import re

import numpy as np
import pytest
import soundfile

from modalities.audio import RATE, restore
from tests.judges.conftest import box, drop, fill, fits_a_phone, go, seen, told, watch

pytestmark = pytest.mark.browser
TAB = "Audio"
LINK = ".desk.audio .player a[download]"
LOADED = ".desk.audio .source [aria-label=Clear]"  # whether the waveform is shown or the browser's own player
LASTING = """seconds => {  // whether the player, of either kind, says that it holds so many
    const bare = document.querySelector(".desk.audio .player audio:not(.hidden)");
    const said = document.querySelector(".desk.audio .player #duration")?.innerText;
    return bare ? Math.round(bare.duration) === seconds : said === `0:0${seconds}`;
}"""
OTHER = "([link, old]) => ![null, old].includes(document.querySelector(link)?.href ?? null)"
LENGTH = """async link => {  // as the browser decodes what the player plays
    const coded = await (await fetch(document.querySelector(link).href)).arrayBuffer();
    return (await new OfflineAudioContext(1, 1, 24000).decodeAudioData(coded)).length;
}"""


def href(page):
    """Where the sound of the player lies; None before there is one."""
    link = page.locator(LINK)
    return link.get_attribute("href") if link.count() else None


def changed(page, old):
    """Waits until the player has another sound than `old`; returns it, as the browser got it."""
    page.wait_for_function(OTHER, arg=[LINK, old])
    return page.request.get(href(page)).body()


def make(page, **fields):
    """Makes sounds; returns the one in the player."""
    old = href(page)
    fill(page, **fields)
    go(page)
    return changed(page, old)


def samples(data):
    return soundfile.read(io.BytesIO(data), always_2d=True)[0].T


def settings(data, tmp_path, ending=".wav"):
    (tmp_path / f"a{ending}").write_bytes(data)
    return restore(tmp_path / f"a{ending}")


def test_a_prompt_becomes_a_sound(page, tmp_path):
    fill(page, prompt="a dog barking", num_inference_steps=10, seconds=2)
    page.keyboard.press("Control+Enter")
    data = changed(page, None)
    assert re.fullmatch(r"made in \d+\.\d s", told(page, "made in"))
    assert samples(data).shape == (1, 2 * RATE) and page.evaluate(LENGTH, LINK) == 2 * RATE
    page.wait_for_function(LASTING, arg=2)
    told_inside, seed = settings(data, tmp_path), int(box(page, "seed").input_value())
    assert (told_inside["prompt"], told_inside["seed"]) == ("a dog barking", seed)
    name = page.locator(LINK).get_attribute("download")
    assert name == f"a-dog-barking-{seed}.wav"
    page.wait_for_selector(f".desk.audio .gallery .preview img[alt='a dog barking, seed {seed}']")


def test_the_format_of_the_download_may_be_chosen_afterwards(page, tmp_path):
    wav = make(page, prompt="rain", num_inference_steps=2, seconds=1)
    for ending in (".flac", ".mp3", ".wav"):
        old = href(page)
        seen(page, ".ending").get_by_text(ending[1:], exact=True).click()
        data = changed(page, old)
        assert settings(data, tmp_path, ending) == settings(wav, tmp_path)
    assert data == wav


def test_another_sound_of_the_session_is_played_when_its_spectrogram_is_chosen(page, tmp_path):
    data = make(page, prompt="two bells", num_inference_steps=2, seconds=1, num_audios=2)
    first, old = settings(data, tmp_path), href(page)
    page.locator(".desk.audio .gallery .thumbnail-item").nth(1).click()
    second = settings(changed(page, old), tmp_path)
    assert second == {**first, "seed": first["seed"] + 1}
    fill(page, num_audios=1)


def test_the_settings_of_a_dropped_sound_make_it_again(page, tmp_path):
    first = make(page, prompt="a flute", negative_prompt="noise", num_inference_steps=3, seconds=1)
    make(page, prompt="a gong", negative_prompt="", num_inference_steps=2, seconds=2)
    drop(page, first, "a.wav", "audio/wav")
    told(page, "settings restored; press Make for the same sound")
    page.wait_for_function("document.querySelector('#audio-prompt textarea').value === 'a flute'")
    again = make(page)
    assert settings(again, tmp_path) == settings(first, tmp_path)
    assert np.abs(samples(again) - samples(first)).max() <= 2 / 32768  # where rounding fell otherwise


def test_a_loop_is_played_again_and_again(page, tmp_path):
    page.evaluate(
        """() => {
            const play = HTMLMediaElement.prototype.play;
            window.turns = 0;
            HTMLMediaElement.prototype.play = function () { window.turns++; return play.call(this); };
        }"""
    )
    box(page, "loop").check()
    data = make(page, prompt="rain", num_inference_steps=2, seconds=0.5)
    assert settings(data, tmp_path)["loop"] is True and samples(data).shape == (1, 0.5 * RATE)
    seen(page, ".player [aria-label=Play]").click()
    page.wait_for_function("window.turns > 2")
    seen(page, ".player [aria-label=Pause]").click()
    box(page, "loop").uncheck()


def test_spectrograms_are_seen_on_the_way_and_stop_yields_what_there_is(page):
    watch(page)
    fill(page, prompt="a dog barking", num_inference_steps=1000, seconds=1)
    old = href(page)
    go(page)
    page.wait_for_function("window.previews.size > 2")
    seen(page, "button.stop:not([disabled])").click()
    assert re.search(r"stopped at step \d+ of 1000 after", told(page, "stopped"))
    assert samples(changed(page, old)).shape == (1, RATE)
    page.wait_for_selector(".desk.audio .gallery .preview img[alt*=stopped]")
    make(page, num_inference_steps=2)


def test_a_bad_request_is_told_and_nothing_is_lost(page):
    make(page, prompt="a dog barking", num_inference_steps=2, seconds=1)
    before = href(page)
    fill(page, seconds=36000)
    go(page)
    assert told(page, "must be") == "seconds is '36000'; it must be at most 60"
    assert "at most 60" in page.locator(".toast-body").first.inner_text()
    assert href(page) == before
    drop(page, b"no sound", "notes.wav", "audio/wav")
    page.wait_for_selector(".toast-body :text('notes.wav is no sound whose settings can be read')")


def test_a_sound_is_made_anew_only_where_that_is_asked_for_and_goes_on_after_its_end(page, tmp_path):
    at = np.arange(RATE) / RATE
    start = 0.1 * np.sin(2 * np.pi * (200 * at + 100 * at**2))
    soundfile.write(tmp_path / "chirp.wav", start, RATE)
    page.get_by_text("Start from a sound").click()
    page.wait_for_timeout(1500)  # a file given before all parts of the place are there is lost
    page.locator(".desk.audio .source input[type=file]").first.set_input_files(tmp_path / "chirp.wav")
    page.wait_for_selector(LOADED)
    box(page, "mask").focus()
    page.wait_for_function("window.region === ''")
    fill(page, mask="0.5-")
    page.wait_for_function("document.querySelector('#audio-strength input[type=number]').value === '1'")
    data = make(page, prompt="a chirp", seconds=1.5)
    made, inside = samples(data)[0], settings(data, tmp_path)
    assert (inside["init"], inside["mask"], inside["strength"]) == ("<Sound>", "0.5-", 1)
    assert len(made) == 1.5 * RATE and np.abs(made[RATE:-300]).max() > 0.01
    assert np.corrcoef(made[: RATE // 2], start[: RATE // 2])[0, 1] > 0.98
    assert np.corrcoef(made[RATE // 2 + 300 : RATE], start[RATE // 2 + 300 :])[0, 1] < 0.9


def test_what_the_microphone_hears_is_made_anew(page, tmp_path):
    seen(page, ".source [aria-label=Clear]").click()
    seen(page, ".source [aria-label='Record audio']").click()
    seen(page, ".source .record-button").click()
    page.wait_for_timeout(1500)
    seen(page, ".source .stop-button").click()
    page.wait_for_selector(LOADED)
    data = make(page, prompt="a chirp", mask="", strength=0.4, num_inference_steps=5, seconds=1)
    inside = settings(data, tmp_path)
    assert (inside["init"], inside["mask"], inside["strength"]) == ("<Sound>", "", 0.4)
    assert len(samples(data)[0]) == RATE and np.abs(samples(data)).max() > 0.01


def test_the_page_fits_a_phone(page):
    assert fits_a_phone(page)
