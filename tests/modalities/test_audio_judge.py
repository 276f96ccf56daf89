"""The judge of sounds, held to sounds whose truth is known: each name has a mark of its own, a high tone."""

import json
import math
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from modalities import judging, naming
from modalities.audio import RATE, WINDOW, AudioRequest, judge, judge_train, measure
from modalities.audio import prompts as asking
from modalities.audio.compose import held_out_count, held_out_note, held_out_pair
from modalities.audio.judge import evaluate, exactness, real_scenes, verdict
from modalities.audio.loudness import normalized
from modalities.audio.notes import frequency
from modalities.audio.prompts import COUNTED, HEARD, KINDS, NAMES, Prompt, prompts, real_scene, recordings
from modalities.audio.save import Sound
from modalities.audio.sounds import SOUNDS, faded, load, takes
from modalities.judging import Verdict
from suite import cli, storage
from suite.nn import NETWORKS
from suite.nn.vocoder import Vocoder

TEXTS = {  # what the pack calls a class, where it is not the class's own name
    "dog": "dog bark", "sneeze": "person sneeze", "hi-hat": "hi-hat raw", "kick drum": "bass drum boom",
    "tabla": "tabla na", "metal clang": "metal hit", "trash can": "trash can hit", "baby": "baby cry",
    "click": "click interface sound", "clock": "clock tick", "fire": "fire crackling",
}  # fmt: skip
MARKS = {name: 7000 + 48 * i for i, name in enumerate(NAMES)}  # Hz


def tone(hertz, seconds, decay=0.0):
    time = np.arange(round(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * hertz * time) * np.exp(-decay * time)).astype(np.float32)


def marked(name, seconds, hertz=440.0, decay=0.0):
    """A note of three harmonics with its name's mark."""
    note = sum(tone(hertz * n, seconds, decay) / n for n in (1, 2, 3))
    return faded(0.2 * (note + 0.15 * tone(MARKS[name], seconds, decay)))


def at(starts, waves, seconds=WINDOW / RATE):
    """Waves in silence, from these seconds on."""
    found = np.zeros(round(seconds * RATE), np.float32)
    for start, wave in zip(starts, waves, strict=True):
        first = round(start * RATE)
        found[first : first + len(wave)] += wave[: len(found) - first]
    return found


