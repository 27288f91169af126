"""Many pictures: each gets its song, or the reason why not; what was made before is found again.

    runs/store/batch/<request>.json     vouches for a finished picture: written last, when its song is whole

The request is the hash of the picture and of all that decides its song, so a run that was killed, or is started anew
with more pictures, makes only what is missing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from melodify_lib.errors import InputError, MelodifyError, StoreError
from melodify_lib.flow import Composer
from melodify_lib.image import MAX_BYTES, read_bytes
from melodify_lib.logs import redact
from melodify_lib.music.finish import SEED_LIMIT
from melodify_lib.nouns import TrackCard, own_seed, sha256
from melodify_lib.store import Store, get_all, name_in, open_store

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Result:
    """What became of a picture: ``made``, ``found`` (it was made before) or ``failed``; in seconds."""

    picture: str
    state: str
    song: str = ""
    error: str = ""
    seconds: float = 0.0


def list_pictures(settings: Settings, where: str) -> list[str]:
    """Names of the pictures right in a folder or under a gs:// address, by their suffix, sorted.

    Raises `InputError` where there are none.
    """
    if where.startswith("gs://"):
        from melodify_lib.cloud.objects import list_names

        names = list_names(settings, where)
    else:
        folder = Path(where)
        names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    pictures = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    if not pictures:
        raise InputError(f"no pictures ({', '.join(SUFFIXES)}) in {where}")
    return pictures


def compose_all(
    settings: Settings, where: str, pictures: Sequence[str], *, seconds: float, seed: int
) -> Iterator[Result]:
    """A `Result` for each of `pictures`, as it comes. A picture that fails, fails alone.

    Each has its own seed, to which `seed` is added.
    """
    store, composer = open_store(settings), Composer(settings)
    for picture in pictures:
        started = time.monotonic()
        try:
            data = _read(settings, where, picture)
            own = (own_seed(data) + seed) % SEED_LIMIT
            name = f"batch/{_request(data, composer, seconds, own)}.json"
            song = _find(store, name)
            if song is not None:
                yield Result(picture, "found", song, seconds=round(time.monotonic() - started, 2))
                continue
            track = composer.compose(data, seconds=seconds, seed=own)
            address = track.put_song(store)
            store.put(name, json.dumps({"card": address}).encode())
        except MelodifyError as error:
            yield Result(picture, "failed", error=str(error), seconds=round(time.monotonic() - started, 2))
        except Exception as error:  # a fault of ours, or no memory: the next picture may be another matter
            log.exception("no song for %s", picture)
            reason = redact(f"{type(error).__name__}: {error}", settings)
            yield Result(picture, "failed", error=reason, seconds=round(time.monotonic() - started, 2))
        else:
            song = f"{address.removesuffix('card.json')}track.wav"
            yield Result(picture, "made", song, seconds=round(time.monotonic() - started, 2))


def to_json(results: Sequence[Result]) -> str:
    return json.dumps([asdict(one) for one in results], indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> list[Result]:
    return [Result(**one) for one in json.loads(text)]


def _read(settings: Settings, where: str, picture: str) -> bytes:
    if where.startswith("gs://"):
        from melodify_lib.cloud.objects import read

        return read_bytes(read(settings, f"{where.rstrip('/')}/{picture}", MAX_BYTES + 1))
    return read_bytes(Path(where) / picture)


def _request(data: bytes, composer: Composer, seconds: float, seed: int) -> str:
    stages = (composer.captioner, composer.describer.first, composer.musician)
    versions = [stage.version.model_dump() for stage in stages]
    return sha256(json.dumps([sha256(data), seconds, seed, versions]).encode())[:32]


def _find(store: Store, name: str) -> str | None:
    """The address of the song that `name` vouches for, if it is whole."""
    try:
        address = json.loads(store.get(name))["card"]
        prefix = name_in(store, address).removesuffix("card.json")
        card = TrackCard.from_json(store.get(f"{prefix}card.json"))
        get_all(store, prefix, card.files)
    except (StoreError, InputError, ValueError, LookupError, TypeError):
        return None
    return store.address(f"{prefix}track.wav")
