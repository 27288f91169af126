"""The flow, in one call: picture → caption → description → track.

Only this module and `pipelines` know the order of the stages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from melodify_lib import logs, stages
from melodify_lib.errors import ReplayError
from melodify_lib.image import open_image, read_bytes
from melodify_lib.music.finish import check_request
from melodify_lib.nouns import StageVersion, Track, TrackCard, sha256
from melodify_lib.settings import Settings

log = logging.getLogger(__name__)


class Composer:
    """The three stages that `settings` choose, loaded once and used for picture after picture."""

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings.load()
        self.captioner = stages.captioner(settings)
        self.describer = stages.DescriberWithFallback(settings)
        self.musician = stages.musician(settings)

    def compose(
        self,
        image: bytes | Path | str,
        *,
        seconds: float = 20,
        seed: int = 0,
        genre: str | None = None,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> Track:
        """Make music for a picture (its bytes or its path). The same arguments give the same bytes.

        `on_stage` hears "caption", "describe" and "play" as each begins. Raises `ImageError` for a
        file that is not a usable picture, `InputError` for `seconds` outside 4 to 300.
        """
        check_request(seconds, seed)
        with logs.tracing():
            return self._compose(image, seconds, seed, genre, on_stage)

    def _compose(
        self, image: bytes | Path | str, seconds: float, seed: int, genre: str | None, on_stage: Callable[[str], None]
    ) -> Track:
        on_stage("caption")
        started = time.monotonic()
        data = read_bytes(image)
        caption = self.captioner.caption(open_image(data))
        started = _log("caption", self.captioner.version, sha256(data), started)
        on_stage("describe")
        described = self.describer.describe(caption, genre)
        started = _log("describe", described.describer, sha256(data), started)
        on_stage("play")
        track = self.musician.play(described.description, seconds, seed)
        _log("play", track.card.musician, sha256(data), started)
        return track.with_card(
            image_sha256=sha256(data),
            caption=caption,
            captioner=self.captioner.version,
            describer=described.describer,
            fallback_from=described.fallback_from,
        )


def _log(stage: str, version: StageVersion, picture: str, started: float) -> float:
    """A stage has ended; nothing of the picture is logged but its hash. Returns the time."""
    now = time.monotonic()
    labels = {"stage": stage, "implementation": version.name, "picture": picture[:16]}
    text = "%s by %s %s in %.2f s"
    fields = {"logging.googleapis.com/labels": labels}
    log.info(text, stage, version.name, version.version, now - started, extra={"fields": fields})
    return now


def compose(
    image: bytes | Path | str,
    *,
    seconds: float = 20,
    seed: int = 0,
    genre: str | None = None,
    settings: Settings | None = None,
) -> Track:
    """`Composer.compose` for a single picture."""
    return Composer(settings).compose(image, seconds=seconds, seed=seed, genre=genre)


def replay(card: TrackCard, settings: Settings | None = None) -> Track:
    """Play the music of a card again. Raises `ReplayError`, saying what differs, unless the bytes are the same."""
    settings = settings or Settings.load(musician=card.musician.name)
    musician = stages.musician(settings)
    if musician.version != card.musician:
        raise ReplayError(
            f"the card was made by {card.musician.name} {card.musician.version}; "
            f"here is {musician.version.name} {musician.version.version}: install that version to replay it"
        )
    if card.requested.duration_s is None:
        raise ReplayError("the card does not say how many seconds were asked for")
    track = musician.play(card.description, card.requested.duration_s, card.seed)
    names = sorted(card.files.keys() | track.card.files.keys())
    differing = [name for name in names if track.card.files.get(name) != card.files.get(name)]
    if differing:
        raise ReplayError(
            f"{', '.join(differing)} came out with other bytes under the same versions: the processor "
            "or a library (numpy, scipy, pedalboard) differs from where the card was made"
        )
    return track.with_card(
        image_sha256=card.image_sha256,
        caption=card.caption,
        captioner=card.captioner,
        describer=card.describer,
        fallback_from=card.fallback_from,
    )
