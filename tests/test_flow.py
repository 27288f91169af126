"""The whole flow: a picture in, music out, and the card tells how."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile

from emulators.vertex import VertexEmulator
from melodify_lib.errors import DescriptionError, ImageError, InputError, ReplayError, SettingsError
from melodify_lib.flow import Composer, Watcher, replay
from melodify_lib.nouns import Caption, MusicDescription, StageVersion, Track, TrackCard, sha256
from melodify_lib.samples import SAMPLES, sample_picture
from melodify_lib.settings import Settings


@pytest.fixture(scope="module")
def tracks(composer: Composer) -> dict[str, Track]:
    return {name: composer.compose(sample_picture(name), seconds=8, seed=7) for name in SAMPLES}


def test_each_photograph_gets_its_own_music(tracks: dict[str, Track]) -> None:
    assert len({track.card.caption.text for track in tracks.values() if track.card.caption}) == len(SAMPLES)
    assert len({track.card.description.description for track in tracks.values()}) == len(SAMPLES)
    assert len({track.card.files["track.wav"] for track in tracks.values()}) == len(SAMPLES)


def test_a_card_from_before_there_were_stand_ins_and_watermarks_is_read(tracks: dict[str, Track]) -> None:
    card = tracks["coffee"].card
    fields = {
        name: value for name, value in json.loads(card.to_json()).items() if name not in ("fallback_from", "watermark")
    }
    assert TrackCard.from_json(json.dumps(fields)) == card


@pytest.mark.parametrize("name", SAMPLES)
def test_the_card_tells_how_the_track_came_to_be(tracks: dict[str, Track], name: str) -> None:
    track, card = tracks[name], tracks[name].card
    assert card.image_sha256 == sha256(sample_picture(name).read_bytes())
    assert card.files == {file: sha256(data) for file, data in track.files.items()}
    assert card.captioner and card.describer and card.musician
    assert card.measured.duration_s == pytest.approx(8, abs=0.5)
    assert TrackCard.from_json(card.to_json()) == card


def test_the_same_picture_and_seed_give_the_same_bytes(composer: Composer, tracks: dict[str, Track]) -> None:
    again = composer.compose(sample_picture("coffee").read_bytes(), seconds=8, seed=7)
    assert again.card == tracks["coffee"].card
    assert composer.compose(sample_picture("coffee"), seconds=8, seed=8).card.files != again.card.files


def test_a_genre_can_be_asked_for(composer: Composer, photograph: Path) -> None:
    assert composer.compose(photograph, seconds=4, genre="metal").card.description.genre == "metal"


class Listener(Watcher):
    def __init__(self, last: float = 1) -> None:
        self.heard: list[object] = []
        self.last = last

    def begin(self, stage: str) -> None:
        self.heard.append(stage)

    def captioned(self, caption: Caption) -> None:
        self.heard.append(caption)

    def described(self, description: MusicDescription) -> None:
        self.heard.append(description)

    def playing(self, share: float) -> None:
        self.heard.append(share)
        if share > self.last:
            raise InterruptedError


def test_a_watcher_hears_it_all_in_order_and_can_stop_it(composer: Composer, photograph: Path) -> None:
    listener = Listener()
    card = composer.compose(photograph, seconds=4, watcher=listener).card
    assert listener.heard[:5] == ["caption", card.caption, "describe", card.description, "play"]
    shares = listener.heard[5:]
    assert len(shares) > 2 and shares == sorted(shares) and set(map(type, shares)) == {float}
    with pytest.raises(InterruptedError):
        composer.compose(photograph, seconds=4, watcher=Listener(last=0.2))


def test_a_description_that_is_given_is_played_as_it_is(composer: Composer, photograph: Path) -> None:
    first = composer.compose(photograph, seconds=4)
    slower = first.card.description.model_copy(update={"bpm": 71})
    track = composer.compose(photograph, seconds=4, description=slower)
    assert track.card.description == slower and track.card.describer is None
    assert track.card.caption == first.card.caption
    assert replay(track.card).files == track.files


def test_saved_files_are_those_of_the_card(tracks: dict[str, Track], tmp_path: Path) -> None:
    tracks["rocket"].save(tmp_path / "song")
    card = TrackCard.from_json((tmp_path / "song" / "card.json").read_bytes())
    assert {path.name for path in (tmp_path / "song").iterdir()} == {*card.files, "card.json"}
    for name, digest in card.files.items():
        assert sha256((tmp_path / "song" / name).read_bytes()) == digest
    samples, rate = soundfile.read(io.BytesIO((tmp_path / "song" / "track.wav").read_bytes()))
    assert len(samples) / rate == pytest.approx(8, abs=0.5)


def test_replay_gives_the_same_bytes(tracks: dict[str, Track]) -> None:
    assert replay(tracks["flower"].card).files == tracks["flower"].files


def test_replay_says_what_differs(tracks: dict[str, Track]) -> None:
    card = tracks["flower"].card
    other = card.model_copy(update={"musician": StageVersion(name="arranger", version="0")})
    with pytest.raises(ReplayError, match="arranger 0"):
        replay(other)
    edited = card.model_copy(update={"files": {**card.files, "track.wav": "0" * 64}})
    with pytest.raises(ReplayError, match=r"track\.wav"):
        replay(edited)


def test_what_cannot_be_used_is_refused_before_the_work(composer: Composer, photograph: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seconds"):
        composer.compose(photograph, seconds=1)
    with pytest.raises(ImageError):
        composer.compose(tmp_path / "missing.jpg")
    shutil.copy(__file__, tmp_path / "text.jpg")
    with pytest.raises(ImageError):
        composer.compose(tmp_path / "text.jpg")


def test_replay_of_a_card_without_files_is_refused(tracks: dict[str, Track]) -> None:
    with pytest.raises(ReplayError, match=r"track\.mid, track\.wav"):
        replay(tracks["flower"].card.model_copy(update={"files": {}}))


def test_where_the_describer_fails_another_stands_in_and_the_card_says_so(photograph: Path) -> None:
    with VertexEmulator(lambda text: "no description", "token") as vertex:
        cloud: dict[str, Any] = {"describer": "gemini", "allow_paid": True, "project": "p", "access_token": "token"}
        cloud["vertex_base_url"] = vertex.url
        with pytest.raises(DescriptionError):
            Composer(Settings(**cloud)).compose(photograph, seconds=4)
        track = Composer(Settings(**cloud, describer_fallback="local")).compose(photograph, seconds=4)
    card = TrackCard.from_json(track.card.to_json())
    assert card.describer is not None and card.describer.name == "local"
    assert card.fallback_from is not None and card.fallback_from.name == "gemini"
    assert replay(card).card == card
    assert Composer(Settings()).compose(photograph, seconds=4).card.fallback_from is None


@pytest.mark.parametrize("name", ["local", "nobody"])
def test_a_stand_in_is_another_describer(name: str) -> None:
    with pytest.raises(SettingsError, match=f"'{name}' cannot stand in"):
        Composer(Settings(describer_fallback=name))
