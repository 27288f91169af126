"""The flow, in one call: picture → caption → description → track.

Only this module and `pipelines` know the order of the stages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from melodify_lib import logs, stages
from melodify_lib.errors import ReplayError
from melodify_lib.image import open_image, read_bytes
from melodify_lib.music.finish import check_request
from melodify_lib.nouns import Track, TrackCard, sha256
from melodify_lib.settings import Settings


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

        `on_stage` hears "caption", "describe" and "play" as each begins; the log, in one trace, as each ends.
        Raises `ImageError` for a file that is not a usable picture, `InputError` for `seconds` outside 4 to 300.
        """
        check_request(seconds, seed)
        with logs.tracing():
            on_stage("caption")
            since = time.monotonic()
            data = read_bytes(image)
            picture = sha256(data)
            caption = self.captioner.caption(open_image(data))
            captioner = self.captioner.version
            logs.stage_done("caption", captioner, since, picture=picture)
            on_stage("describe")
            since = time.monotonic()
            described = self.describer.describe(caption, genre)
            logs.stage_done("describe", described.describer, since, picture=picture)
            on_stage("play")
            since = time.monotonic()
            track = self.musician.play(described.description, seconds, seed)
            logs.stage_done("play", track.card.musician, since, picture=picture, song=track.card.files["track.wav"])
        return track.with_card(
            image_sha256=picture,
            caption=caption,
            captioner=captioner,
            describer=described.describer,
            fallback_from=described.fallback_from,
        )


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
