"""Lyria as a musician: Google's music model on Vertex AI, paid for each clip.

It gives clips of one length, without a promise of the same bytes tomorrow; shorter ones are cut with a fade.
Source: "Lyria API" in Vertex AI's model reference.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.cloud import clients
from melodify_lib.errors import InputError, ModelError
from melodify_lib.fingerprint import fingerprint
from melodify_lib.music.finish import SOURCES, check_request, finish_track
from melodify_lib.music.foreign import read_wav
from melodify_lib.nouns import MusicDescription, PermittedUse, StageVersion, Track

if TYPE_CHECKING:
    import numpy.typing as npt

    from melodify_lib.settings import Settings
    from melodify_lib.stages import OnProgress

CLIP_S = 30.0
"""Seconds that a clip has at least; Lyria 2 gives 30 to 33."""
FADE_S = 2.0
SEED_LIMIT = 2**32
NEGATIVE_PROMPT = "vocals, speech"
LICENCE = "Google Cloud Service Specific Terms, Generative AI Services"
WATERMARK = "SynthID"
_ANSWER_MAX_BYTES = 50_000_000


def from_settings(settings: Settings) -> Lyria:
    """`settings.lyria_model`. Raises `PaidError` or `SettingsError` where it may not or cannot be used."""
    return Lyria(settings)


class Lyria:
    """A `Musician` that asks Vertex AI for a clip."""

    def __init__(self, settings: Settings) -> None:
        from google.cloud.aiplatform_v1 import PredictionServiceClient

        self._settings = settings
        self._client = clients.vertex(settings, PredictionServiceClient)
        self._model = f"{clients.parent(settings)}/publishers/google/models/{settings.lyria_model}"

    permitted_use: PermittedUse = "any"

    @property
    def version(self) -> StageVersion:
        sources = fingerprint("music/lyria.py", "music/foreign.py", *SOURCES)
        return StageVersion(name="lyria", version=f"{self._settings.lyria_model}+{sources}")

    def play(
        self, description: MusicDescription, seconds: float, seed: int, on_progress: OnProgress = lambda share: None
    ) -> Track:
        """Ask for a clip, and make a track of its first `seconds`.

        An order whose answer was lost is not given again, as it may have been paid for. Raises `InputError` for more
        seconds than a clip has, `CloudError` when the service fails, `ModelError` for an answer that is no clip.
        """
        check_request(seconds, seed)
        if seconds > CLIP_S:
            raise InputError(f"{self._settings.lyria_model} gives clips of {CLIP_S:g} s; {seconds:g} s were asked for")
        clip, sample_rate = _read(self._ask(description.to_prompt(), seed % SEED_LIMIT))
        return finish_track(
            _cut(clip, round(seconds * sample_rate), round(FADE_S * sample_rate)),
            sample_rate,
            description=description,
            seconds=seconds,
            seed=seed,
            musician=self.version,
            licence=LICENCE,
            permitted_use=self.permitted_use,
            watermark=WATERMARK,
        )

    def _ask(self, prompt: str, seed: int) -> Any:
        instance = {"prompt": prompt, "negative_prompt": NEGATIVE_PROMPT, "seed": seed}
        response = clients.ask_google(
            self._settings,
            lambda: self._client.predict(endpoint=self._model, instances=[instance], retry=None),
            service="Lyria",
            is_repeatable=False,
        )
        if len(response.predictions) != 1:
            raise ModelError(f"Lyria gave {len(response.predictions)} clips; one was asked for, which may be blocked")
        return response.predictions[0]


def _read(prediction: Any) -> tuple[npt.NDArray[np.float32], int]:
    """Audio ``[channels, samples]`` and sample rate in Hz of a prediction; whatever it is, or `ModelError`."""
    with clients.readable("Lyria"):
        fields = dict(prediction)
    data = fields.get("audioContent") or fields.get("bytesBase64Encoded")
    if not isinstance(data, str) or len(data) > _ANSWER_MAX_BYTES:
        raise ModelError("Lyria's answer has no audio, or too much")
    try:
        audio, sample_rate = read_wav(base64.b64decode(data, validate=True), "Lyria's audio")
    except binascii.Error as error:
        raise ModelError(f"Lyria's audio cannot be read: {error}") from None
    if not audio.any():
        raise ModelError("Lyria's clip is silent")
    return audio, sample_rate


def _cut(clip: npt.NDArray[np.float32], samples: int, fade: int) -> npt.NDArray[np.float32]:
    if clip.shape[1] < samples:
        raise ModelError(f"Lyria's clip has {clip.shape[1]:,} samples; {samples:,} are needed")
    piece = clip[:, :samples].copy()
    if clip.shape[1] > samples:
        piece[:, -fade:] *= np.linspace(1, 0, min(fade, samples), dtype=np.float32)
    return piece
