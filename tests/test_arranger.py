"""The arranger's promises: in its genre, tempo, key and length, from its seed alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from melodify_lib.errors import ModelError, SettingsError
from melodify_lib.genres import GENRES
from melodify_lib.music.arranger import Arranger, Score, soundfont, write_score
from melodify_lib.music.arranger.fluidsynth import SAMPLE_RATE
from melodify_lib.music.arranger.instruments import find, instruments
from melodify_lib.music.arranger.midi import to_midi
from melodify_lib.music.arranger.render import _ducking, render
from melodify_lib.music.arranger.sampler import Sampler
from melodify_lib.music.arranger.soundfont import load_soundfont
from melodify_lib.music.arranger.styles import load_style
from melodify_lib.nouns import TONICS, MusicDescription

MAJOR, MINOR = {0, 2, 4, 5, 7, 9, 11}, {0, 2, 3, 5, 7, 8, 10, 11}


def describe(genre: str = "pop", bpm: int = 112, key: str = "D minor", **fields: object) -> MusicDescription:
    usual = {"description": "A tune.", "moods": ("hopeful",), "instruments": ("piano",)}
    return MusicDescription.model_validate({**usual, "genre": genre, "bpm": bpm, "key": key, **fields})


@cache
def sampler() -> Sampler:
    return Sampler(load_soundfont())


@cache
def listen(genre: str, bpm: int, key: str, seconds: float) -> np.ndarray:
    return render(write_score(describe(genre, bpm, key), seconds, 3), sampler()).mix


@pytest.mark.parametrize("genre", GENRES)
def test_every_genre_gives_sound_of_the_length_asked_for_that_ends_in_silence(genre: str) -> None:
    audio = listen(genre, 112, "D minor", 4.0)
    assert audio.shape == (2, 4 * SAMPLE_RATE) and audio.dtype == np.float32
    assert np.isfinite(audio).all() and 0.05 < np.abs(audio).max() <= 1
    loudness = np.sqrt(np.square(audio.mean(axis=0)).reshape(-1, SAMPLE_RATE // 20).mean(axis=1))
    assert loudness[-1] < 0.02 * loudness.max()
    sounding = np.flatnonzero(loudness > 1e-3)
    assert sounding[0] < 20 and max(b - a for a, b in pairwise(sounding)) < 1.5 * 20


@pytest.mark.parametrize("genre", GENRES)
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_notes_lie_in_their_instruments_range_and_mostly_in_the_key(genre: str, mode: str) -> None:
    description = describe(genre, key=f"G {mode}")
    score = write_score(description, 30, 1)
    scale = MAJOR if mode == "major" else MINOR
    inside = total = 0.0
    for part in score.parts:
        instrument = find(part.name.split(" (")[0].rstrip(" 23"))
        assert instrument is not None
        if instrument.is_unpitched:
            continue
        low, high = instrument.range
        for note in part.notes:
            assert low <= note.pitch <= high, (part.name, note)
            total += note.duration
            inside += note.duration * ((note.pitch - description.tonic) % 12 in scale)
    # Blue notes, dominant sevenths on every degree, and the flat sixth and seventh of metal are the genre itself.
    assert inside / total > (0.7 if genre in ("blues", "funk", "jazz", "metal", "rock") else 0.9)


def test_same_seed_gives_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib; from melodify_lib.nouns import MusicDescription; "
        "from melodify_lib.music.arranger import Arranger; "
        "d = MusicDescription(description='A tune.', genre='funk', bpm=104, key='E minor', "
        "moods=('groovy',), instruments=('slap bass',)); "
        "t = Arranger().play(d, 4, 11); "
        "print(hashlib.sha256(t.files['track.wav'] + t.files['track.mid']).hexdigest())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    track = Arranger().play(describe("funk", 104, "E minor", moods=("groovy",), instruments=("slap bass",)), 4, 11)
    assert elsewhere.strip() == hashlib.sha256(track.files["track.wav"] + track.files["track.mid"]).hexdigest()


def test_a_used_arranger_gives_the_same_bytes_as_a_new_one() -> None:
    used = Sampler(load_soundfont())
    render(write_score(describe("soul"), 4, 1), used)
    score = write_score(describe("lo-fi", 80), 4, 1)
    assert np.array_equal(render(score, used).mix, render(score, sampler()).mix)


def test_five_seeds_give_five_melodies() -> None:
    scores = [write_score(describe("country"), 30, seed) for seed in range(5)]
    melodies = [
        tuple(note.pitch for part in score.parts if part.role == "lead" for note in part.notes) for score in scores
    ]
    grams = [{melody[i : i + 5] for i in range(len(melody) - 4)} for melody in melodies]
    for first, second in ((a, b) for i, a in enumerate(grams) for b in grams[:i]):
        assert len(first & second) < 0.3 * min(len(first), len(second))


@pytest.mark.parametrize("genre", GENRES)
def test_instruments_that_are_asked_for_are_heard(genre: str) -> None:
    asked = ("flute", "banjo", "church organ", "timpani", "tenor saxophone", "drum kit", "cello")
    names = {part.name for part in write_score(describe(genre, instruments=asked), 20, 2).parts}
    assert set(asked) <= names


def test_every_instrument_of_the_genre_table_is_known() -> None:
    table = yaml.safe_load((Path(__file__).parents[1] / "data/generate_jsonl/genres.yaml").read_text(encoding="utf-8"))
    assert not [name for row in table.values() for name in row["instruments"] if name not in instruments()]


def test_unknown_instruments_are_read_by_their_longest_known_words() -> None:
    assert find("warm electric piano") is find("electric piano")
    assert find("guitars") is find("guitar")
    assert find("kazoo") is None


def test_midi_is_read_back_by_another_library_with_tempo_key_tracks_and_markers() -> None:
    import mido
    import pretty_midi

    score = write_score(describe("soul", 96, "Bb minor", instruments=("organ", "flute")), 20, 5)
    data = to_midi(score)
    file = pretty_midi.PrettyMIDI(io.BytesIO(data))
    assert round(float(file.get_tempo_changes()[1][0]), 3) == 96
    assert [change.key_number for change in file.key_signature_changes] == [
        pretty_midi.key_name_to_key_number("Bb minor")
    ]
    assert [one.name for one in file.instruments] == [part.name for part in score.parts]
    assert [len(one.notes) for one in file.instruments] == [len(part.notes) for part in score.parts]
    assert abs(file.get_end_time() - 20) < 1.5
    # It does not read markers; this one, which wrote them, does.
    meta = [message for message in mido.MidiFile(file=io.BytesIO(data)).tracks[0] if message.is_meta]
    assert [m.text for m in meta if m.type == "marker"] == [section.name for section in score.sections]


@pytest.mark.parametrize(("genre", "bpm", "key"), [("disco", 118, "A minor"), ("rock", 140, "E major")])
def test_tempo_and_key_are_heard_by_an_independent_estimator(genre: str, bpm: int, key: str) -> None:
    librosa = pytest.importorskip("librosa")
    audio = librosa.resample(listen(genre, bpm, key, 20.0).mean(axis=0), orig_sr=SAMPLE_RATE, target_sr=22_050)
    envelope = librosa.onset.onset_strength(y=audio, sr=22_050, hop_length=256)
    # Autocorrelation at the beat and eight beats on: a tempo 2 % off has drifted out of step by then.
    lags = 8 * 60 / (bpm * np.linspace(0.94, 1.06, 61)) * 22_050 / 256
    echo = np.correlate(envelope - envelope.mean(), envelope - envelope.mean(), "full")[envelope.size - 1 :]
    strongest = np.linspace(0.94, 1.06, 61)[int(np.argmax(np.interp(lags, np.arange(echo.size), echo)))]
    assert abs(strongest - 1) < 0.02
    chroma = librosa.feature.chroma_stft(y=audio, sr=22_050, n_fft=8192, tuning=0.0).mean(axis=1)
    major = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
    minor = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
    fits = {
        f"{TONICS[tonic]} {mode}": np.corrcoef(chroma, np.roll(profile, tonic))[0, 1]
        for mode, profile in (("major", major), ("minor", minor))
        for tonic in range(12)
    }
    assert max(fits, key=lambda name: fits[name]) == key


@pytest.mark.parametrize("genre", GENRES)
def test_excited_music_is_louder_denser_and_shorter_in_its_notes_than_calm(genre: str) -> None:
    def played(mood: str) -> list[float]:
        described = describe(genre, key="C major", moods=(mood,))
        scores = [write_score(described, seconds, seed) for seconds in (20, 30) for seed in range(6)]
        notes = [note for score in scores for part in score.parts for note in part.notes]
        tune = [note.duration for score in scores for part in score.parts if part.role == "lead" for note in part.notes]
        return [float(np.mean([note.velocity for note in notes])), len(notes), -float(np.median(tune))]

    assert all(excited > calm for excited, calm in zip(played("energetic"), played("serene"), strict=True))


terms = st.from_regex(r"[a-z0-9][a-z0-9 &'#/+-]{0,20}", fullmatch=True)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(GENRES), st.integers(30, 260), st.sampled_from(TONICS), st.sampled_from(["major", "minor"]),
    st.lists(terms, min_size=1, max_size=4),
    st.lists(st.sampled_from(sorted(instruments())) | terms, min_size=1, max_size=9),
    st.floats(4, 40), st.integers(0, 2**63 - 1), st.booleans(),
)  # fmt: skip
def test_any_description_gives_a_score_that_fits_its_time(
    genre: str, bpm: int, tonic: str, mode: str, moods: list[str], names: list[str], seconds: float, seed: int,
    loop: bool,
) -> None:  # fmt: skip
    described = describe(genre, bpm, f"{tonic} {mode}", moods=moods, instruments=names)
    score = write_score(described, seconds, seed, loop=loop)
    end = np.inf if loop else seconds * bpm / 60
    assert score.parts and score.bpm == bpm
    assert len({part.name for part in score.parts}) == len(score.parts)
    for part in score.parts:
        assert part.notes
        for note in part.notes:
            assert 0 <= note.pitch <= 127 and 1 <= note.velocity <= 127
            assert note.start >= 0 and note.duration > 0 and note.start + note.duration <= end + 1e-6
    assert [section.start for section in score.sections] == sorted(section.start for section in score.sections)
    assert loop or _longest_gap(score) < 1.5
    assert to_midi(score)[:4] == b"MThd"


@pytest.mark.parametrize(("seconds", "bpm"), [(4, 30), (4, 260), (300, 200), (300, 30)])
def test_the_form_fits_at_the_ends_of_what_may_be_asked(seconds: float, bpm: int) -> None:
    score = write_score(describe("jazz", bpm), seconds, 0)
    ring = seconds - sum(score.bars[:-1]) * score.beat_seconds
    assert 1.5 <= ring <= 6


def _longest_gap(score: Score) -> float:
    """Seconds in which no note is held, before the last chord."""
    spans = sorted((note.start, note.start + note.duration) for part in score.parts for note in part.notes)
    reach, gap = 0.0, spans[0][0]
    for start, end in spans:
        gap, reach = max(gap, start - reach), max(reach, end)
    return gap * score.beat_seconds


def test_a_missing_or_foreign_soundfont_is_refused_with_its_path(tmp_path) -> None:  # type: ignore[no-untyped-def]
    foreign = tmp_path / "photo.sf2"
    foreign.write_bytes(b"not a font")
    for path in (foreign, tmp_path / "nowhere.sf2"):
        with pytest.raises(SettingsError, match=path.name):
            Arranger(path)


def test_the_best_font_that_is_installed_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = load_soundfont()
    monkeypatch.setattr(soundfont, "_FOLDERS", (str(tmp_path / "nowhere"), str(tmp_path)))
    assert load_soundfont() == soundfont.SoundFont(soundfont._carried())
    for name in reversed(soundfont.BEST):
        (tmp_path / name).symlink_to(carried.path)
        assert load_soundfont().name == Path(name).stem
    assert Arranger().version.version.endswith(f"+MuseScore_General@{carried.sha256[:12]}")


def test_the_card_does_not_speak_for_the_licence_of_ones_own_font(tmp_path: Path) -> None:
    own = tmp_path / "own.sf2"
    own.symlink_to(load_soundfont().path)
    assert Arranger(own).play(describe(), 4, 0).card.licence == "CC0-1.0; the sounds by the licence of own"
    assert Arranger().play(describe(), 4, 0).card.licence == "CC0-1.0"


def test_a_font_that_fluidsynth_cannot_read_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(load_soundfont().path.read_bytes()[:1000])
    with pytest.raises(SettingsError, match=r"FluidSynth cannot read the SoundFont .*broken\.sf2"):
        Arranger(broken)


def test_a_song_ends_when_its_progress_raises() -> None:
    class StopError(Exception): ...

    heard: list[float] = []

    def stop(share: float) -> None:
        heard.append(share)
        if share > 0.2:
            raise StopError

    with pytest.raises(StopError):
        Arranger().play(describe("metal"), 20, 1, stop)
    assert heard == sorted(heard) and heard[-1] < 0.7


def test_a_mistake_in_a_style_is_reported_with_its_file_and_field(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from melodify_lib.music.arranger.styles import FOLDER

    text = (FOLDER / "pop.yaml").read_text(encoding="utf-8")
    mistakes = {
        "x... ..x. ..x. ....": "x... ..x.",
        "plays: bass": "plays: base",
        "bVII | bVI": "bVII | bXI",
        "feel:": "feal:",
        "genre: pop": "genre: polka",
        "scale: {major: major pentatonic, minor: minor}": "scale: {major: major}",
        "leap: 0.2": "phrases: [a b d]",
        "compass: [64,": "compass: [-64,",
    }
    for right, wrong in mistakes.items():
        assert right in text, right
        path = tmp_path / "pop.yaml"
        load_style.cache_clear()
        path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
        with pytest.raises(SettingsError, match=path.name):
            load_style(path)


def test_a_louder_part_is_louder_in_the_mix() -> None:
    def against_the_rest(score: Score) -> float:
        stems = render(score, sampler(), stems=True).stems
        drums = stems.pop(next(part.name for part in score.parts if part.is_drum))
        return float(10 * np.log10(np.square(drums).mean() / np.square(sum(stems.values())).mean()))

    score = write_score(describe("rock"), 5, 1)
    parts = [replace(p, mix=replace(p.mix, level_db=p.mix.level_db + (6 if p.is_drum else 0))) for p in score.parts]
    assert (
        abs(against_the_rest(replace(score, parts=tuple(parts))) - against_the_rest(score) - 6) < 1
    )  # the compressor takes some


def test_a_loops_parts_step_back_at_each_kick_every_time() -> None:
    score = write_score(describe("electronic", 126), 8, 2, loop=True)
    once = round(score.seconds * SAMPLE_RATE)
    ducking = _ducking(score, 2 * once)
    assert ducking is not None and ducking[:once].mean() > 0.1
    assert np.abs(ducking[once:] - ducking[:once]).mean() < 0.01


@pytest.mark.parametrize("genre", ["pop", "hip-hop", "electronic"])
def test_a_loop_is_as_loud_after_its_seam_as_before(genre: str) -> None:
    audio = render(write_score(describe(genre, 104), 30, 2, loop=True), sampler()).mix
    ends = [np.square(part).mean() for part in (audio[:, : 2 * SAMPLE_RATE], audio[:, -2 * SAMPLE_RATE :])]
    assert abs(10 * np.log10(ends[0] / ends[1])) < 5


def test_what_is_silent_is_no_track(monkeypatch: pytest.MonkeyPatch) -> None:
    arranger = Arranger()
    nothing = lambda hits, voice, samples, go_on: np.zeros((2, samples), np.float32)  # noqa: E731
    monkeypatch.setattr(arranger, "_sampler", SimpleNamespace(play=nothing))
    with pytest.raises(ModelError, match="silent"):
        arranger.play(describe(), 4, 0)


def test_a_genre_is_added_without_python(tmp_path: Path) -> None:
    library = tmp_path / "melodify_lib"
    shutil.copytree(Path(__file__).parents[1] / "melodify_lib", library, ignore=shutil.ignore_patterns("__pycache__"))
    with (library / "genres.txt").open("a", encoding="utf-8") as names:
        names.write("tango\n")
    styles = library / "music/arranger/styles"
    latin = (styles / "latin.yaml").read_text(encoding="utf-8")
    (styles / "tango.yaml").write_text(latin.replace("genre: latin", "genre: tango"), encoding="utf-8")
    described = describe("latin").model_dump(mode="json") | {"genre": "tango"}
    (tmp_path / "tango.json").write_text(json.dumps(described), encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        "from melodify_lib.cli import main; main()",
        "play",
        "tango.json",
        "--seconds",
        "4",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["description"]["genre"] == "tango"


def test_other_words_are_the_same_piece_and_another_mood_is_it_again_in_that_mood() -> None:
    def sung(score: Score) -> list[int]:
        return [note.pitch for part in score.parts if part.role == "lead" for note in part.notes]

    described = describe("country", moods=("wistful",))
    score = write_score(described, 20, 5)
    assert write_score(described.model_copy(update={"description": "Other words."}), 20, 5) == score
    brighter = sung(write_score(described.model_copy(update={"moods": ("hopeful",)}), 20, 5))
    other = sung(write_score(described, 20, 6))
    steps, brighter_steps, other_steps = (
        [(a < b) - (a > b) for a, b in pairwise(pitches)] for pitches in (sung(score), brighter, other)
    )
    alike, unlike = (
        np.mean([a == b for a, b in zip(steps, those, strict=False)]) for those in (brighter_steps, other_steps)
    )
    assert alike > 0.7 > unlike
