"""Composed sounds against their captions: the test makes the clips, a tone each, so it knows what to hear."""

import json
import os
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modalities.audio import RATE, WINDOW, compose, notes, sounds

TONES = {  # Hz; each class of the pack has a tone of its own, four semitones or more from every other
    "dog bark": 330, "person sneeze": 520, "door slam": 820, "cowbell1 big": 1290, "laser": 2030,
    "gong": 3190, "rain": 410, "sea waves": 650, "helicopter": 1030, "chainsaw": 1620, "clock tick": 2550,
}  # fmt: skip
NAMED = {"dog bark": "dog", "person sneeze": "sneeze", "cowbell1 big": "cowbell", "clock tick": "clock"}
TONE_OF = {NAMED.get(text, text): tone for text, tone in TONES.items()}
FONT = Path(os.environ.get("SOUNDFONT", notes.FONT))


@pytest.fixture(scope="module")
def font():
    """Skips where notes cannot be played."""
    pytest.importorskip("fluidsynth", exc_type=ImportError)
    if not FONT.is_file():
        pytest.skip(f"there is no sound font at {FONT}")


def tone(hertz, seconds, rate=RATE):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def struck(hertz, seconds=0.25, rate=RATE):
    """A tone that has died away at its end."""
    wave = tone(hertz, seconds, rate)
    return wave * np.exp(-6 * np.arange(len(wave)) / len(wave)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A pack of twelve files of a class: what is struck once, or sounds for three seconds."""
    root = tmp_path_factory.mktemp("data")
    (root / "sounds").mkdir()
    rows = []
    for text, hertz in TONES.items():
        kind = sounds.SOUNDS[NAMED.get(text, text)].kind
        for number in range(12):
            name = f"{text.replace(' ', '-')}-{number}.wav"
            wave = tone(hertz, 3) if kind == "texture" else struck(hertz)
            soundfile.write(root / "sounds" / name, np.pad(0.3 * wave, 4800), RATE)
            rows.append({"file_name": name, "text": text, "source": "test"})
    rows.append({**rows[0], "text": "what no class is called"})
    (root / "sounds" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def heard(data):
    """Scenes of the pack alone."""
    composer = compose.Composer(data, ("event", "count", "texture", "then", "over"))
    return [composer.nth(0, number) for number in range(400)]


@pytest.fixture(scope="module")
def music(font):
    """Scenes of the sound font alone."""
    composer = compose.Composer.__new__(compose.Composer)
    composer.kinds = {kind: compose.KINDS[kind] for kind in ("note", "notes", "chord", "repeat")}
    return [composer.nth(0, number) for number in range(400)]


@pytest.fixture(params=("heard", "music"))
def scenes(request):
    return request.getfixturevalue(request.param)


def runs(wave, gap=0.1):
    """(start, end) in samples of what sounds between silences of `gap` seconds."""
    on = np.flatnonzero(abs(wave) > 1e-4)
    breaks = np.flatnonzero(np.diff(on) > gap * RATE)
    return list(zip(on[[0, *(breaks + 1)]], on[[*breaks, -1]], strict=True))


def strength(wave, hertz, cents=110):
    """Of the spectrum's energy, the share within so many cents of a frequency."""
    size = max(1 << 14, 1 << len(wave).bit_length())
    power = abs(np.fft.rfft(wave * np.hanning(len(wave)), size)) ** 2
    at = np.arange(len(power)) * RATE / size
    near = abs(1200 * np.log2(np.maximum(at, 1) / hertz)) < cents
    return power[near].sum() / power.sum()


def off(wave, key):
    """Cents from a MIDI key at which the first five harmonics are strongest, within a quarter tone."""
    size = 1 << 16
    spectrum = abs(np.fft.rfft(wave * np.hanning(len(wave)), size)) ** 0.5
    cents = np.arange(-50, 51)
    hertz = notes.frequency(key) * 2 ** (cents / 1200)
    at = np.arange(len(spectrum)) * RATE / size
    return cents[sum(np.interp(n * hertz, at, spectrum) for n in range(1, 6)).argmax()]


def key_of(name):
    letter, octave = re.fullmatch(r"([A-G]#?)(\d)", name).groups()
    return notes.NAMES.index(letter) + 12 * (int(octave) + 1)


def said_keys(caption):
    return [key_of(name) for name in re.findall(r"\b[A-G]#?\d\b", caption)]


def instrument_in(caption):
    """The longest name of an instrument that the caption holds: "bass guitar" holds "guitar"."""
    return max((name for name in notes.INSTRUMENTS if name in caption), key=len)


def test_the_number_in_the_caption_is_the_number_of_sounds(heard):
    seen = set()
    for scene in (scene for scene in heard if scene.kind == "count"):
        word = re.match(rf"({'|'.join(compose.NUMBERS)}) |.* (twice|\w+ times)$", scene.caption)
        number = [compose.times(n) for n in range(1, 9)].index(word[2]) + 1 if word[2] else None
        number = number or compose.NUMBERS.index(word[1]) + 1
        assert number == len(runs(scene.wave)) == len(scene.events), scene.caption
        assert not compose.held_out_count(scene.events[0].name, number)
        seen.add((number, bool(word[2])))
    assert seen == {(number, turned) for number in (2, 3, 4, 5) for turned in (False, True)}


def test_every_sound_stands_where_its_event_says_and_is_what_the_caption_calls_it(heard):
    for scene in heard:
        if scene.kind == "over":
            continue
        found = runs(scene.wave)
        assert len(found) == len(scene.events), scene.caption
        for (start, end), event in zip(found, scene.events, strict=True):
            assert start / RATE == pytest.approx(event.start, abs=0.03)
            assert (end - start) / RATE == pytest.approx(event.seconds, abs=0.12)
            assert strength(scene.wave[start:end], TONE_OF[event.name]) > 0.6, scene.caption
        words = [compose.bare(phrase) for phrase in sounds.SOUNDS[scene.events[0].name].phrases]
        several = sounds.SOUNDS[scene.events[0].name].several
        assert any(word in scene.caption for word in (*words, several or words[0])), scene.caption


def test_what_the_caption_names_first_is_heard_first(heard):
    scenes = [scene for scene in heard if scene.kind == "then"]
    for scene in scenes:
        first, second = re.split(r",? (?:and )?then |, then | followed by ", scene.caption)
        for phrase, event in zip((first, second), scene.events, strict=True):
            assert phrase in sounds.SOUNDS[event.name].phrases
        assert scene.events[0].start + scene.events[0].seconds + 0.1 < scene.events[1].start
    assert len(scenes) > 20


def test_what_is_over_a_texture_is_louder_and_inside_it(heard):
    scenes = [scene for scene in heard if scene.kind == "over"]
    for scene in scenes:
        above, below = scene.events
        said = re.fullmatch(r"(.+?) (?:over|with) (.+?)(?: in the background)?", scene.caption)
        first, second = said.groups()
        assert first in sounds.SOUNDS[above.name].phrases and second in sounds.SOUNDS[below.name].phrases
        assert below.start < above.start - 0.3
        assert above.start + above.seconds < below.start + below.seconds
        start = round(above.start * RATE)
        piece = scene.wave[start:start + 1200]  # the first 50 ms, before it dies away
        assert strength(piece, TONE_OF[above.name], 300) > strength(piece, TONE_OF[below.name], 300)
        assert strength(scene.wave, TONE_OF[below.name]) > 0.05
    assert len(scenes) > 20


def fills(scene):
    """Whether it sounds from the window's beginning to its end."""
    return scene.kind == "texture" and scene.events[0].seconds == WINDOW / RATE


def test_most_textures_fill_the_window(heard):
    textures = [scene for scene in heard if scene.kind == "texture"]
    full = [scene for scene in textures if fills(scene)]
    assert 0.6 < len(full) / len(textures) < 0.9
    for scene in full:
        assert sounds.energy(scene.wave)[20:-20].min() > -40 or scene.course


def test_what_happens_may_come_again_until_the_end_and_what_is_struck_once_does_not(heard):
    events = [scene for scene in heard if scene.kind == "event"]
    again = [scene for scene in events if len(scene.events) > 1]
    assert 0.2 < len(again) / sum(compose.happens(scene.caption) for scene in events) < 0.7
    for scene in again:
        assert compose.happens(scene.caption) and sounds.SOUNDS[scene.events[0].name].several
        assert scene.events[-1].start + 1.5 > compose.ROOM - scene.events[0].seconds - 0.6


def test_all_scenes_are_silent_around_and_as_loud_as_one_another(scenes):
    for scene in scenes[::2]:
        wave = scene.wave
        assert wave.shape == (WINDOW,) and wave.dtype == np.float32
        sounding = np.flatnonzero(wave)
        if not fills(scene):
            assert 0.049 * RATE < sounding[0] < 0.2 * RATE and sounding[-1] < WINDOW - 0.05 * RATE
        assert abs(wave).max() <= sounds.PEAK + 1e-6
        rms = np.sqrt((wave.reshape(-1, sounds.FRAME)[sounds.energy(wave) > -30] ** 2).mean())
        assert rms == pytest.approx(0.1, rel=0.01) or (rms < 0.1 and abs(wave).max() > 0.94)


def test_loudness_goes_as_the_caption_says(scenes):
    seen = set()
    for scene in scenes:
        course = re.search("|".join(compose.COURSES), scene.caption)
        assert (course[0] if course else None) == scene.course
        if scene.course and scene.kind in ("texture", "repeat"):
            first, last = np.flatnonzero(scene.wave)[[0, -1]]
            halves = np.array_split(scene.wave[first:last], 2)
            before, after = (np.sqrt((half**2).mean()) for half in halves)
            rises = scene.course in ("fading in", "getting louder")
            assert (after > 1.3 * before) if rises else (before > 1.3 * after), scene.caption
            seen.add(rises)
    assert seen == {True, False}


def test_held_out_pairs_and_files_are_never_heard(data, heard):
    clips = sounds.load(data)
    for name in TONE_OF:
        assert 1 <= sum(clip.held for clip in clips if clip.name == name) <= 2
    composer = compose.Composer(data)
    assert not any(clip.held for found in composer.clips.values() for clip in found)
    for scene in heard:
        if len({event.name for event in scene.events}) == 2:
            assert not compose.held_out_pair(*(event.name for event in scene.events))
    assert all(compose.held_out_pair(a, b) == compose.held_out_pair(b, a) for a, b in pairwise(TONE_OF))


def test_pieces_of_one_recording_are_held_out_together(tmp_path):
    (tmp_path / "sounds").mkdir()
    rows = [{"file_name": f"{n}.wav", "text": "rain", "url_id": str(n // 3)} for n in range(30)]
    for row in rows:
        (tmp_path / "sounds" / row["file_name"]).touch()
    (tmp_path / "sounds" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    held = {int(clip.path.stem) // 3 for clip in sounds.load(tmp_path) if clip.held}
    kept = {int(clip.path.stem) // 3 for clip in sounds.load(tmp_path) if not clip.held}
    assert len(held) == 1 and not held & kept


def test_a_note_has_the_pitch_and_the_instrument_of_its_caption(music):
    told = 0
    for scene in (scene for scene in music if scene.kind == "note"):
        (event,) = scene.events
        assert instrument_in(scene.caption) == event.name
        start = round((event.start + 0.06) * RATE)
        wave = scene.wave[start:start + min(12000, round(event.seconds * RATE) - 1440)]
        assert abs(off(wave, event.key)) < 35, scene.caption
        assert said_keys(scene.caption) in ([event.key], [])
        told += bool(said_keys(scene.caption))
    assert told > 60


def test_notes_follow_one_another_in_the_order_of_the_caption(music):
    for scene in (scene for scene in music if scene.kind == "notes"):
        keys = [event.key for event in scene.events]
        assert said_keys(scene.caption) == keys and instrument_in(scene.caption) == scene.events[0].name
        assert all(a != b for a, b in pairwise(keys))
        for event in scene.events:
            start = round((event.start + 0.1) * RATE)
            wave = scene.wave[start:start + round(event.seconds * RATE) - 2400]
            others = [abs(off(wave, event.key))] if len(wave) > 6000 else [0]
            assert others[0] < 45, scene.caption


def test_chords_and_scales_are_of_the_notes_of_their_key(music):
    seen = set()
    for scene in (scene for scene in music if scene.kind == "chord"):
        root, mode, what = re.search(r"an? ([A-G]#?) (major|minor) (\w+)", scene.caption).groups()
        third = 4 if mode == "major" else 3
        keys = [event.key for event in scene.events]
        down = "going down" in scene.caption
        rising = keys[::-1] if down else keys
        assert notes.NAMES[rising[0] % 12] == root
        steps = [key - rising[0] for key in rising]
        scale = [0, 2, third, 5, 7, third + 5, third + 7, 12]
        assert steps == {"chord": [0, third, 7], "arpeggio": [0, third, 7, 12], "scale": scale}[what]
        assert said_keys(scene.caption) in ([], keys[:1])
        assert len({event.start for event in scene.events}) == (1 if what == "chord" else len(keys))
        seen.add((mode, what, down))
    assert len(seen) >= 7  # of ten


def test_repeated_sounds_are_as_many_and_as_fast_as_the_caption_says(music):
    seen = Counter()
    for scene in (scene for scene in music if scene.kind == "repeat"):
        words = scene.caption
        number = re.match(rf"({'|'.join(compose.NUMBERS)}) ", words)
        turned = [n for n in range(1, 9) if words.split(" at ")[0].split(",")[0].endswith(compose.times(n))]
        if number:
            assert compose.NUMBERS.index(number[1]) + 1 == len(scene.events), words
        tempo = re.search(r"(\d+) bpm", words)
        assert (int(tempo[1]) if tempo else None) == scene.tempo
        starts = [event.start for event in scene.events]
        if tempo:
            assert np.diff(starts) == pytest.approx([60 / int(tempo[1])] * (len(starts) - 1), abs=1e-6)
        assert not compose.held_out_count(scene.events[0].name, len(starts))
        level = sounds.energy(scene.wave)
        if scene.events[0].name in ("kick drum", "snare drum", "hi-hat", "woodblock", "claves"):
            for start in starts:  # it is struck there: louder than a moment before
                at = round(start * RATE / sounds.FRAME)
                assert level[at:at + 5].max() > level[max(0, at - 6):at - 1].max() + 3, words
            seen["struck"] += 1
        seen["number"] += bool(number)
        seen["tempo"] += bool(tempo)
        seen["turned"] += bool(turned)
    assert min(seen[what] for what in ("struck", "number", "tempo", "turned")) > 2


def test_held_out_notes_are_never_played_and_the_others_are(music):
    drawn = {(event.name, event.key) for scene in music for event in scene.events if event.key is not None}
    assert not any(compose.held_out_note(*pair) for pair in drawn)
    every = {(one.name, key) for one in notes.INSTRUMENTS.values() for key in one.keys}
    kept = {pair for pair in every if not compose.held_out_note(*pair)}
    assert 0.9 < len(kept) / len(every) < 0.95
    assert len(drawn & kept) > 0.5 * len(kept)


@pytest.mark.parametrize("name", notes.INSTRUMENTS)
def test_every_instrument_is_in_tune(name, font):
    instrument = notes.INSTRUMENTS[name]
    for key in instrument.keys[::4]:
        wave = notes.render([notes.Event(0, 1, key, 95, instrument.program)], 1)
        assert abs(off(wave[1200:18000], key)) <= 20, notes.named(key)


def test_a_rendering_does_not_depend_on_what_was_rendered_before(font):
    flute = [notes.Event(0.1, 0.8, 69, 100, 73)]
    once = notes.render(flute, 1)
    notes.render([notes.Event(0, 0.5, 60, 100, 0), notes.Event(0.1, 0.2, 36, 110, None)], 1)
    assert np.array_equal(notes.render(flute, 1), once)
    assert abs(once[: RATE // 10 - 64]).max() < 1e-6 and len(once) == RATE


def test_a_missing_sound_font_is_named(tmp_path, monkeypatch):
    pytest.importorskip("fluidsynth", exc_type=ImportError)
    monkeypatch.setenv("SOUNDFONT", str(tmp_path / "none.sf2"))
    with pytest.raises(ValueError, match=r"none\.sf2'; it must be a General MIDI"):
        notes.loaded.__wrapped__()
    (tmp_path / "none.sf2").write_text("no font")
    with pytest.raises(ValueError, match=r"none\.sf2'; it must be a sound font that FluidSynth can read"):
        notes.loaded.__wrapped__()


def test_a_missing_synthesizer_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(ImportError, match=r"diffusion-suite\[soundfont\].*libfluidsynth3 fluid-soundfont-gm"):
        notes.loaded.__wrapped__()


def test_note_names_and_frequencies():
    assert [notes.named(key) for key in (48, 60, 61, 69, 84)] == ["C3", "C4", "C#4", "A4", "C6"]
    assert notes.frequency(69) == 440 and notes.frequency(57) == 220


def test_a_number_and_a_seed_name_a_scene(data, heard):
    again = compose.Composer(data, ("event", "count", "texture", "then", "over"))
    for number in (7, 3, 390):
        scene = again.nth(0, number)
        assert scene.caption == heard[number].caption and scene.events == heard[number].events
        assert np.array_equal(scene.wave, heard[number].wave)
    assert len({again.nth(1, number).wave.tobytes() for number in range(20)}) == 20


def test_the_kinds_have_their_shares(data, monkeypatch):
    composer = compose.Composer(data)
    for kind in compose.KINDS:
        monkeypatch.setattr(composer, f"_{kind}", lambda rng, kind=kind: kind)
    drawn = Counter(composer.nth(0, number) for number in range(4000))
    for kind, share in compose.KINDS.items():
        assert drawn[kind] / 40 == pytest.approx(share, abs=2.5)


def test_events_of_a_file_are_cut_apart(tmp_path):
    path, bark = tmp_path / "a.wav", struck(500)
    hum = 0.001 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    wave = np.concatenate([hum, bark, hum[:6000], 0.8 * bark, hum[: RATE // 2], 0.02 * bark, hum])
    soundfile.write(path, 0.5 * wave, RATE)
    found = sounds.takes(path)
    assert len(found) == 2  # the third is too soft to be one
    for take in found:
        assert len(take) / RATE == pytest.approx(0.2, abs=0.08)
        assert strength(take, 500) > 0.8


def test_what_is_struck_again_while_it_rings_is_cut_there(tmp_path):
    wave = np.zeros(2 * RATE, np.float32)
    for start in (0.1, 0.5, 0.9):
        ring = struck(700, 1.0)
        wave[round(start * RATE):round(start * RATE) + RATE] += ring
    soundfile.write(tmp_path / "a.wav", 0.3 * wave, RATE)
    assert len(sounds.takes(tmp_path / "a.wav")) == 3
    assert len(sounds.takes(tmp_path / "a.wav", 0.5)) == 1


def test_a_clip_is_mono_at_our_rate_without_the_silence_around(tmp_path):
    stereo = np.pad(np.stack([tone(1000, 1, 48000), 0.5 * tone(1000, 1, 48000)], 1), ((9600, 4800), (0, 0)))
    soundfile.write(tmp_path / "a.flac", 0.5 * stereo, 48000)
    wave = sounds.clip(tmp_path / "a.flac")
    assert len(wave) / RATE == pytest.approx(1, abs=0.02) and strength(wave, 1000, 10) > 0.95
    assert np.sqrt((wave**2).mean()) == pytest.approx(sounds.LEVEL, rel=0.03)


def test_every_class_reads_as_english_and_no_two_are_called_alike():
    phrases = [phrase for sounding in sounds.SOUNDS.values() for phrase in sounding.phrases]
    assert len(set(phrases)) == len(phrases)
    for sounding in sounds.SOUNDS.values():
        assert re.compile(sounding.pattern) and sounding.kind in ("event", "texture")
        assert all(re.fullmatch(r"[a-z][a-z \-]+", phrase) for phrase in sounding.phrases)
        assert sounding.several is None or (sounding.kind == "event" and sounding.several.endswith("s"))
    assert compose.times(1) == "once" and compose.times(3) == "three times"
    assert compose.happens("a dog barking") and not compose.happens("a gong")
    assert compose.bare("an engine") == "engine" and compose.bare("rain") == "rain"


def audiofolder(folder, *rows):
    folder.mkdir(exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_an_audiofolder_gives_its_sounds_cut_or_padded_to_the_window(tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.5 * tone(440, 1, 44100), 44100)
    soundfile.write(tmp_path / "long.flac", 0.5 * np.stack([tone(880, 7)] * 2, 1), RATE)
    (tmp_path / "sounds").mkdir()  # as a user may call a folder; metadata.jsonl says what this is
    audiofolder(tmp_path, *({"file_name": name, "text": name} for name in ("short.wav", "long.flac")))
    draw = compose.Drawing(tmp_path, 0)
    (short, caption), (long, _), again = (draw(number) for number in range(3))
    assert caption == "short.wav" and np.array_equal(again[0], short)
    assert short.shape == long.shape == (1, WINDOW) and short.dtype == np.int16
    assert not short[0, RATE + 10:].any() and strength(short[0, :RATE].astype(float), 440, 10) > 0.95
    assert strength(long[0].astype(float), 880, 10) > 0.95 and abs(long).max() == pytest.approx(16384, abs=90)


def test_a_scene_of_the_packs_comes_as_sixteen_bits(data):
    draw = compose.Drawing(data, 5, ("texture",))
    wave, caption = draw(3)
    scene = compose.Composer(data, ("texture",)).nth(5, 3)
    assert caption == scene.caption and wave.shape == (1, WINDOW) and wave.dtype == np.int16
    assert abs(wave[0] / 32767 - scene.wave).max() <= 0.501 / 32767


def test_what_cannot_be_trained_on_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"metadata\.jsonl cannot be read as training data"):
        compose.Drawing(tmp_path, 0)
    with pytest.raises(ValueError, match="names no sound"):
        compose.Drawing(audiofolder(tmp_path), 0)
    (tmp_path / "a.wav").write_text("no sound")
    draw = compose.Drawing(audiofolder(tmp_path, {"file_name": "a.wav", "text": "x"}), 0)
    with pytest.raises(ValueError, match=r"a\.wav'; it must be a sound that can be read"):
        draw(0)
    with pytest.raises(ValueError, match="kinds has 'songs'; they must be of note, notes"):
        compose.Composer(data, ("songs",))
    audiofolder(tmp_path / "packs").joinpath("sounds").mkdir()
    (tmp_path / "packs" / "metadata.jsonl").unlink()
    audiofolder(tmp_path / "packs" / "sounds")
    with pytest.raises(ValueError, match="no sounds to train on"):
        compose.Drawing(tmp_path / "packs", 0)
