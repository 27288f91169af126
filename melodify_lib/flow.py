"""The flow, in one call: picture → caption → description → track.

Only this module and `pipelines` know the order of the stages.
"""

from __future__ import annotations

import time
from pathlib import Path

from melodify_lib import logs, stages
from melodify_lib.errors import ReplayError
from melodify_lib.image import open_image, read_bytes
from melodify_lib.music.finish import check_request, libraries
from melodify_lib.music.formats import same_sound
from melodify_lib.music.takes import play_best
from melodify_lib.nouns import Caption, MusicDescription, Track, TrackCard, own_seed, sha256
from melodify_lib.settings import Settings


class Watcher:
    """Hears how a song comes to be, in the thread that makes it; what it raises stops the song. This one is deaf."""

    def begin(self, stage: str) -> None:
        """ "caption", "describe" or "play" begins."""

    def captioned(self, caption: Caption) -> None: ...

    def described(self, description: MusicDescription) -> None: ...

    def playing(self, share: float) -> None:
        """From 0 to 1, often, while the music is made; only by musicians that know."""


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
        seed: int | None = None,
        genre: str | None = None,
        description: MusicDescription | None = None,
        loop: bool = False,
        stems: bool = False,
        takes: int = 1,
        watcher: Watcher | None = None,
    ) -> Track:
        """Make music for a picture (its bytes or its path). The same arguments give the same bytes.

        Without a `seed` it is the picture's own. With the same one, pictures that differ little get the same piece,
        played as each of them asks for.

        A `description` that is given is played as it is. `loop` and `stems` are the arranger's: music that joins on to
        its own beginning, and a file a part. The best of so many `takes` is given, from `seed` on. `watcher` hears what
        happens, and the log, in one trace, what each stage took. Raises `ImageError` for a file that is not a usable
        picture, `InputError` for `seconds` outside 4 to 300, `takes` outside 1 to 20, and what the musician cannot do.
        """
        check_request(seconds, seed or 0, takes=takes)
        extras = stages.extras(self.musician, loop=loop, stems=stems)
        watcher = watcher or Watcher()
        with logs.tracing():
            watcher.begin("caption")
            since = time.monotonic()
            data = read_bytes(image)
            picture = sha256(data)
            seed = own_seed(data) if seed is None else seed
            caption = self.captioner.caption(open_image(data))
            captioner = self.captioner.version
            logs.stage_done("caption", captioner, since, picture=picture)
            watcher.captioned(caption)
            described = None
            if description is None:
                watcher.begin("describe")
                since = time.monotonic()
                described = self.describer.describe(caption, genre)
                description = described.description
                logs.stage_done("describe", described.describer, since, picture=picture)
            watcher.described(description)
            watcher.begin("play")
            since = time.monotonic()
            track = play_best(self.musician, description, seconds, seed, takes, watcher.playing, **extras)
            track = track.with_card(
                image_sha256=picture,
                caption=caption,
                captioner=captioner,
                describer=described.describer if described else None,
                fallback_from=described.fallback_from if described else None,
            )
            logs.stage_done("play", track.card.musician, since, picture=picture, song=track.card.files["track.wav"])
        return track


def compose(
    image: bytes | Path | str,
    *,
    seconds: float = 20,
    seed: int | None = None,
    genre: str | None = None,
    settings: Settings | None = None,
) -> Track:
    """`Composer.compose` for a single picture."""
    return Composer(settings).compose(image, seconds=seconds, seed=seed, genre=genre)


def replay(card: TrackCard, settings: Settings | None = None, *, file: bytes | None = None) -> Track:
    """Play the music of a card again. Raises `ReplayError`, saying what differs, unless the bytes are the same.

    The card inside an audio file has no hashes of files. With such a `file`, what it sounds like must be the same to
    the last sample, which it is whatever else a player has written into its tags.
    """
    settings = settings or Settings.load(musician=card.musician.name)
    musician = stages.musician(settings)
    if musician.version != card.musician:
        raise ReplayError(
            f"the card was made by {card.musician.name} {card.musician.version}; "
            f"here is {musician.version.name} {musician.version.version}: install that version to replay it"
        )
    if card.requested.duration_s is None:
        raise ReplayError("the card does not say how many seconds were asked for")
    has_stems = any(name.startswith("stems/") for name in card.files)
    extras = stages.extras(musician, loop=card.is_loop, stems=has_stems)
    track = musician.play(card.description, card.requested.duration_s, card.seed, **extras).with_card(
        image_sha256=card.image_sha256,
        caption=card.caption,
        captioner=card.captioner,
        describer=card.describer,
        fallback_from=card.fallback_from,
        libraries=card.libraries,
        takes=card.takes,
    )
    if file is not None:
        differing = [] if same_sound(file, track) else ["what the file sounds like"]
    else:
        names = sorted(card.files.keys() | track.card.files.keys())
        differing = [name for name in names if track.card.files.get(name) != card.files.get(name)]
    if differing:
        raise ReplayError(f"{', '.join(differing)}: not the same again; {_reason(card)}")
    fields = [name for name in TrackCard.model_fields if name != "files"]  # compared above, or not inside a file
    changed = [name for name in fields if getattr(card, name) != getattr(track.card, name)]
    if changed:
        raise ReplayError(f"the card was changed: its {', '.join(changed)} are not those of the track that it plays")
    return track


def _reason(card: TrackCard) -> str:
    here = libraries()
    other = [
        f"{name} {made} (here {here.get(name)})" for name, made in card.libraries.items() if here.get(name) != made
    ]
    if other:
        return f"it was made with {', '.join(other)}: install that to replay it"
    return "under the same versions: it was changed, or the processor is of another kind than where it was made"
