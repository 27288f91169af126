"""Lyria as a musician, with the real client against a server on this machine."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile

from emulators.server import Reply
from emulators.vertex import VertexEmulator
from melodify_lib import stages
from melodify_lib.cloud import retry
from melodify_lib.errors import CloudError, InputError, MelodifyError, ModelError, PaidError
from melodify_lib.nouns import MusicDescription, TrackCard
from melodify_lib.settings import Settings

TOKEN = "ya29.emulated-0123456789abcdefghij"
MUSIC = MusicDescription(
    description="A calm tune.", genre="jazz", bpm=100, key="C major", moods=("calm",), instruments=("piano",)
)


@pytest.fixture
def vertex(monkeypatch: pytest.MonkeyPatch) -> Iterator[VertexEmulator]:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.3)
    with VertexEmulator(lambda text: {}, TOKEN) as emulator:
        yield emulator


def lyria(vertex: VertexEmulator, **more: Any) -> stages.Musician:
    fields = {
        "musician": "lyria",
        "allow_paid": True,
        "project": "melodify",
        "access_token": TOKEN,
        "vertex_base_url": vertex.url,
    }
    return stages.musician(Settings(**{**fields, **more}))


def test_a_clip_becomes_a_track_whose_card_tells_where_it_is_from(vertex: VertexEmulator) -> None:
    track = lyria(vertex).play(MUSIC, 8, 7)
    sent = vertex.log[0].body["instances"][0]
    assert sent["prompt"] == MUSIC.to_prompt() and sent["seed"] == 7
    audio, sample_rate = soundfile.read(io.BytesIO(track.files["track.wav"]))
    assert sample_rate == 48_000 and abs(len(audio) / sample_rate - 8) < 0.01
    assert abs(audio[-1]).max() < 0.01  # it fades
    card = TrackCard.from_json(track.card.to_json())
    assert card.watermark == "SynthID" and "Google" in card.licence and card.musician.name == "lyria"
    assert abs(card.measured.loudness_lufs - -14) < 0.5


def test_more_than_a_clip_is_refused_before_anything_is_paid(vertex: VertexEmulator) -> None:
    with pytest.raises(InputError, match="30 s"):
        lyria(vertex).play(MUSIC, 31, 7)
    with pytest.raises(PaidError):
        lyria(vertex, allow_paid=False)
    assert not vertex.log


def _wave(seconds: float = 33, channels: int = 2, subtype: str = "PCM_16", value: float = 0) -> str:
    rate = 48_000
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.full((round(seconds * rate), channels), float(value)), rate, subtype=subtype, format="WAV"
    )
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        [{}, {}],
        [None],
        ["audio"],
        [{"bytesBase64Encoded": 7}],
        [{"bytesBase64Encoded": "not base64!"}],
        [{"bytesBase64Encoded": base64.b64encode(b"RIFF, and no more").decode()}],
        [{"bytesBase64Encoded": _wave(seconds=1)}],
        [{"bytesBase64Encoded": _wave(channels=6)}],
        [{"audioContent": _wave()}],
        [{"audioContent": _wave(subtype="FLOAT", value=3e29)}],
        [{"audioContent": _wave(subtype="ALAW", value=0.5)}],
        [{"bytesBase64Encoded": _wave(subtype="FLOAT", value=float("nan"))}],
    ],
    ids=lambda predictions: str(predictions)[:40],
)
def test_an_answer_that_is_no_clip_is_an_error_of_ours(vertex: VertexEmulator, predictions: Any) -> None:
    vertex.fault = lambda request: Reply({"predictions": predictions})
    with pytest.raises((ModelError, CloudError), match="Lyria"):
        lyria(vertex).play(MUSIC, 8, 7)


@pytest.mark.parametrize("body", [b"<html>", {"predictions": 7}, [], None])
def test_an_answer_that_is_no_answer_is_an_error_of_ours(vertex: VertexEmulator, body: Any) -> None:
    vertex.fault = lambda request: Reply(body)
    with pytest.raises(MelodifyError):
        lyria(vertex).play(MUSIC, 8, 7)
    assert len(vertex.log) == 1
