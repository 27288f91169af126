"""Requested against measured, and music against its picture: the measures hear what is there, and can say no."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from melodify_lib import cli, plots
from melodify_lib.caption.look import look_at
from melodify_lib.dataset import Example
from melodify_lib.dataset.form import to_line
from melodify_lib.errors import InputError, MissingDependencyError
from melodify_lib.evaluate import affect, alignment, pictures, report, style, tracks
from melodify_lib.evaluate.bars import Bar
from melodify_lib.evaluate.listen import PULSE, Cues, Sound, key_credit, same_tempo
from melodify_lib.genres import GENRES
from melodify_lib.music.arranger import write_score
from melodify_lib.music.arranger.score import Note
from melodify_lib.music.finish import encode_wav, finish_track
from melodify_lib.nouns import TONICS, Caption, Measures, MusicDescription, StageVersion, Track
from melodify_lib.stages import OnProgress

RATE = 44_100
MINOR, MAJOR = (0, 3, 7), (0, 4, 7)


def describe(genre: str = "pop", bpm: int = 120, key: str = "C major", mood: str = "calm") -> MusicDescription:
    return MusicDescription.model_validate(
        {
            "description": "A tune.",
            "genre": genre,
            "bpm": bpm,
            "key": key,
            "moods": (mood,),
            "instruments": ("piano",),
        }
    )


def tune(
    bpm: float = 120, tonic: int = 60, triad: tuple[int, ...] = MAJOR, seconds: float = 10, gap: float = 0
) -> npt.NDArray[np.float32]:
    """Chords I–IV–V–I struck on each beat, stereo; `gap` seconds of nothing in the middle."""
    time = np.arange(round(0.4 * RATE)) / RATE
    audio = np.zeros(round(seconds * RATE))
    for number, start in enumerate(np.arange(0, audio.size - time.size, RATE * 60 / bpm).astype(int)):
        root = tonic + (0, 0, 5, 7)[number // 2 % 4]
        for pitch in (root - 12, *(root + step for step in triad)):
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            audio[start : start + time.size] += 0.1 * np.sin(2 * np.pi * frequency * time) * np.exp(-8 * time)
    middle = audio.size // 2
    audio[middle : middle + round(gap * RATE)] = 0
    return np.stack([audio, audio]).astype(np.float32)


def heard(audio: npt.NDArray[np.float32]) -> Sound:
    return Sound(encode_wav(audio, RATE))


class Player:
    """Plays what it is asked, or, `off` by some factor, not quite that."""

    def __init__(self, off: float = 1.0, gap: float = 0.0) -> None:
        self.off, self.gap, self.plays = off, gap, 0

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="player", version="1")

    def play(
        self, description: MusicDescription, seconds: float, seed: int, on_progress: OnProgress = lambda share: None
    ) -> Track:
        self.plays += 1
        triad = MAJOR if description.mode == "major" else MINOR
        audio = tune(description.bpm * self.off, 60 + description.tonic, triad, seconds, self.gap)
        return finish_track(
            audio, RATE, description=description, seconds=seconds, seed=seed, musician=self.version,
            licence="CC0-1.0", permitted_use="any",
        )  # fmt: skip


def test_tempo_key_silence_and_length_are_heard() -> None:
    sound = heard(tune(97, 62, MINOR, seconds=12, gap=2))
    got = sound.measures
    assert same_tempo(97, got.bpm) and got.key == "D minor" and got.duration_s == 12.0
    assert got.longest_silence_s == pytest.approx(2.0, abs=0.7)  # what rings on shortens it, the beat lengthens it
    assert heard(tune()).silence_inside < 0.2 and sound.pulse > PULSE


def test_silence_before_and_after_is_not_inside() -> None:
    silence = np.zeros((2, 3 * RATE), np.float32)
    assert heard(np.concatenate([silence, tune(), silence], axis=1)).silence_inside < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_notes_at_random_times_have_no_pulse(seed: int) -> None:
    chance = np.random.default_rng(seed)
    time = np.arange(RATE) / RATE
    audio = np.zeros(20 * RATE)
    for start in (chance.uniform(0, 19, 60) * RATE).astype(int):
        audio[start : start + RATE] += 0.1 * np.sin(2 * np.pi * 220 * time) * np.exp(-6 * time)
    sound = heard(np.stack([audio, audio]).astype(np.float32))
    assert sound.pulse < PULSE and sound.bpm is None and np.isnan(sound.cues.tempo)


def test_loudness_and_true_peak_are_those_of_the_standard() -> None:
    # BS.1770: a full-scale sine of 997 Hz in one channel is −3.01 LUFS; in both, 3 dB more.
    sine = np.sin(2 * np.pi * 997 * np.arange(5 * RATE) / RATE)
    sound = heard(0.5 * np.stack([sine, sine]).astype(np.float32))
    assert sound.loudness == pytest.approx(-6.02, abs=0.1)
    # A quarter of the rate, sampled off its crests: the samples reach .707 of the peak between them.
    between = np.sin(np.pi / 2 * np.arange(5 * RATE) + np.pi / 4) * np.hanning(5 * RATE)
    assert heard(0.5 * np.stack([between, between]).astype(np.float32)).true_peak == pytest.approx(-6.02, abs=0.1)


def test_silence_and_a_click_are_heard_without_a_fall() -> None:
    for audio in (np.zeros((2, 5 * RATE), np.float32), np.zeros((1, RATE // 4), np.float32)):
        got = heard(audio)
        assert (got.measures.bpm, got.measures.loudness_lufs, got.measures.true_peak_dbtp) == (None, None, None)


def test_bright_busy_major_music_is_heard_as_such() -> None:
    slow, fast = heard(tune(60, 60, MINOR)).cues, heard(tune(180, 72, MAJOR)).cues
    assert fast.mode > 0 > slow.mode
    assert all(getattr(fast, cue) > getattr(slow, cue) for cue in ("tempo", "onsets", "register", "flux", "brightness"))


@given(st.floats(30, 260), st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.981, 1.019))
def test_octaves_are_the_same_tempo(bpm: float, octave: float, off: float) -> None:
    assert same_tempo(bpm, bpm * octave * off)
    assert not same_tempo(bpm, bpm * octave * (1.03 if off > 1 else 0.97))
    assert not same_tempo(bpm, bpm * octave * 1.5) and not same_tempo(bpm, None)


@pytest.mark.parametrize(
    ("asked", "got", "credit"),
    [
        ("C major", "C major", 1), ("C major", "A minor", 0.5), ("A minor", "C major", 0.5),
        ("Bb major", "G minor", 0.5), ("C major", "C minor", 0),
        ("C major", "G major", 0), ("A minor", "F major", 0), ("C major", None, 0),
    ],
)  # fmt: skip
def test_the_relative_key_counts_half(asked: str, got: str | None, credit: float) -> None:
    assert key_credit(asked, got) == credit


@given(st.sampled_from(TONICS), st.sampled_from(["major", "minor"]))
def test_each_key_has_one_relative(tonic: str, mode: str) -> None:
    keys = [f"{other} {of}" for other in TONICS for of in ("major", "minor")]
    assert sorted(key_credit(f"{tonic} {mode}", key) for key in keys)[-3:] == [0, 0.5, 1]


def test_a_track_that_keeps_its_promises_passes_and_one_off_tempo_does_not() -> None:
    asked = [describe("pop", 100, "D major"), describe("rock", 120, "A minor")]
    good = tracks.evaluate(Player(), asked, seconds=10)
    assert good.shares("heard") == good.shares("card") == dict.fromkeys(tracks.PROMISES, 1.0)
    assert good.pulses() == 2 and good.worst() == []
    assert [bar.name for bar in good.bars() if not bar.passed] == ["genres told apart"]  # of one track each
    off = tracks.evaluate(Player(off=1.05), asked, seconds=10)
    assert off.shares("heard")["tempo"] == 0.0 and next(bar.name for bar in off.bars() if not bar.passed) == "tempo"
    assert "100 bpm asked" in "".join(off.worst())
    quiet = tracks.evaluate(Player(gap=3), asked[:1], seconds=10)
    assert quiet.shares("heard")["silence"] == 0.0 and "of silence" in quiet.worst()[0]
    assert good.told_apart is None and good.overlaps == {}


def test_what_is_heard_counts_and_not_what_the_card_says() -> None:
    card = Measures(bpm=120, key="C major", loudness_lufs=-14, true_peak_dbtp=-1, duration_s=20, longest_silence_s=0)
    lied = Measures(bpm=90, key="A minor", loudness_lufs=-12, true_peak_dbtp=0, duration_s=18, longest_silence_s=2)
    one = tracks.Evaluation("none 1", [tracks.Played(describe(), 0, 20, card, lied, np.zeros(1))])
    assert set(one.shares("card").values()) == {1.0}
    assert one.shares("heard") == {name: 0.5 if name == "key" else 0.0 for name in tracks.PROMISES}
    assert not any(bar.passed for bar in one.bars())


def test_descriptions_are_of_all_genres_and_none_comes_twice() -> None:
    examples = [Example(f"{genre} {n}", describe(genre, 90 + n)) for genre in GENRES for n in range(3)]
    chosen = tracks.choose(examples, 40, seed=1)
    assert [sum(one.genre == genre for one in chosen) for genre in GENRES] == [2] * 20
    assert len({one.to_json() for one in chosen}) == 40
    assert chosen == tracks.choose(examples, 40, seed=1) != tracks.choose(examples, 40, seed=2)
    with pytest.raises(InputError, match="60"):
        tracks.choose(examples, 61, seed=0)


def test_genres_are_told_apart_only_where_they_differ() -> None:
    chance = np.random.default_rng(0)
    genres = [genre for genre in GENRES[:6] for _ in range(8)]
    noise = chance.normal(size=(48, 10))
    apart = style.tell_apart(list(noise + 5 * np.eye(10)[np.repeat(range(6), 8)]), genres)
    alike = style.tell_apart(list(noise), genres)
    assert apart is not None and apart.accuracy > 0.95 and apart.confusion.sum() == 48
    assert alike is not None and alike.accuracy < 0.5
    assert style.tell_apart(list(noise[:12]), genres[:12]) is None


def notes(*pitches: int, start: float = 0, beat: float = 1) -> list[Note]:
    return [Note(start + beat * index, beat, pitch, 80) for index, pitch in enumerate(pitches)]


def test_a_melody_is_the_same_in_another_key_and_tempo_and_not_in_other_notes() -> None:
    one = notes(60, 62, 64, 65, 67, 64, 60)
    assert style.shared(one, notes(67, 69, 71, 72, 74, 71, 67, start=3, beat=0.5)) == 1.0
    assert style.shared(one, notes(60, 64, 60, 64, 60, 64, 60)) == 0.0
    bent = notes(60, 61, 63, 65, 67, 64, 60)
    assert style.shared(one, bent) == 0.0 < style.shared(one, bent, by_shape=True) == 1.0
    assert style.overlap([one, one, notes(60, 64, 60, 64, 60, 64, 60)]).mean == pytest.approx(1 / 3, abs=1e-4)


def test_five_seeds_are_five_pieces_and_the_same_seed_is_the_same() -> None:
    (one,) = style.overlaps({"rock": describe("rock")}, 20, 0).values()
    assert one.pieces == 5 and one.largest < 0.2
    same = style.melody(write_score(describe("rock"), 20, 1))
    assert len(same) > 15 and style.shared(same, style.melody(write_score(describe("rock"), 20, 1))) == 1.0


def affects(count: int, seed: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, 2))


def test_aligned_pairs_are_found_and_strangers_are_not() -> None:
    picture = affects(60, 0)
    found = alignment.compare(picture, picture + affects(60, 1), permutations=999)
    assert found.p == 1 / 1000 and found.effect > 0.5 and min(found.r) > 0.4
    backwards = alignment.compare(picture, -picture, permutations=999)
    assert backwards.p == 1.0 and backwards.effect < 0 and max(backwards.r) < -0.99


def test_without_alignment_p_is_uniform() -> None:
    ps = [alignment.compare(affects(20, 2 * n), affects(20, 2 * n + 1), permutations=199).p for n in range(200)]
    # Kolmogorov and Smirnov: 200 uniform draws stay within .115 of uniform in 99 of 100 runs; the seed is fixed.
    assert max(abs(np.sort(ps) - (np.arange(200) + 0.5) / 200)) < 0.115
    assert all(0 < p <= 1 for p in ps)


def test_pairs_that_are_all_alike_prove_nothing() -> None:
    same = alignment.compare(np.zeros((10, 2)), affects(10, 0), permutations=99)
    assert same.p == 1.0 and same.effect == 0.0
    with pytest.raises(InputError, match="3 pictures"):
        alignment.compare(affects(2, 0), affects(2, 1))


def test_affect_of_audio_has_the_published_signs() -> None:
    middle = Cues(mode=0, tempo=7, onsets=4, register=60, flux=2, brightness=10)
    happy = Cues(mode=0.2, tempo=7.3, onsets=4, register=66, flux=2, brightness=10)
    busy = Cues(mode=0, tempo=7, onsets=8, register=60, flux=3, brightness=11)
    beatless = Cues(mode=0, tempo=math.nan, onsets=1, register=60, flux=1, brightness=9)
    places = affect.Scale.of([middle, happy, busy, beatless]).place([middle, happy, busy, beatless])
    assert places[1, 0] == max(places[:, 0]) and places[2, 1] == max(places[:, 1])
    assert places[3, 1] == min(places[:, 1]) and np.isfinite(places).all()


def test_pictures_are_sixty_different_ones_and_the_same_each_time() -> None:
    made = pictures.default_pictures(60, seed=0)
    assert len(made) == 60 and len({image.tobytes() for image in made.values()}) == 60
    again = pictures.default_pictures(60, seed=0)
    assert all(made[name].tobytes() == again[name].tobytes() for name in made)
    looks = [look_at(image) for image in made.values()]
    assert np.std([look.brightness for look in looks]) > 0.15 and np.std([look.saturation for look in looks]) > 0.1


@pytest.mark.parametrize("name", ["coffee", "china", "flower"])
def test_changes_do_what_they_say_at_every_step(name: str) -> None:
    image = pictures.default_pictures(6)[name]
    moved = {"brighten": "brightness", "darken": "brightness", "saturate": "saturation", "warm": "yellowness"}
    for change in pictures.CHANGES:
        looks = [look_at(image), *(look_at(change.apply(image, step)) for step in range(1, alignment.STEPS + 1))]
        values = np.diff([getattr(look, moved[change.name]) for look in looks])
        assert (values * (-1 if change.name == "darken" else 1) > 0.003).all(), change.name
        if change.name == "warm":
            assert np.ptp([look.brightness for look in looks]) < 0.03
    places = affect.of_pictures([pictures.darken(image, 2), image, pictures.brighten(image, 2)])
    assert (np.diff(places[:, 0]) > 0).all()


class Eye:
    """Reads valence from light and arousal from colour; `blind`, the same in every picture."""

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="eye", version="1")

    def caption(self, image: Image.Image) -> Caption:
        look = look_at(image)
        valence, arousal = 2 * look.brightness - 1, min(3 * look.saturation, 2) - 1
        return Caption(text="A picture.", valence=0 if self.blind else valence, arousal=0 if self.blind else arousal)


class Pen:
    """Writes major and high for what is pleasant, fast for what excites."""

    @property
    def version(self) -> StageVersion:
        return StageVersion(name="pen", version="1")

    def export(self, folder: Path) -> None:
        raise NotImplementedError

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        valence, arousal = caption.valence or 0, caption.arousal or 0
        tonic = TONICS[int(np.clip(6 + 5 * valence, 0, 11))]
        return describe(genre or "pop", round(110 + 50 * arousal), f"{tonic} {'major' if valence > 0 else 'minor'}")

    def describe_many(self, captions: list[Caption], genre: str | None = None) -> list[MusicDescription]:
        return [self.describe(caption, genre) for caption in captions]


def test_music_that_follows_its_picture_is_found_and_music_that_ignores_it_is_not() -> None:
    images = pictures.default_pictures(18)
    player = Player()
    heard_of: list[tuple[int, int]] = []
    fits = alignment.evaluate(
        Eye(), Pen(), player, images, seconds=5, permutations=999, changed=1,
        on_progress=lambda done, total: heard_of.append((done, total)),
    )  # fmt: skip
    assert all(one.p < 0.05 for one in fits.comparisons.values()), fits.to_dict()["comparisons"]
    for steps in fits.steps.values():  # from one picture to another twice as bright
        assert sum(step.audio for step in steps if step.change == "brighten") > 0.5
    assert max(fits.stays.values()) < 1e-9  # this player takes no notice of seeds
    assert heard_of[-1][0] == heard_of[-1][1] and player.plays < heard_of[-1][1]
    assert any("on at least 60 pictures; there were 18" in str(bar) and not bar.passed for bar in fits.bars())
    deaf = alignment.evaluate(Eye(blind=True), Pen(), Player(), images, seconds=4, permutations=99, changed=1)
    assert all(one.p > 0.05 for one in deaf.comparisons.values())
    assert (
        deaf.share("free", by="strictly") == deaf.share("free", by="reversed") == 1.0
    )  # the same music is no step back
    json.dumps(fits.to_dict(), allow_nan=False)


def test_a_step_back_is_one_and_a_little_one_stays() -> None:
    step = {
        "picture": "a",
        "change": "warm",
        "step": 1,
        "caption": 0.1,
        "description": 0.1,
        "same_genre": True,
        "stays": 0.3,
    }
    back, little, ahead = (alignment.Step(**step, audio=audio) for audio in (-0.5, -0.2, 0.4))  # type: ignore[arg-type]
    assert [one.right for one in (back, little, ahead)] == [False, True, True]
    assert [one.strictly for one in (back, little, ahead)] == [False, False, True]
    assert [one.reversed for one in (back, little, ahead)] == [True, True, False]


def test_a_bar_is_held_to_and_a_figure_that_is_not_there_is_no_miss() -> None:
    assert Bar("x", 0.9, 0.9).passed and not Bar("x", 0.89, 0.9).passed
    assert Bar("p", 0.005, 0.01, less_is_better=True).passed and not Bar("p", 0.02, 0.01, less_is_better=True).passed
    assert Bar("x", math.nan, 0.9).passed and Bar("x", math.nan, 0.9).to_dict()["value"] is None


def test_tracks_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    examples = [Example("a", describe("pop", 100)), Example("b", describe("disco", 120, "A minor"))]
    file.write_text("".join(to_line(example) + "\n" for example in examples), encoding="utf-8")
    arguments = ["evaluate", "tracks", "--descriptions", "2", "--seconds", "8", "--file", str(file)]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    said = json.loads(done.stdout)
    assert done.exit_code == (0 if all(bar["passed"] for bar in said["bars"]) else 1), done.output
    assert set(said["total"]["heard"]) == set(tracks.PROMISES) and said["total"]["card"]["duration"] == 1
    assert json.loads((tmp_path / "out" / "tracks.json").read_text()) == said
    assert (tmp_path / "out" / "requested.png").exists() and set(said["overlaps"]) == {"pop", "disco"}
    shown = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out")])
    assert "disco" in shown.stdout and "all" in shown.stdout


def test_a_missed_bar_is_said_and_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text(to_line(Example("a", describe("pop", 100))) + "\n", encoding="utf-8")
    monkeypatch.setattr("melodify_lib.stages.musician", lambda settings: Player(off=1.05))
    arguments = ["evaluate", "tracks", "--descriptions", "1", "--seconds", "8", "--file", str(file)]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 1 and "bar missed: tempo 0, must be ≥ 0.95" in done.stderr


def test_alignment_on_the_command_line(photograph: Path, tmp_path: Path) -> None:
    paths = []
    for name, change in (("light", pictures.brighten), ("dark", pictures.darken), ("vivid", pictures.saturate)):
        paths.append(tmp_path / f"{name}.png")
        change(pictures.default_pictures(1)["astronaut"], 3).save(paths[-1])
    arguments = ["evaluate", "alignment", *map(str, paths), "--seconds", "4", "--permutations", "99", "--changed", "0"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 1 and "at least 60 pictures; there were 3" in done.stderr, done.output
    said = json.loads(done.stdout)
    assert [one["picture"] for one in said["pictures"]] == [str(path) for path in paths]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"alignment.json", "alignment.png", "shuffled.png"}


def test_without_librosa_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*'\.\[evaluate\]'"):
        heard(tune(seconds=1))


def test_what_is_written_can_be_looked_at(tmp_path: Path) -> None:
    steps = [
        alignment.Step(picture, change.name, step, 0.1, 0.1, 0.2, True, 0.3)
        for picture in ("a", "b") for change in pictures.CHANGES for step in range(1, 5)
    ]  # fmt: skip
    music = [describe()] * 10
    compared = {"the captioner": alignment.compare(affects(10, 0), affects(10, 1), permutations=99)}
    one = alignment.Evaluation(
        list("abcdefghij"), [Caption(text="A picture.", valence=0, arousal=0)] * 10, music, compared,
        {"valence": 0.3, "arousal": 0.3}, {"free": steps, "held": steps}, "player 1",
    )  # fmt: skip
    report.write_alignment(one, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "alignment.json", "alignment.png", "shuffled.png", "steps.png",
    }  # fmt: skip
    for figure in (plots.plot_alignment(one), plots.plot_shuffled(one), plots.plot_steps(one)):
        assert all(axes.get_xlabel() for axes in figure.axes)


def test_a_wav_of_one_channel_is_heard() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tune()[0], RATE, format="WAV")
    assert same_tempo(120, Sound(buffer.getvalue()).bpm)
