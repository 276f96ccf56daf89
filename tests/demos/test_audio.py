"""The Audio tab's handlers, called as Gradio calls them, on a tiny model."""

import gradio as gr
import numpy as np
import pytest
import soundfile
from PIL import Image

from demos import audio, shared
from modalities.audio import RATE, AudioRequest, adapter, restore
from suite.request import controls
from tests.desks import SESSION, ask, desk_of, made, make


@pytest.fixture
def desk(tiny_audio_model, words, tmp_path, monkeypatch):
    """The Audio tab."""
    shared.pipeline.cache_clear()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    yield desk_of(audio.tab, tiny_audio_model)
    shared.pipeline.cache_clear()


@pytest.fixture
def chirp(tmp_path):
    """A sound on disk: a second that rises from 200 Hz to 400 Hz."""
    at = np.arange(RATE) / RATE
    soundfile.write(tmp_path / "chirp.wav", 0.3 * np.sin(2 * np.pi * (200 * at + 100 * at**2)), RATE)
    return str(tmp_path / "chirp.wav")


def samples(path):
    return soundfile.read(path, always_2d=True)[0].T


def test_every_field_of_the_request_is_a_widget_but_the_file_to_start_from(desk):
    known = controls(AudioRequest)
    assert set(known) - set(desk.fields) == {"init"}
    assert [value for _, value in desk.fields["channels"].choices] == [1, 2]
    assert desk.fields["num_inference_steps"].value == 3 and desk.fields["seconds"].value is None


def test_the_page_speaks_of_making_sounds(desk):
    names, parts = ("label", "info", "value"), desk.blocks.blocks.values()
    words = " ".join(str(getattr(part, name, "")) for part in parts for name in names)
    assert "Say what to make, then press Make or Ctrl+Enter." in words
    assert not {"draw", "drawn", "picture", "pictures"} & set(words.lower().replace(".", " ").split())


def test_a_sound_goes_to_the_player_with_its_settings_and_to_the_gallery_as_a_spectrogram(desk, monkeypatch):
    monkeypatch.setattr(shared, "GATE", 0)
    moments = list(desk.making(ask(desk, prompt="a dog!", seed=7, num_audios=2, seconds="1.5"), SESSION))
    assert sum("<img" in str(told.get(desk.live)) for told in moments) == 3
    sounds, gallery = moments[-1][desk.history], moments[-1][desk.gallery]
    assert [sound.file.name for sound in sounds] == ["a-dog-7.wav", "a-dog-8.wav"]
    assert moments[-1][desk.shown] == sounds[0] and "made in" in moments[-1][desk.line]
    assert samples(sounds[0].file).shape == (1, 1.5 * RATE) and restore(sounds[1].file)["seed"] == 8
    assert [item["caption"] for item in gallery.value] == ["a dog!, seed 7", "a dog!, seed 8"]
    assert Image.open(gallery.value[0]["image"]["path"]).format == "PNG"


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_the_player_gets_the_format_asked_for_with_the_settings_inside(desk, ending):
    (sound,) = made(desk, prompt="a dog", seconds=1, seed=3, channels=2)
    player = audio.played(sound, ending)
    assert player.value["path"].endswith(f"a-dog-3{ending}") and not player.loop
    assert restore(player.value["path"]) == restore(sound.file)
    assert samples(player.value["path"]).shape[0] == 2
    assert audio.played(sound, ending).value["path"] == player.value["path"]


def test_a_loop_is_played_as_one(desk):
    (sound,) = made(desk, seconds=0.5, loop=True)
    assert audio.played(sound, ".wav").loop is True


def test_a_stopped_run_is_played_as_far_as_it_came(desk):
    desk.begin(False, SESSION)
    steps = desk.making(ask(desk, prompt="a dog", seconds=1, num_inference_steps=9), SESSION)
    while "step" not in next(steps)[desk.line]:
        pass
    desk.halt(SESSION)
    (sound,) = list(steps)[-1][desk.history]
    assert sound.settings is None and sound.file.name == "a-dog-unfinished-0.wav"
    player = audio.played(sound, ".mp3")
    assert not player.loop and samples(player.value["path"]).shape[1] >= RATE
    with pytest.raises(ValueError, match="no settings"):
        restore(player.value["path"])
    with pytest.warns(UserWarning, match="no finished sound"):
        desk.reuse_seed(sound)


def test_nothing_made_is_nothing_played():
    assert audio.played(None, ".wav") == gr.skip()


def test_a_sound_of_a_file_is_made_anew_only_where_that_is_asked_for(desk, chirp):
    (sound,) = made(desk, chirp, mask="0.5-", seconds="1.5", strength=1, normalize=False)
    assert restore(sound.file)["init"] == "<Sound>"
    then, now = samples(chirp)[0], samples(sound.file)[0]
    assert len(now) == 1.5 * RATE
    alike = [np.corrcoef(then[part], now[part])[0, 1] for part in np.s_[: RATE // 2, RATE // 2 + 300 : RATE]]
    assert alike[0] > 0.999 and abs(alike[1]) < 0.9


def test_settings_of_a_sound_restore_its_regions_and_ask_for_the_sound_it_started_from(desk, chirp):
    told = desk.restore(str(made(desk, chirp, prompt="a flute", mask="0.2-0.5")[0].file))
    assert (told[desk.fields["prompt"]], told[desk.fields["mask"]]) == ("a flute", "0.2-0.5")
    assert "drop the sound it started from as well; press Make for the same sound" in told[desk.line]
    assert desk.start not in told
    told = desk.restore(str(made(desk, seconds=2)[0].file))
    assert told[desk.start] is None and told[desk.fields["seconds"]] == 2
    assert "settings restored; press Make for the same sound" in told[desk.line]


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"seconds": "0"}, "seconds is '0'; it must be at least 0.5"),
        ({"seconds": "ten"}, "seconds is 'ten'; it must be a number"),
        ({"mask": "1-2"}, "mask is given without init"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_sentence(desk, changed, sentence):
    with pytest.warns(UserWarning):
        last = make(desk, **changed)
    assert set(last) == {desk.line} and sentence.replace("'", "&#x27;") in last[desk.line]


def test_a_file_that_is_no_sound_is_refused_by_its_name(desk, tmp_path):
    (tmp_path / "notes.wav").write_text("no sound")
    with pytest.warns(UserWarning, match=r"^init is &#x27;notes.wav&#x27;; it must be"):
        last = make(desk, str(tmp_path / "notes.wav"))
    assert set(last) == {desk.line}
