import copy
import json
import pickle
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imageio_ffmpeg import get_ffmpeg_exe
from pytest import approx

from modalities.audio import RATE, AudioRequest, adapter, restore
from modalities.audio.loudness import MARGIN, limited, loudness, normalized, true_peak, widened
from modalities.audio.read import mono, opened, spans
from modalities.audio.save import Sound, save
from modalities.audio.sheet import spectrogram

FIELDS = {
    "prompt": 'a "quiet" flute, 50% off; #1 = best\nthen <rain> & ümlaut 苹果 🍎',
    "negative_prompt": "hiss \\ 'hum'",
    "seed": 2**32 - 1,
    "guidance_scale": 3.7,
    "seconds": 1.25,
    "channels": 2,
    "loop": True,
    "eta": None,
    "ceiling": -2.0,
    "bits": "24",
    "model": "audio",
}
LOSSLESS = [(".wav", "16"), (".wav", "24"), (".wav", "float"), (".flac", "16"), (".flac", "24")]
SECOND = np.arange(RATE) / RATE


def settings(**fields):
    request = AudioRequest(**{**FIELDS, **fields})
    return {"suite": "0.1.0", "modality": "audio", "request": request.model_dump(mode="json")}


def sine(frequency, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency * SECOND))[None].astype(np.float32)


def noise(channels=1, length=RATE, size=0.1):
    drawn = np.random.default_rng(0).standard_normal((channels, length))
    return (size * drawn).clip(-1, 1).astype(np.float32)


