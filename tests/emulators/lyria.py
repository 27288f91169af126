"""Lyria on Vertex AI: a clip of the right form, played by the arranger from the prompt that was sent."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

import numpy as np
import soundfile

from emulators.server import Refused, Request, route
from melodify_lib.music.arranger import from_settings
from melodify_lib.nouns import MusicDescription
from melodify_lib.settings import Settings
from melodify_lib.stages import Musician

CLIP_S = 32.8
SAMPLE_RATE = 48_000


class LyriaRoutes:
    """For an emulator of Vertex AI."""

    clips = 0
    """Made, and so billed."""

    @route("POST", r"/v1/projects/[^/]+/locations/[^/]+/publishers/google/models/(?P<model>lyria-[^/:]+):predict")
    def predict_lyria(self, request: Request, model: str) -> Any:
        self.authorise(request)  # type: ignore[attr-defined]
        instances, parameters = request.body["instances"], request.body.get("parameters") or {}
        if set(request.body) - {"endpoint", "instances", "parameters"} or len(instances) != 1:
            raise Refused(400, f"Invalid request: {sorted(request.body)}")
        (instance,) = instances
        if set(instance) - {"prompt", "negative_prompt", "seed"} or not isinstance(instance.get("prompt"), str):
            raise Refused(400, f"Invalid instance: {sorted(instance)}")
        if "seed" in instance and "sample_count" in parameters:
            raise Refused(400, "seed cannot be used with sample_count")
        self.clips += 1
        data = base64.b64encode(clip(instance["prompt"], int(instance.get("seed", 0)))).decode()
        return {
            "predictions": [{"audioContent": data, "mimeType": "audio/wav"}],
            "modelDisplayName": model,
        }


def clip(prompt: str, seed: int) -> bytes:
    """A stereo WAV of 16 bits at 48 kHz."""
    track = _arranger().play(MusicDescription.parse(prompt), 33.0, seed)
    times = np.arange(round(CLIP_S * SAMPLE_RATE)) / SAMPLE_RATE * track.sample_rate
    audio = np.stack([np.interp(times, np.arange(one.size), one) for one in track.audio])
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


@cache
def _arranger() -> Musician:
    return from_settings(Settings())
