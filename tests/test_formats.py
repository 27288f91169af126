"""Finished tracks as files: other programs play them, and read the card inside."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from melodify_lib import cli
from melodify_lib.errors import CardError, InputError, LicenceError, ReplayError
from melodify_lib.flow import replay
from melodify_lib.music import formats
from melodify_lib.music.arranger import Arranger
from melodify_lib.music.licence import check_use
from melodify_lib.music.measure import seam
from melodify_lib.music.takes import judge, play_best
from melodify_lib.nouns import Measures, MusicDescription, Track, TrackCard
from melodify_lib.settings import Settings

DESCRIPTION = MusicDescription(
    description="A tune for a Sunday.", genre="soul", bpm=96, key="D minor", moods=("warm",), instruments=("organ",)
)


@cache
def arranger() -> Arranger:
    return Arranger()


@cache
def track() -> Track:
    return arranger().play(DESCRIPTION, 6, 3)


@pytest.mark.parametrize("format", formats.FORMATS)
def test_each_format_plays_elsewhere_and_carries_the_card(format: formats.Format) -> None:
    data = formats.encode(track().audio, track().sample_rate, format, track().card)
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == track().sample_rate and samples.shape == (6 * rate, 2)
    played, meant = samples.mean(axis=1), track().audio.mean(axis=0)
    assert np.corrcoef(played, meant)[0, 1] > (0.99 if format in ("mp3", "ogg") else 0.999_999)
    assert formats.read_card(data) == track().card.model_copy(update={"files": {}})
    shown = " ".join(str(value) for value in mutagen.File(io.BytesIO(data)).tags.values())
    assert all(text in shown for text in ("soul in D minor", "CC0-1.0; permitted use: any", "Dm", "96"))


@pytest.mark.parametrize("format", ["mp3", "ogg"])
def test_a_lossy_file_keeps_the_true_peak(format: formats.Format) -> None:
    loud = Arranger().play(DESCRIPTION.model_copy(update={"genre": "metal", "bpm": 140}), 6, 3)
    samples, _ = soundfile.read(io.BytesIO(formats.encode(loud.audio, loud.sample_rate, format, loud.card)))
    assert 20 * np.log10(np.abs(resample_poly(samples, 4, 1)).max()) < -0.97  # by another filter than ours


def test_formats_on_the_command_line_are_those_of_the_library() -> None:
    assert {export.value for export in cli.Export} | {"wav"} == set(formats.FORMATS)


def test_the_wave_file_carries_what_was_added_to_the_card() -> None:
    renamed = track().with_card(licence="CC-BY-4.0")
    assert formats.read_card(renamed.files["track.wav"]).licence == "CC-BY-4.0"
    assert renamed.card.files["track.wav"] != track().card.files["track.wav"]
    assert renamed.with_card(licence="CC0-1.0").files == track().files


@pytest.mark.parametrize("format", formats.FORMATS)
def test_replay_of_a_file_with_a_card_inside(tmp_path: Path, format: formats.Format) -> None:
    track().save(tmp_path, [format])
    file = tmp_path / f"track.{format}"
    tagged: Any = mutagen.File(file)  # as players do
    del tagged.tags["COMM::eng" if format in ("wav", "mp3") else "comment"]
    tagged.save()
    data = file.read_bytes()
    assert replay(formats.read_card(data), file=data).files == track().files
    other = formats.encode(0.9 * track().audio, track().sample_rate, format, track().card)
    with pytest.raises(ReplayError, match="it was changed"):
        replay(formats.read_card(other), file=other)
    with pytest.raises(ReplayError, match="it was changed"):
        shorter = formats.encode(track().audio[:, :-44100], track().sample_rate, format, track().card)
        replay(formats.read_card(shorter), file=shorter)


def test_a_folder_keeps_nothing_of_the_song_before(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    arranger().play(DESCRIPTION, 5, 4, stems=True).save(tmp_path, ["mp3", "ogg"])
    track().save(tmp_path, ["flac"])
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"notes.txt", "track.wav", "track.mid", "track.flac", "card.json"}


@pytest.mark.parametrize(
    "update",
    [
        {"licence": "All rights reserved"},
        {"permitted_use": "non-commercial"},
        {"players": ("kazoo",)},
        {"measured": Measures(bpm=1)},
    ],
)
def test_replay_notices_a_card_that_was_changed(update: dict[str, Any]) -> None:
    with pytest.raises(ReplayError, match=f"the card was changed: its {next(iter(update))} "):
        replay(track().card.model_copy(update=update))
    forged = track().with_card(**update)  # with the hash of a file that has it inside
    with pytest.raises(ReplayError, match="changed"):
        replay(forged.card)
    with pytest.raises(ReplayError, match="the card was changed"):
        replay(formats.read_card(forged.files["track.wav"]), file=forged.files["track.wav"])


def test_replay_says_which_library_differs() -> None:
    older = track().card.model_copy(update={"libraries": {**track().card.libraries, "numpy": "1.0"}})
    with pytest.raises(ReplayError, match=r"numpy 1\.0 \(here"):
        replay(older)


@pytest.mark.parametrize("data", [b"", b"RIFF\x04\0\0\0WAVE", b"fLaC" + bytes(40), bytes(1000)])
def test_what_has_no_card_inside_is_said(data: bytes) -> None:
    with pytest.raises(CardError):
        formats.read_card(data)


def test_stems_add_up_to_the_mix(tmp_path: Path) -> None:
    made = arranger().play(DESCRIPTION, 6, 3, stems=True)
    assert np.array_equal(made.audio, track().audio)
    made.save(tmp_path)
    stems = sorted((tmp_path / "stems").iterdir())
    assert len(stems) > 3 and "organ" in " ".join(stem.name for stem in stems)
    total = sum(soundfile.read(stem)[0] for stem in stems)
    assert np.abs(total - soundfile.read(tmp_path / "track.wav")[0]).max() < 2 / 32768
    assert replay(TrackCard.from_json((tmp_path / "card.json").read_bytes())).files == made.files


@pytest.mark.parametrize(("genre", "bpm", "seconds", "bars"), [("disco", 120, 15, 8), ("ambient", 60, 10, 2)])
def test_a_loop_is_whole_bars_and_joins_on_to_itself(genre: str, bpm: int, seconds: float, bars: int) -> None:
    described = DESCRIPTION.model_copy(update={"genre": genre, "bpm": bpm})
    loop = arranger().play(described, seconds, 1, loop=True)
    assert loop.audio.shape[1] / loop.sample_rate == pytest.approx(bars * 4 * 60 / bpm, abs=0.002)
    assert loop.card.is_loop and loop.card.measured.seam_db is not None and loop.card.measured.seam_db < 0
    # An end is faded; what a loop ends with goes on at its beginning, as loud as there.
    window = loop.sample_rate // 4
    end, beginning = (np.sqrt(np.square(part).mean()) for part in (loop.audio[:, -window:], loop.audio[:, :window]))
    assert 0.1 < end / beginning < 10
    assert replay(loop.card).files == loop.files


def test_a_loop_that_is_cut_elsewhere_is_heard_as_a_seam() -> None:
    rate = 44_100
    tone = np.sin(2 * np.pi * 220 * np.arange(2 * rate) / rate).astype(np.float32)[None]
    assert seam(tone) < 1
    assert seam(tone[:, : rate + 50]) > 20


def test_the_best_take_is_kept_with_the_reasons() -> None:
    best = play_best(arranger(), DESCRIPTION, 6, 3, takes=3)
    assert [take.fit for take in best.card.takes] == sorted((take.fit for take in best.card.takes), reverse=True)
    assert {take.seed for take in best.card.takes} == {3, 4, 5} and best.card.seed == best.card.takes[0].seed
    assert all(take.reasons for take in best.card.takes)
    assert replay(best.card).files == best.files
    with pytest.raises(InputError, match="between 1 and 20; got 0"):
        play_best(arranger(), DESCRIPTION, 6, 3, takes=0)


def test_a_take_in_another_key_and_tempo_than_asked_fits_less() -> None:
    def as_if(**asked: object) -> float:
        return judge(track().with_card(requested=track().card.requested.model_copy(update=asked))).fit

    assert as_if(key="Ab major") < as_if(bpm=120) < as_if() - 0.9 or as_if(bpm=120) < as_if(key="Ab major") < as_if()


def test_commercial_use_refuses_what_may_not_be_sold() -> None:
    check_use(Settings.load(), "non-commercial", "MusicGen")
    commercial = Settings.load(use="commercial")
    check_use(commercial, "any", "the arranger")
    with pytest.raises(LicenceError, match="MusicGen makes music for non-commercial use only"):
        check_use(commercial, "non-commercial", "MusicGen")