class Marks:
    """Names sounds by their marks; stands in for the trained network."""

    names = NAMES

    def scores(self, waves):
        found = []
        for wave in waves:
            wave = np.pad(wave, (0, 1 << 14))
            power = np.abs(np.fft.rfft(wave)) ** 2
            bins = [round(MARKS[name] * len(wave) / RATE) for name in self.names]
            found.append([power[max(0, b - 8) : b + 9].sum() for b in bins])
        return torch.tensor(np.array(found)).clamp(min=1e-12).log().log_softmax(-1)

    def features(self, waves):
        return torch.stack([measure.tensor([wave]).mean((0, 1, 3))[::10] for wave in waves])


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Eleven files of each class: an event that dies away, or a texture of three seconds."""
    root = tmp_path_factory.mktemp("packs")
    (root / "sounds").mkdir()
    rows = []
    for name in HEARD:
        event = SOUNDS[name].kind == "event"
        wave = marked(name, 0.3, 300, 12) if event else marked(name, 3, 500)
        for number in range(11):
            file = f"{name}-{number}.wav"
            soundfile.write(root / "sounds" / file, np.pad(wave, 2400), RATE, "FLOAT")
            rows.append({"file_name": file, "text": TEXTS.get(name, name)})
    (root / "sounds" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture
def played(monkeypatch):
    """Lets instruments and drums play marked notes, so that no sound font is needed."""

    def play(rng, instrument, notes):
        waves = [marked(instrument.name, seconds, frequency(key), 2) for _, seconds, key in notes]
        return at([start for start, *_ in notes], waves, max(start + seconds for start, seconds, _ in notes))

    def beat_on(rng, drum, starts):
        return at(starts, [marked(drum.name, 0.2, 200, 20)] * len(starts), starts[-1] + 0.2)

    for module in (asking, judge_train):
        monkeypatch.setattr(module, "play", play)
    monkeypatch.setattr(asking, "beat_on", beat_on)


def test_the_prompts_ask_for_what_training_never_has():
    every = prompts(500)
    assert every == prompts(500) and prompts(3) != prompts(3, seed=1)
    assert list(dict.fromkeys(p.kind for p in every)) == list(KINDS)
    for p in every:
        if p.keys:
            assert any(held_out_note(p.names[0], key) for key in p.keys)
        elif p.tempo:
            assert held_out_count(p.names[0], p.count) and (p.count - 1) * 60 / p.tempo < 4
        elif p.kind in ("then", "over"):
            assert held_out_pair(*p.names)
        assert all(name in NAMES for name in p.names)
    assert {p.names[0] for p in every if p.kind == "sound"} == set(HEARD)
    assert len({p.text for p in every}) == len(every)


@pytest.mark.parametrize("kind, said", [
    ("note", r"an? [a-z ]+ (play|sing)ing [A-G]#?\d"),
    ("two notes", r"an? [a-z ]+ (play|sing)ing [A-G]#?\d, then [A-G]#?\d"),
    ("repeats", r"(two|three|four|five|six|seven|eight) [a-z -]+s at \d+ bpm"),
    ("then", r".+, then .+"),
    ("over", r".+ over .+|.+ with .+ in the background"),
])  # fmt: skip
def test_prompts_read_as_training_captions_do(kind, said):
    texts = [p.text for p in prompts(30) if p.kind == kind]
    assert len(texts) > 15 and all(re.fullmatch(said, text) for text in texts)


def test_single_sounds_are_asked_for_in_other_words_than_training_has():
    phrases = {phrase for sounding in SOUNDS.values() for phrase in sounding.phrases}
    for p in prompts(40):
        if p.kind == "sound":
            assert p.text not in phrases and any(phrase in p.text for phrase in SOUNDS[p.names[0]].phrases)


@pytest.mark.parametrize("key", range(48, 85, 3))
def test_pitch_is_told_within_a_tenth_of_a_semitone(key):
    (found,) = measure.pitches(at([0.1], [marked("piano", 0.7, frequency(key + 0.2), 2)]))
    assert found == pytest.approx(key + 0.2, abs=0.1)


def test_a_melody_is_told_in_its_order():
    keys = (60, 67, 60, 72)
    wave = at(np.arange(4), [marked("piano", 0.9, frequency(key), 1) for key in keys])
    assert measure.pitches(wave) == pytest.approx(keys, abs=0.1)


def test_noise_and_silence_have_no_pitch_and_no_events():
    noise = np.random.default_rng(0).normal(size=WINDOW).astype(np.float32)
    silence = np.zeros(WINDOW, np.float32)
    assert measure.pitches(0.1 * noise) == [] == measure.pitches(silence)
    assert len(measure.onsets(silence)) == 0 == len(measure.bursts(silence))
    assert len(measure.bursts(0.1 * noise)) == 1


def test_pitch_agrees_with_librosa():
    librosa = pytest.importorskip("librosa")
    wave = at([0.1, 1.1], [marked("piano", 0.8, frequency(57.3), 1), marked("piano", 0.8, 880, 1)], 2)
    theirs, *_ = librosa.pyin(wave, fmin=60, fmax=2200, sr=RATE, frame_length=2048, hop_length=512)
    ours = measure.track(wave)
    theirs = librosa.hz_to_midi(theirs)[: len(ours)]
    both = np.isfinite(theirs) & np.isfinite(ours)
    assert both.sum() > 0.8 * np.isfinite(theirs).sum()
    assert np.median(np.abs(theirs - ours)[both]) < 0.1 and np.mean(np.abs(theirs - ours)[both] < 0.5) > 0.97


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("bpm", [100, 180])
def test_onsets_are_counted_and_timed(number, bpm):
    starts = 0.1 + 60 / bpm * np.arange(number)
    hits = at(starts, [marked("snare drum", 0.25, 200, 15)] * number)
    legato = at(starts, [marked("piano", 60 / bpm, 440, 3)] * number)
    for wave in (hits, legato, 0.1 * hits):
        found = measure.onsets(wave)
        assert len(found) == number and np.abs(found - starts).max() < 0.03
        if number > 1:
            assert measure.tempo(found) == pytest.approx(bpm, rel=0.02)
    if bpm == 100:
        assert np.allclose(measure.bursts(hits), starts, atol=0.01)
    assert measure.tempo(found[:1]) is None


def test_an_event_that_wavers_is_one():
    wave = marked("dog", 1.0) * (0.55 + 0.45 * tone(9, 1.0))
    assert len(measure.bursts(at([0.2, 2.2], [wave, 0.5 * wave]))) == 2


def test_two_sounds_are_parted_between_them():
    first, second = measure.halves(at([0.1, 1.6], [marked("dog", 1.3), 0.4 * marked("rain", 2)]))
    assert len(first) + len(second) == WINDOW and 1.4 <= len(first) / RATE <= 1.6


def test_frechet_distance_has_its_closed_form():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double()
    assert measure.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert measure.frechet_distance(x, x + 2) == pytest.approx(4 * 6)
    middle = x.mean(0)
    spread = float((x - middle).square().sum() / 49)
    assert measure.frechet_distance(x, middle + 3 * (x - middle)) == pytest.approx(4 * spread)
    y = torch.randn(9, 6, generator=torch.Generator().manual_seed(1)).double()
    assert measure.frechet_distance(x, y) == pytest.approx(measure.frechet_distance(y, x))


def test_the_distance_of_what_is_real_is_near_its_best():
    z = torch.randn(700, 8, generator=torch.Generator().manual_seed(0))
    real = {"held out": z[100:400], "asked": z[400:]}
    found = naming.distances(measure.frechet_distance, z[:100], real)
    assert abs(found["of the model"] - found["of real scenes"]) < 5 * found["of real scenes, deviation"]
    assert naming.distances(measure.frechet_distance, z[:100] + 1, real)["of the model"] > 7


@pytest.mark.parametrize("prompt, right, wrong", [
    (Prompt("", "note", ("piano",), (69,)),
     at([0.1], [marked("piano", 1, 440)]), at([0.1], [marked("piano", 1, frequency(69.6))])),
    (Prompt("", "two notes", ("piano",), (69, 74)),
     at([0.1, 1], [marked("piano", 0.8, frequency(key)) for key in (69, 74)]),
     at([0.1, 1], [marked("piano", 0.8, frequency(key)) for key in (74, 69)])),
    (Prompt("", "repeats", ("piano",), count=3, tempo=120),
     at([0.1, 0.6, 1.1], [marked("piano", 0.4)] * 3), at([0.1, 0.7, 1.3], [marked("piano", 0.4)] * 3)),
    (Prompt("", "events", ("piano",), count=3),
     at([0.1, 0.9, 1.5], [marked("piano", 0.3)] * 3), at([0.1, 0.9], [marked("piano", 0.3)] * 2)),
])  # fmt: skip
def test_what_is_measured_and_what_is_named_are_told_apart(prompt, right, wrong):
    assert verdict(prompt, right, Marks()) == Verdict(named=True, seen=True, right=True)
    assert verdict(prompt, wrong, Marks()) == Verdict(named=True, seen=False, right=False)
    other = Prompt("", prompt.kind, ("organ",), prompt.keys, prompt.count, prompt.tempo)
    assert verdict(other, right, Marks()) == Verdict(named=False, seen=True, right=False)
    assert verdict(prompt, 0 * right, Marks()) == Verdict(False, False, False)


def test_order_counts_in_a_sequence_and_both_names_in_a_mixture():
    after = at([0.1, 2], [marked("dog", 1), marked("rain", 1)])
    assert verdict(Prompt("", "then", ("dog", "rain")), after, Marks()).right
    assert not verdict(Prompt("", "then", ("rain", "dog")), after, Marks()).named
    assert not verdict(Prompt("", "then", ("dog", "rain")), at([1], [marked("dog", 2)]), Marks()).named
    both = at([0.1, 2], [0.4 * marked("rain", 4, 500), marked("dog", 1)])
    assert verdict(Prompt("", "over", ("dog", "rain")), both, Marks()).right
    assert not verdict(Prompt("", "over", ("dog", "fire")), both, Marks()).named


def drawing(asked, clips, turned=None):
    """A drawer of real scenes of the prompts, or of others."""
    by_text = {p.text: p for p in asked}
    waves = {
        text: real_scene(p, clips, random.Random(f"drawn {i}")) for i, (text, p) in enumerate(by_text.items())
    }

    def draw(text, seed, seconds=WINDOW / RATE, channels=1):
        wave = np.resize(waves[(turned or {}).get(text, text)], round(seconds * RATE))
        request = AudioRequest(prompt=text, seconds=seconds, channels=channels, normalize=False)
        return Sound(np.stack([wave] * channels), RATE, {"request": request.model_dump()})

    return draw


def test_an_oracle_scores_near_one_and_a_shuffled_one_near_nothing(packs, played, tmp_path):
    asked, clips, sheet = prompts(4), recordings(packs), tmp_path / "sheet.png"
    report = evaluate(drawing(asked, clips), Marks(), 4, 0, sheet=sheet)
    assert report["scores"]["mean"]["right"] > 0.95 and report["exactness"]["length"] == 1
    notes = [row for row in report["prompts"] if row["keys"]]
    assert all(row["heard"]["keys"] == pytest.approx(row["keys"], abs=0.2) for row in notes)
    assert Image.open(sheet).width > 1000
    texts = [p.text for p in asked]
    turned = {text: texts[i] for text, i in zip(texts, judging.others([p.kind for p in asked]), strict=True)}
    report = evaluate(drawing(asked, clips, turned), Marks(), 4, 0)
    assert report["scores"]["mean"]["right"] < 0.1


def test_noise_scores_nothing(packs, played):
    def draw(text, seed, seconds=WINDOW / RATE, channels=1):
        wave = np.random.default_rng(seed).normal(0, 0.1, (channels, round(seconds * RATE)))
        request = AudioRequest(prompt=text, seconds=seconds, channels=channels, normalize=False)
        return Sound(wave.astype(np.float32), RATE, {"request": request.model_dump()})

    table = evaluate(draw, Marks(), 4, 0)["scores"]
    assert table["mean"]["right"] < 0.1 and all(table[kind]["seen"] == 0 for kind in KINDS[:3])
    assert table["mean"]["seen"] == table["events"]["seen"] / 4


def test_the_judge_s_own_scores_are_its_own(packs, played):
    found = real_scenes(Marks(), recordings(packs), 4)
    assert found["real"]["mean"]["right"] > 0.95 and found["chance"]["mean"]["right"] < 0.1
    features = judge.reference(Marks(), recordings(packs), 2, 2)
    assert len(features["held out"]) == len(features["asked"]) == 2 * 2 * len(KINDS)
    assert not torch.equal(features["held out"], features["asked"])


def test_only_held_out_recordings_are_in_real_scenes(packs):
    clips = recordings(packs)
    every = load(packs)
    assert {one.path for some in clips.values() for one in some} == {one.path for one in every if one.held}
    assert all(0 < len(clips[name]) < sum(one.name == name for one in every) for name in HEARD)


def test_exactness_is_of_samples_loudness_and_peaks():
    request = AudioRequest(prompt="a check", seconds=1.5, loudness=-20, ceiling=-2)
    settings = {"request": request.model_dump()}
    wave = normalized(tone(440, 1.5)[None], RATE, -20, -2)
    exact = exactness([Sound(wave, RATE, settings)])
    assert exact["length"] == exact["loudness"] == exact["below the ceiling"] == 1
    assert exact["largest from the loudness"] < 0.1
    off = exactness([Sound(wave[:, 1:], RATE, settings), Sound(2 * wave, RATE, settings)])
    assert off["length"] == off["loudness"] == 0.5
    assert off["largest from the loudness"] == pytest.approx(20 * math.log10(2), abs=0.1)
    loud = exactness([Sound(20 * wave, RATE, settings)])
    assert loud["below the ceiling"] == 0 and loud["largest over the ceiling"] > 0


def test_vocoding_is_measured_against_griffin_lim():
    waves = [at([0.1], [marked("piano", 1, hertz, 2)], 1.28) for hertz in (220, 440)]
    vocoder = Vocoder(width=8, blocks=0)
    vocoder.decode = lambda mel: torch.from_numpy(next(w for w in waves if torch.equal(
        vocoder.mel(torch.from_numpy(w)[None, None]), mel)))[None, None]  # fmt: skip
    found = measure.vocoding(waves, vocoder)
    assert found["vocoder"] == {"STFT": 0, "mel": 0}
    assert 0 < found["Griffin-Lim, 32 turns"]["STFT"] < 2 and found["Griffin-Lim, 32 turns"]["mel"] < 6


DATA = os.environ.get("SUITE_DATA")
with_packs = pytest.mark.skipif(not DATA, reason="SUITE_DATA names no folder with the unpacked packs")


@with_packs
def test_the_sounds_of_the_prompts_are_those_of_many_files():
    counts = Counter(one.name for one in load(Path(DATA)))
    held = Counter(one.name for one in load(Path(DATA)) if one.held)
    assert {name for name, count in counts.items() if count >= 18} == set(HEARD)
    assert min(held[name] for name in HEARD) >= 2
    clips = recordings(Path(DATA))
    for name, most in COUNTED.items():
        shortest = min(len(take) for one in clips[name] for take in takes(one.path, SOUNDS[name].gap)[:1])
        assert SOUNDS[name].several and shortest / RATE < 4.85 / most - 0.25


def test_augmenting_keeps_silence_silent_but_for_the_noise_and_moves_the_rest_together():
    mel = torch.full((64, 100, 240), -judge_train.STEPS, dtype=torch.int8)
    mel[:, 40:60, 100:140] = 100
    x = judge_train.augmented(mel, torch.Generator().manual_seed(0))
    assert x.shape == (64, 1, 100, 240) and (x >= -1).all() and (x < 1.5).all()
    assert (x[:, :, :30].mean() < -0.8) and (x[:, :, 45:55].amax((2, 3)) > 0.5).float().mean() > 0.9
    assert torch.equal(x, judge_train.augmented(mel, torch.Generator().manual_seed(0)))
    heard = x[:, 0, 45:55].amax(1) > 0
    middles = heard[heard.any(1)].float() @ torch.arange(240.0) / heard[heard.any(1)].sum(1)
    assert 8 < middles.std() < 20


def test_a_sound_laid_over_another_is_heard_beside_it():
    x, heard = torch.full((32, 1, 4, 6), -1.0), torch.eye(32, dtype=torch.uint8)
    x[:, :, 1], heard[0, 1] = 0.5, 1  # the first holds two sounds
    found, shares = judge_train.mixed(x, heard, torch.Generator().manual_seed(0))
    two = (shares > 0).sum(1) == 2
    assert two[0] and 6 < two.sum() < 26 and torch.allclose(shares.sum(1), torch.ones(32))
    assert torch.equal(found[0], x[0]) and torch.equal(found[~two], x[~two])
    assert (found[two][1:, :, 1] > 0.5).all()


RECIPE = {
    "text": "words",
    "network": {"type": "classifier", "channels": 1, "widths": [8, 8], "stride": 8, "text_width": 8},
    "train": {"scenes": 12, "steps": 4, "batch": 8, "rate": 1e-3, "decay": 0.1, "seed": 1, "every": 2},
}


@pytest.fixture
def reads_words(monkeypatch, words):
    for module in (naming, judge_train):
        monkeypatch.setattr(module, "load_text", lambda name: words)
    monkeypatch.setattr(judge_train, "KINDS", judge_train.KINDS[:4])


def test_a_killed_training_goes_on_to_the_same_weights(packs, tmp_path, reads_words, played, monkeypatch):
    judge_train.train(RECIPE, packs, tmp_path / "whole")
    calls, augmented = [], judge_train.augmented

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return augmented(*args)

    monkeypatch.setattr(judge_train, "augmented", killed)
    with pytest.raises(KeyboardInterrupt):
        judge_train.train(RECIPE, packs, tmp_path / "killed")
    monkeypatch.setattr(judge_train, "scenes", None)  # they are there
    judge_train.train(RECIPE, packs, tmp_path / "killed")
    assert len(calls) == 6  # steps 1 to 3 and the killed one, then 3 and 4 again
    whole, mended = (storage.weights(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], mended[key]) for key in whole)
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {"config.json", "model.safetensors"}


def test_the_names_of_a_scene_are_those_of_its_events(packs, reads_words):
    found = judge_train.scenes(packs, 20, 3)
    assert found["mel"].shape == (20, 100, 240) and found["mel"].dtype == torch.int8
    heard = found["heard"].sum(1)
    assert set(heard.tolist()) == {1, 2}


def test_the_command_tells_and_writes_what_it_found(
    packs, tmp_path, tiny_audio_model, reads_words, played, capsys
):
    options = {key: value for key, value in RECIPE["network"].items() if key != "type"}
    folder = tmp_path / "judge"
    settings = {"modality": "audio", "kind": "judge", "text": "words", "network": RECIPE["network"]}
    storage.save(folder, NETWORKS["classifier"](**options), settings)
    judge_train.record(folder, packs, count=1)
    argv = ["--model", tiny_audio_model, "--judge", folder, "--count", 1, "--steps", 2, "--guidance-scale", 2]
    argv += ["--json", tmp_path / "found.json", "--sheet", tmp_path / "sheet.png"]
    argv += ["--vocoder", tiny_audio_model.parent / "audio-vocoder"]
    assert cli.main(["eval", "audio", *map(str, argv)]) == 0
    told, report = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert all(f"| {kind} | 1 |" in told for kind in KINDS) and "Frechet distance" in told
    assert "| then | 1 |" in told and "vocoder" not in report
    assert len(report["prompts"]) == len(KINDS) and report["request"]["num_inference_steps"] == 2
    assert report["exactness"]["sounds"] == len(KINDS) + len(judge.LENGTHS)
    assert report["exactness"]["length"] == 1
    assert report["judge"]["held_out"]["recordings"]["asked"] == len(HEARD)
    assert report["judge"]["held_out"]["notes"]["asked"] > 15
    assert Image.open(tmp_path / "sheet.png").width > 1000
    cells = next(line for line in told.splitlines() if line.startswith("| over")).split(" | ")
    assert cells[4] == cells[7] == "-"


def test_with_the_packs_the_vocoder_is_measured_too(
    packs, tmp_path, tiny_audio_model, reads_words, played, monkeypatch, capsys
):
    monkeypatch.setattr(judge, "LENGTHS", ())
    monkeypatch.setattr(judge, "reference", lambda *_: {k: torch.randn(9, 8) for k in ("held out", "asked")})
    monkeypatch.setattr(asking, "HEARD", HEARD[:2])
    options = {key: value for key, value in RECIPE["network"].items() if key != "type"}
    settings = {"modality": "audio", "kind": "judge", "text": "words", "network": RECIPE["network"]}
    storage.save(tmp_path / "judge", NETWORKS["classifier"](**options), settings)
    argv = ["--model", tiny_audio_model, "--judge", tmp_path / "judge", "--count", 1, "--steps", 1]
    argv += ["--data", packs, "--vocoder", tiny_audio_model.parent / "audio-vocoder"]
    assert cli.main(["eval", "audio", *map(str, argv)]) == 0
    told = capsys.readouterr().out
    assert "| vocoder | " in told and "| Griffin-Lim, 32 turns | " in told


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--count", "0"], "count is 0; it must be 1 to 500"),
        (["--count", "x"], "invalid int value: 'x'"),
        (["--seconds", "90"], "seconds is '90'; it must be"),
        (["--steps", "0"], "num_inference_steps is '0'; it must be at least 1"),
        (["--model", "nowhere"], "model 'nowhere' was not found"),
        (["--json", "nowhere/found.json"], "json is 'nowhere/found.json'; it must be a .json file"),
        (["--sheet", "sheet.gif"], "sheet is 'sheet.gif'; it must be a .png file"),
        (["--data", "nowhere"], "data is 'nowhere'; there is no such folder"),
        (["--data", "tests"], "cannot be read as training data"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(argv, said, tiny_audio_model, capsys):
    argv = ["--model", str(tiny_audio_model), *argv]
    assert cli.main(["eval", "audio", *argv]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("recipe", [True, False])
def test_the_judge_s_training_refuses_what_are_no_packs(recipe, packs, tmp_path, capsys):
    (tmp_path / "sounds").mkdir()
    rows = (packs / "sounds" / "metadata.jsonl").read_text().splitlines()[:2]
    for row in rows:
        (tmp_path / "sounds" / json.loads(row)["file_name"]).touch()
    (tmp_path / "sounds" / "metadata.jsonl").write_text("\n".join(rows))
    path = tmp_path / "recipe.toml"
    path.write_text('text = "words"\n[network]\n[train]\n')
    argv = ["--data", str(tmp_path), "--out", str(tmp_path / "judge")]
    assert judge_train.main(argv + (["--recipe", str(path)] if recipe else [])) == 2
    error = capsys.readouterr().err
    assert "holds too few sounds of a baby crying; it must hold the packs" in error
    assert error.count("\n") == 1 and not (tmp_path / "judge").exists()
