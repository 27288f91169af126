"""What a musician finds in the score: lines that hold together, a form, and a melody that comes back."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from melodify_lib.genres import GENRES
from melodify_lib.music.arranger import Score, write_score
from melodify_lib.music.arranger.harmony import parse_chord, voice
from melodify_lib.music.arranger.score import Note
from melodify_lib.music.arranger.styles import style_of
from melodify_lib.nouns import TONICS, MusicDescription

MODES = ("major", "minor")


@cache
def written(
    genre: str, bpm: int = 112, key: str = "D minor", seconds: float = 30, seed: int = 1, **asked: bool
) -> Score:
    described = MusicDescription(
        description="A tune.", genre=genre, bpm=bpm, key=key, moods=("hopeful",), instruments=("piano",)
    )
    return write_score(described, seconds, seed, **asked)


def notes_of(score: Score, *roles: str) -> list[Note]:
    notes = [note for part in score.parts if part.role in roles for note in part.notes]
    return sorted(notes, key=lambda note: note.start)


@pytest.mark.parametrize("tonic", TONICS)
def test_the_octaves_of_a_disco_bass_are_octaves_in_every_key(tonic: str) -> None:
    for mode, seed in itertools.product(MODES, range(4)):
        bass = notes_of(written("disco", 120, f"{tonic} {mode}", seed=seed), "bass")
        pairs = [
            after.pitch - before.pitch
            for before, after in itertools.pairwise(bass)
            if round(2 * before.start) % 2 == 0 and round(2 * after.start) == round(2 * before.start) + 1
        ]
        assert len(pairs) > 10 and pairs.count(0) <= 1
        assert np.mean([step == 12 for step in pairs]) > 0.7


@pytest.mark.parametrize("genre", GENRES)
def test_a_bass_stays_low(genre: str) -> None:
    for mode, seed in itertools.product(MODES, range(4)):
        score = written(genre, key=f"Ab {mode}", seed=seed)
        downbeats = [note.pitch for note in notes_of(score, "bass") if round(4 * note.start) % 16 == 0]
        assert np.mean(downbeats) < 46 if downbeats else True


def test_chords_leave_the_melody_on_top() -> None:
    shares = []
    for genre, seed in itertools.product(GENRES, range(2)):
        score = written(genre, seed=seed)
        chords = notes_of(score, "chords", "pad")
        moments = [(note.start + note.duration / 2, note) for note in notes_of(score, "lead")]
        shares.append(
            np.mean(
                [
                    any(c.pitch >= note.pitch and c.start <= moment < c.start + c.duration for c in chords)
                    for moment, note in moments
                ]
            )
        )
    assert np.mean(shares) < 0.25


@pytest.mark.parametrize("genre", ["disco", "soul", "hip-hop", "reggae", "latin", "funk"])
def test_horns_answer_where_the_lead_breathes(genre: str) -> None:
    for mode, seed in itertools.product(MODES, range(3)):
        score = written(genre, key=f"C {mode}", seed=seed)
        short = [note for note in notes_of(score, "lead") if note.duration < 1.2]
        last = sum(score.bars[:-1])
        answers = [note for note in notes_of(score, "colour") if note.start < last - 0.3]
        over = [
            note for note in answers
            if any(one.start + 0.15 < note.start < one.start + one.duration - 0.15 for one in short)
        ]  # fmt: skip
        assert len(over) <= 0.1 * len(answers)


@pytest.mark.parametrize("genre", GENRES)
def test_sections_are_whole_fours_and_only_the_first_has_what_is_over(genre: str) -> None:
    for bpm, seed in itertools.product((84, 101, 128), range(3)):
        score = written(genre, bpm, seed=seed)
        lengths = [round(section.duration / 4) for section in score.sections[:-1]]
        if sum(score.bars[:-1]) >= 32:
            assert all(length % 4 == 0 for length in lengths[1:-1]), lengths


def test_a_chorus_that_comes_again_has_the_same_tune() -> None:
    found = 0
    for genre, seed in itertools.product(("pop", "k-pop", "soul", "country", "disco"), range(3)):
        score = written(genre, 112, "G major", 90, seed)
        lead = [note for note in notes_of(score, "lead") if note.duration > 0.2]
        starts = [section.start for section in score.sections if section.name == "chorus" and section.duration >= 16]
        tunes = [
            [(round(4 * (note.start - start)), note.pitch) for note in lead if -0.1 < note.start - start < 7.7]
            for start in starts
        ]
        for first, second in itertools.pairwise(tunes):
            found += 1
            alike = len(set(first) & set(second)) / len(set(first) | set(second))
            assert alike > 0.6, (genre, seed, first, second)
    assert found > 8


def test_a_motifs_rhythm_comes_back() -> None:
    """Of the bars of a melody, most have a rhythm that another has, too."""
    shares = []
    for genre, seed in itertools.product(GENRES, range(2)):
        score = written(genre, seed=seed)
        bars: dict[int, set[int]] = {}
        for note in notes_of(score, "lead"):
            if note.duration > 0.15 and note.start < sum(score.bars[:-1]) - 0.2:
                bar, step = divmod(round(4 * note.start), 16)
                bars.setdefault(bar, set()).add(step)
        rhythms = list(bars.values())
        shares.append(np.mean([rhythms.count(rhythm) > 1 for rhythm in rhythms]))
    assert np.mean(shares) > 0.5


@pytest.mark.parametrize("genre", GENRES)
def test_a_loop_has_no_opening_to_fall_back_to(genre: str) -> None:
    for seconds, seed in itertools.product((16, 40, 90), range(2)):
        names = {section.name for section in written(genre, seconds=seconds, seed=seed, loop=True).sections}
        assert not names & {"intro", "opening"}


def test_a_grace_note_comes_before_the_beat() -> None:
    for genre in ("country", "blues", "soul", "folk"):
        score = written(genre, 96, "C major")
        lead = notes_of(score, "lead")
        graces = [
            (one, after)
            for one, after in itertools.pairwise(lead)
            if one.duration < 0.16 and after.start - one.start < 0.2 and one.velocity < after.velocity
        ]
        assert graces
        assert np.mean([1 <= note.pitch - grace.pitch <= 2 for grace, note in graces]) > 0.8
        on_time = [abs(4 * note.start - round(4 * note.start)) for _, note in graces]
        assert np.median(on_time) < 0.25


@pytest.mark.parametrize("name", ["Imaj7", "IVmaj9", "iv9", "i9", "V7b9", "bVImaj9", "I69", "ii9", "V13", "iadd9"])
def test_voicings_have_no_semitones_where_they_can_be_kept_apart(name: str) -> None:
    chord = parse_chord(name)
    before: tuple[int, ...] = ()
    for tonic in range(12):
        before = voice(chord, tonic, 4, (50, 74), before)
        assert before[0] >= 50 and before[-1] <= 74
        assert min(b - a for a, b in itertools.pairwise(before)) > 1, before


def test_a_voicing_that_does_not_fit_has_fewer_notes() -> None:
    pitches = voice(parse_chord("Imaj7"), 0, 5, (60, 66), ())
    assert 0 < len(pitches) < 5 and min(pitches) >= 60 and max(pitches) <= 66


def test_a_guitar_that_is_tuned_low_stays_low_under_a_lead() -> None:
    guitars = notes_of(written("metal", 120, "E minor"), "chords")
    assert np.median([note.pitch for note in guitars]) < 50


def test_a_lead_that_can_go_no_higher_stays_at_its_top_and_not_an_octave_below() -> None:
    described = MusicDescription(
        description="A tune.", genre="reggae", bpm=86, key="Bb major", moods=("joyful",), instruments=("trombone",)
    )
    for seed in range(5):
        sung = [note.pitch for note in notes_of(write_score(described, 30, seed), "lead")]
        assert np.median(sung) > 60 and max(sung) <= 72


def test_who_follows_another_plays_its_rhythm() -> None:
    for seed in range(5):
        score = written("metal", 120, "E minor", seed=seed)
        left, right = [
            {round(4 * note.start) for note in part.notes} for part in score.parts if part.name.startswith("distorted")
        ][:2]
        assert len(left & right) > 0.9 * len(left | right)


STOPPING = [genre for genre in GENRES if style_of(genre).ending == "stop"]


@pytest.mark.parametrize("genre", STOPPING)
def test_a_band_that_stops_stops_at_once_after_whole_bars_and_else_the_chord_rings(genre: str) -> None:
    stopped = 0
    for bpm, seconds in [*((bpm, 30) for bpm in range(90, 150, 5)), (33, 30), (240, 30), (53, 4), (42, 5)]:
        score = written(genre, bpm, seconds=seconds)
        last = sum(score.bars[:-1])
        left = score.seconds - last * score.beat_seconds
        final = [note for part in score.parts for note in part.notes if note.start > last - 0.2 and not part.is_drum]
        held = np.median([note.duration for note in final]) * score.beat_seconds
        assert len(final) >= 3 and 0.9 <= left <= 5
        if held < 0.8 and left <= 2.2 and seconds == 30:
            stopped += 1
            starts = [note.start * score.beat_seconds for note in final]
            assert np.ptp(starts) < 0.15 and held < left - 0.3 and len(set(score.bars[:-1])) == 1
        else:
            assert held > 0.5 * left - 0.3
    assert stopped >= 3


@pytest.mark.parametrize("genre", GENRES)
def test_a_loop_has_nothing_of_the_final_chord(genre: str) -> None:
    for seed in range(4):
        score = written(genre, seconds=20, seed=seed, loop=True)
        starts = [note.start for part in score.parts for note in part.notes]
        assert max(starts) < sum(score.bars) - 0.1