def ffmpeg(*options):
    return subprocess.run([get_ffmpeg_exe(), "-v", "error", "-y", *map(str, options)], check=True)


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_every_setting_comes_back_from_every_format(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    Sound(noise(2), RATE, settings()).save(path)
    assert AudioRequest(**restore(path)) == AudioRequest(**FIELDS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_settings_may_be_as_long_as_a_request_may_be(tmp_path, ending):
    long = {"prompt": "🍎" * 10_000, "negative_prompt": "苹" * 10_000}
    Sound(noise(), RATE, settings(**long)).save(tmp_path / f"a{ending}")
    assert {**restore(tmp_path / f"a{ending}"), **long} == restore(tmp_path / f"a{ending}")
    assert opened("init", str(tmp_path / f"a{ending}"))[0].shape == (1, RATE)


@pytest.mark.parametrize("ending, bits", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_keep_every_sample_to_half_a_step(tmp_path, ending, bits, channels):
    made = noise(channels, RATE + 1)
    Sound(made, RATE, settings()).save(tmp_path / f"a{ending}", bits)
    info = soundfile.info(tmp_path / f"a{ending}")
    assert info.subtype == ("FLOAT" if bits == "float" else f"PCM_{bits}")
    back, rate = opened("init", str(tmp_path / f"a{ending}"))
    assert rate == RATE and back.shape == made.shape
    assert np.abs(back - made).max() <= (0 if bits == "float" else 0.5 / 2 ** (int(bits) - 1))


@pytest.mark.parametrize("ending", [".ogg", ".mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_keep_length_place_and_level_of_a_tone(tmp_path, ending, channels):
    made = np.repeat(sine(440), channels, 0)
    made[:, : RATE // 4] = 0
    Sound(made, RATE).save(tmp_path / f"a{ending}")
    back, rate = opened("init", str(tmp_path / f"a{ending}"))
    assert rate == RATE and back.shape == made.shape
    assert np.square(back - made).sum() < 1e-3 * np.square(made).sum()


def test_bits_are_those_of_the_settings_and_16_without(tmp_path):
    for name, told in (("a", settings(bits="float")), ("b", settings(bits="24")), ("c", None)):
        Sound(noise(), RATE, told).save(tmp_path / f"{name}.wav")
    Sound(noise(), RATE, settings(bits="float")).save(tmp_path / "d.flac")
    found = [soundfile.info(path).subtype for path in sorted(tmp_path.iterdir())]
    assert found == ["FLOAT", "PCM_24", "PCM_16", "PCM_24"]


def test_the_standard_library_reads_our_wav(tmp_path):
    Sound(np.array([[0, 0.5, -1, 1], [0.25, 0, 0, 0]], np.float32), 8000).save(tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        frames = np.frombuffer(file.readframes(9), "<i2").reshape(-1, 2).T.tolist()
    assert frames == [[0, 16384, -32768, 32767], [8192, 0, 0, 0]]


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3"])
@pytest.mark.parametrize("bits", ["24", "float"])
def test_the_same_sound_gives_the_same_bytes(tmp_path, ending, bits):
    for name in "ab":
        Sound(noise(), RATE, settings()).save(tmp_path / f"{name}{ending}", bits)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


@pytest.mark.parametrize("ending", adapter.suffixes)
def test_what_is_too_loud_is_limited_and_never_wraps(tmp_path, ending):
    Sound(sine(440, 1.5), RATE).save(tmp_path / f"a{ending}")
    back, _ = soundfile.read(tmp_path / f"a{ending}")
    assert 0.85 < np.abs(back).max() <= 1
    assert np.corrcoef(back, sine(440)[0])[0, 1] > 0.999


def test_a_wav_of_floats_keeps_what_is_beyond_full_scale(tmp_path):
    Sound(sine(440, 1.5), RATE).save(tmp_path / "a.wav", "float")
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0], sine(440, 1.5)[0])


def test_an_unknown_ending_or_depth_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.m4a'; its ending must be one of .wav"):
        save(Sound(noise(), RATE), tmp_path / "a.m4a", settings())
    with pytest.raises(ValueError, match="bits is '12'; it must be one of 16, 24, float"):
        Sound(noise(), RATE).save(tmp_path / "a.wav", "12")
    with pytest.raises(ValueError, match=r"a\.mp3'; it cannot hold 96000 samples a second"):
        Sound(noise(), 96_000).save(tmp_path / "a.mp3")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("samples, rate, told", [
    (np.zeros(9), RATE, r"samples are \(9,\); they must be \(channels, N\)"),
    (np.zeros((3, 9)), RATE, r"samples are \(3, 9\); they must be \(channels, N\), of 1 or 2"),
    (np.zeros((1, 0)), RATE, r"samples are \(1, 0\)"),
    (np.zeros((1, 9)), 700_000, "sample_rate is 700000; it must be 4000 to 192000"),
])  # fmt: skip
def test_a_sound_that_no_file_holds_is_refused(samples, rate, told):
    with pytest.raises(ValueError, match=told):
        Sound(samples, rate)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_of_a_sound_saves_its_settings_too(again, tmp_path):
    again(Sound(noise(), RATE, settings())).save(tmp_path / "a.flac")
    assert AudioRequest(**restore(tmp_path / "a.flac")) == AudioRequest(**FIELDS)


@pytest.mark.parametrize("content", [b"", b"no sound", b"RIFF\0\0\0\0WAVELIST", b"fLaC cut", None])
def test_what_carries_no_settings_is_refused(tmp_path, content):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.wav (does not exist|is no sound|carries no settings)"):
        restore(path)


@pytest.mark.parametrize("ours", ["with love", "[]", "{", '{"request": 3}', '{"other": {}}', "[" * 10**5])
def test_a_comment_that_is_not_ours_is_refused(tmp_path, ours):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        file.comment = ours
        file.write(noise()[0])
    with pytest.raises(ValueError, match=r"a\.flac carries no settings"):
        restore(tmp_path / "a.flac")


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, monkeypatch):
    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:9])
        raise OSError("no space left")

    sound = Sound(noise(), RATE)
    sound.save(tmp_path / "a.wav")
    before = (tmp_path / "a.wav").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        sound.save(tmp_path / "a.wav")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("ending, codec", [(".m4a", "aac"), (".webm", "libopus"), (".mp4", "aac")])
def test_what_libsndfile_cannot_read_ffmpeg_does(tmp_path, ending, codec):
    Sound(np.concatenate([sine(440), sine(880)]), RATE).save(tmp_path / "a.wav")
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", codec, tmp_path / f"a{ending}")
    back, rate = opened("init", str(tmp_path / f"a{ending}"))
    assert back.shape[0] == 2 and back.shape[1] / rate == approx(1, abs=0.06)
    assert [np.abs(np.fft.rfft(one * np.hanning(len(one)))).argmax() for one in back] == [
        approx(frequency * back.shape[1] / rate, abs=1.5) for frequency in (440, 880)
    ]


def test_a_stream_that_does_not_tell_its_length_is_read(tmp_path):
    Sound(sine(440), RATE).save(tmp_path / "a.wav")
    with open(tmp_path / "a.flac", "wb") as file:
        command = [get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", "-f", "flac", "-"]
        subprocess.run(command, check=True, stdout=file)
    assert opened("init", str(tmp_path / "a.flac"))[0].shape == (1, RATE)


@pytest.mark.parametrize("kind", ["i2", "i4", "u1", "f4", "f8"])
def test_arrays_of_gradio_become_channels_first_in_their_own_range(kind):
    wanted = np.array([[0, 0.5, -1, 0.25], [-0.5, 0, 0, 0.75]])
    half = {"i2": 2.0**15, "i4": 2.0**31, "u1": 2.0**7}.get(kind, 1)
    for asked in (wanted, wanted[:1]):
        told = (asked.T * half + (half if kind == "u1" else 0)).astype(kind)
        found, rate = opened("init", (44_100, told if len(asked) == 2 else told[:, 0]))
        assert rate == 44_100 and found.dtype == np.float32 and np.array_equal(found, asked)


def test_a_finished_sound_may_be_started_from():
    found, rate = opened("init", Sound(noise(2), RATE, settings()))
    assert rate == RATE and np.array_equal(found, noise(2))


def test_floats_beyond_full_scale_are_turned_down():
    found, _ = opened("init", (RATE, np.array([0.0, 4, -2])))
    assert found.tolist() == [[0, 1, -0.5]]


NUMBERS = "which holds values that are no numbers"


@pytest.mark.parametrize("source, told", [
    (7, "init is a int; it must be a path, a Sound"),
    ((RATE,), "init is a tuple; it must be a path"),
    (("a", np.ones(9)), "init is a tuple; it must be a path"),
    ((3, np.ones(9)), "init is a sound of 3 samples a second; they must be 4000 to 192000"),
    ((RATE, np.ones((2, 2, 2))), "init is an array with 3 dimensions of float64; it must be"),
    ((RATE, np.array(["a"])), "init is an array with 1 dimensions of <U1; it must be"),
    ((RATE, np.zeros(0)), "init is a sound, which is empty"),
    ((RATE, np.zeros((9, 2), "i2")), "init is a sound, which is silent; it must hold something"),
    ((RATE, np.array([0.1, np.nan])), NUMBERS),
    ((RATE, np.array([0.1, np.inf])), NUMBERS),
    ((4000, np.ones(4000 * 601, "f4")), "init is a sound, which lasts 601 s; it must last 600 s at most"),
])  # fmt: skip
def test_what_is_no_sound_is_refused(source, told):
    with pytest.raises(ValueError, match=told):
        opened("init", source)


def test_files_that_are_no_sounds_are_refused(tmp_path):
    for name, content in (("a.wav", b""), ("b.mp3", b"hello world\n" * 999), ("c.raw", bytes(999))):
        (tmp_path / name).write_bytes(content)
    spectrogram(np.zeros((4, 4))).save(tmp_path / "d.png")
    for name in ("a.wav", "b.mp3", "c.raw", "d.png", ""):
        with pytest.raises(ValueError, match=r"init is '.*'; it must be a sound that can be read \(.+\)"):
            opened("init", str(tmp_path / name))
    for name, samples, told in (
        ("silent", np.zeros(RATE), "is silent"),
        ("empty", np.zeros(0), "is empty"),
        ("nan", np.full(9, np.nan), "holds values that are no numbers"),
        ("long", np.ones(4000 * 601), "lasts 601 s; it must last 600 s at most"),
    ):
        soundfile.write(tmp_path / f"{name}.wav", samples, 4000, "FLOAT")
        with pytest.raises(ValueError, match=rf"init is '.*{name}\.wav', which {told}"):
            opened("init", str(tmp_path / f"{name}.wav"))
    with pytest.raises(ValueError, match=r"init is '.*e\.wav'; there is no such file"):
        opened("init", str(tmp_path / "e.wav"))
    with pytest.raises(ValueError, match="there is no such file"):
        opened("init", "e" * 5000)


def test_silence_that_was_coded_is_silence(tmp_path):
    Sound(np.zeros((1, RATE), np.float32), RATE).save(tmp_path / "a.mp3")
    with pytest.raises(ValueError, match="which is silent"):
        opened("init", str(tmp_path / "a.mp3"))


def test_a_sound_in_memory_cannot_be_restored():
    with pytest.raises(ValueError, match=r"init was a sound in memory.* give it with --init FILE"):
        opened("init", "<tuple>")


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_another_rate_keeps_tone_level_and_length(rate):
    time = np.arange(rate) / rate
    found = mono((0.5 * np.sin(2 * np.pi * 440 * time))[None].astype(np.float32), rate, RATE)
    assert found.shape == (RATE,) and found.dtype == np.float32
    assert np.abs(found - sine(440)[0])[1000:-1000].max() < 2e-3


def test_stereo_becomes_the_mean_and_what_would_cancel_the_louder_channel():
    low, high = sine(440), sine(880)
    assert np.allclose(mono(np.concatenate([low, high]), RATE, RATE), (low + high) / 2)
    assert np.allclose(mono(np.concatenate([low, -low]), RATE, RATE), low)


@pytest.mark.parametrize("text, wanted", [
    ("1-2.5,4-", [(1, 2.5), (4, 5.12)]),
    ("-2", [(0, 2)]),
    ("-", [(0, 5.12)]),
    (" 3 - 4 , .5-1. ", [(3, 4), (0.5, 1)]),
    ("0-5.12", [(0, 5.12)]),
])  # fmt: skip
def test_regions_are_read(text, wanted):
    assert spans(text, 5.12) == wanted


@pytest.mark.parametrize("text", ["", "1", "a", "1-2,", "1--2", "1e0-2", "1-2;3-4", "-1--"])
def test_what_is_no_region_is_refused(text):
    with pytest.raises(ValueError, match=r"mask is .*; it must be regions in seconds, such as 1-2\.5,4-"):
        spans(text, 5.12)


@pytest.mark.parametrize("text", ["2-1", "1-1", "0-6", "6-", "5.12-", "1-2,3-9"])
def test_a_region_beyond_the_sound_is_refused(text):
    with pytest.raises(ValueError, match=r"must begin before it ends, within 5\.12 seconds"):
        spans(text, 5.12)


def test_loudness_of_the_standard_s_own_tone():
    """A 997 Hz sine of full scale in one of two channels is -3.01 LUFS (BS.1770-4, annex 1)."""
    time = np.arange(48_000 * 3) / 48_000
    tone = np.sin(2 * np.pi * 997 * time)
    assert loudness(np.stack([tone, 0 * tone]), 48_000) == approx(-3.01, abs=0.1)
    assert loudness(np.stack([tone, tone]), 48_000) == approx(0, abs=0.1)


def test_a_peak_between_samples_is_found():
    quarter = 0.5 * np.sin(np.pi / 2 * np.arange(4 * RATE) + np.pi / 4)  # samples at 0.707 of the amplitude
    fade = np.hanning(quarter.size)
    assert 20 * np.log10(np.abs(quarter * fade).max()) == approx(-9.03, abs=0.01)
    assert true_peak((quarter * fade)[None], RATE) == approx(-6.02, abs=0.1)


@pytest.mark.parametrize("target", [-30, -18, -10])
def test_gain_alone_changes_nothing_else(target):
    made = normalized(sine(997), RATE, target, -1)
    assert loudness(made, RATE) == approx(target, abs=0.05)
    assert np.allclose(made / np.abs(made).max(), sine(997) / np.abs(sine(997)).max(), atol=1e-5)


def test_the_limiter_takes_off_peaks_and_no_more():
    made = sine(200, 0.2)
    made[:, RATE // 2 : RATE // 2 + 10] = 0.99
    found = limited(made, RATE, -10)
    assert true_peak(found, RATE) <= -9.95
    far = np.r_[: RATE // 2 - 100, RATE // 2 + RATE // 8 : RATE]
    assert np.array_equal(found[:, far], made[:, far])
    share = (found / np.where(made == 0, 1, made))[0]
    assert share.max() <= 1 and np.abs(np.diff(share[made[0] != 0])).max() < 0.05  # no step in the gain


def test_channels_share_one_gain():
    made = np.concatenate([sine(200, 0.2), 0.5 * sine(200, 0.2)])
    made[0, RATE // 2] = 0.99
    found = limited(made, RATE, -6)
    made[0, RATE // 2] = found[0, RATE // 2] = 0
    assert np.allclose(found[0] * made[1], found[1] * made[0], atol=1e-7)
    assert not np.allclose(found, made, atol=1e-3)


def test_silence_stays_silence_and_what_is_nearly_silent_is_raised():
    silent = np.zeros((2, RATE), np.float32)
    assert np.array_equal(normalized(silent, RATE, -18, -1), silent)
    assert loudness(silent, RATE) == true_peak(silent, RATE) == -np.inf
    assert loudness(normalized(1e-6 * noise(), RATE, -18, -1), RATE) == approx(-18, abs=0.05)


def test_a_lone_click_is_as_loud_as_its_peak_allows():
    click = np.zeros((1, RATE), np.float32)
    click[0, RATE // 2] = 0.01
    made = normalized(click, RATE, -18, -1)
    assert true_peak(made, RATE) == approx(-1 - MARGIN, abs=0.02)
    assert loudness(made, RATE) < -30


def test_the_gain_of_a_loop_goes_on_at_its_beginning():
    made = sine(200, 0.1)
    made[:, -20:] = 0.99
    for turned in (0, RATE // 2):
        found = normalized(np.roll(made, turned, 1), RATE, -20, -6, loop=True)[0]
        after, later = found[turned + 10 : turned + 50], found[turned + 6010 : turned + 6050]
        assert np.all(after < 0.7 * later)
    cut = normalized(made, RATE, -20, -6)[0]
    assert np.allclose(cut[10:50], cut[6010:6050], rtol=1e-3)


@pytest.mark.parametrize("made", [noise()[0], sine(440)[0], noise(1, 200)[0]], ids=["noise", "tone", "short"])
def test_the_mean_of_widened_is_the_mono_sound_and_both_sides_are_as_loud(made):
    left, right = widened(made, RATE)
    assert np.allclose((left + right) / 2, made, atol=1e-6)
    if len(made) == RATE:
        assert 10 * np.log10(np.square(left).sum() / np.square(right).sum()) == approx(0, abs=0.01)
        assert 0.1 < np.corrcoef(left, right)[0, 1] < 0.95


def test_what_differs_is_heard_only_near_what_makes_it():
    made = np.zeros(RATE, np.float32)
    made[RATE // 3 : RATE // 2] = noise()[0, RATE // 3 : RATE // 2]
    heard = np.flatnonzero(np.abs(widened(made, RATE)).max(0) > 1e-6)
    assert RATE // 3 - heard[0] <= 0.006 * RATE and heard[-1] - RATE // 2 <= 0.006 * RATE


def test_widened_loops():
    left, right = widened(noise()[0], RATE, loop=True)
    again = widened(np.roll(noise()[0], 777), RATE, loop=True)
    assert np.allclose(np.roll([left, right], 777, 1), again, atol=1e-6)


def test_a_spectrogram_has_low_tones_at_the_bottom_and_time_to_the_right():
    mel = np.full((100, 50), -1.0)
    mel[:20, 40:] = 1
    picture = np.asarray(spectrogram(mel, 200, 80), int).sum(-1)
    assert picture.shape == (80, 200)
    bright = picture > picture.max() / 2
    assert bright[70:, 170:].all() and not bright[:60].any() and not bright[:, :150].any()


def test_brighter_is_louder_in_a_spectrogram():
    levels = np.linspace(-1, 1, 64)[None].repeat(4, 0)
    told = np.asarray(spectrogram(levels, 64, 4).convert("L"), int)[0]
    assert (np.diff(told) >= 0).all() and told[0] < 10 and told[-1] > 240


def test_a_sound_shows_its_tone_where_it_is():
    low, high = (np.asarray(Sound(sine(f), RATE).picture(64, 100), int).sum(-1).mean(1) for f in (200, 4000))
    assert 80 < low.argmax() < 100 and 15 < high.argmax() < 60
    assert np.asarray(Sound(np.zeros((2, 999), np.float32), 44_100).picture()).max() < 20


def test_settings_are_plain_json_that_any_program_reads(tmp_path):
    Sound(noise(), RATE, settings()).save(tmp_path / "a.flac")
    with soundfile.SoundFile(tmp_path / "a.flac") as file:
        assert json.loads(file.comment) == settings() and file.title.startswith('a "quiet" flute')
