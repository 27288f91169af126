"""A run of the pipeline for a picture, wherever the settings have it run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from melodify_lib import stages
from melodify_lib.errors import CardError, DescriptionError, PipelineError, SettingsError, StoreError
from melodify_lib.image import open_image, read_bytes
from melodify_lib.music.finish import check_request
from melodify_lib.nouns import Caption, MusicDescription, TrackCard, own_seed, save_files, sha256
from melodify_lib.settings import Settings
from melodify_lib.store import Store, get_all, name_in, open_store, put_folder
from pipelines.graph import IMAGE, music_pipeline, resources_for

RUNNERS = {"local": "pipelines.local", "vertex": "pipelines.vertex"}
"""Name in the settings → module with a function ``run``."""

# No credentials and no addresses: a component has those of the machine that it runs on.
_CLOUD = ("profile", "allow_paid", "project", "location", "bucket")
_DESCRIBER = (*_CLOUD, "describer", "describer_fallback", "describer_model", "gemini_model")
_MUSICIAN = (
    *_CLOUD, "musician", "soundfont", "checkpoint", "device", "precision", "endpoint", "lyria_model", "store",
    "service_account", "use",
)  # fmt: skip

OnLook = Callable[[dict[str, str], MusicDescription | None], None]
"""Hears each task's state, and the description, once it is made."""


@dataclass(frozen=True)
class Run:
    """A finished run: each task's state ("done" or "cached") in order, the card and its address, the song's files."""

    tasks: dict[str, str]
    card_address: str
    card: TrackCard
    files: dict[str, bytes]
    seconds: float

    @property
    def song(self) -> str:
        """Address of the track, beside its card."""
        return f"{self.card_address.removesuffix('card.json')}track.wav"

    def save(self, folder: Path | str) -> None:
        """Write the files and ``card.json`` into `folder`, in place of the track that is there."""
        save_files(folder, {**self.files, "card.json": self.card.to_json().encode()})


def arguments(
    image: bytes | Path | str,
    settings: Settings,
    *,
    seconds: float = 20,
    seed: int | None = None,
    genre: str | None = None,
    caption: Caption | None = None,
    description: MusicDescription | None = None,
) -> dict[str, Any]:
    """The pipeline's parameters for a picture: its caption, and which models are to be used.

    A `caption` that is known already is taken as it is, and a `description` that is given is played. Without a `seed`
    it is the picture's own.
    """
    check_request(seconds, seed or 0)
    data = read_bytes(image)
    captioner = stages.captioner(settings)
    caption = caption or captioner.caption(open_image(data))
    return {
        "caption": caption.model_dump(mode="json", exclude_none=True),  # a null is no value of KFP
        "captioner": captioner.version.model_dump(),
        "image_sha256": sha256(data),
        "genre": genre or "",
        "given": description.model_dump(mode="json") if description else {},
        "describer_settings": _dump(settings, _DESCRIBER),
        "describer_version": stages.describer(settings).version.version,
        "musician_settings": _dump(settings, _MUSICIAN),
        "musician_version": stages.musician(settings).version.version,
        "seconds": float(seconds),
        "seed": own_seed(data) if seed is None else seed,
    }


def run(
    parameters: dict[str, Any],
    settings: Settings,
    *,
    caching: bool = True,
    request: str = "",
    on_event: Callable[[str], None] = lambda text: None,
    on_look: OnLook = lambda states, description: None,
) -> Run:
    """Run the pipeline with `parameters` from `arguments`; a song that is no longer whole in the store is made again.

    On Vertex AI, which is paid for, the same parameters under the same `request` are one job: it is found again by
    whoever asks for the same. `on_event` hears what becomes of each task, and `on_look`, each second of a job on Vertex
    AI, how far it is: a `CancelledError` that it raises cancels the job. Raises `PipelineError`, naming the task that
    failed.
    """
    run_there, started = runner(settings), time.monotonic()
    store_settings = settings.model_copy(update={"store": parameters["musician_settings"]["store"]})

    def read(address: str) -> tuple[TrackCard, dict[str, bytes]] | None:
        return _read_whole(open_store(store_settings), address)

    described = lru_cache(partial(_read_description, settings))  # read once, whether or not that succeeds

    def look(states: dict[str, str], outputs: dict[str, str]) -> None:
        address = outputs.get("rework-caption.description")
        on_look(states, described(address) if address else None)

    for again in (False, True):
        tasks, address = run_there(
            music_pipeline(settings.image or IMAGE, resources_for(settings), caching=caching and not again),
            parameters,
            settings,
            request=request,
            is_whole=(lambda address: read(address) is not None) if again else (lambda address: True),
            on_event=on_event,
            on_look=look,
        )
        song = read(address)
        if song is not None and (again or not _is_cached_stand_in(tasks, song[0])):
            return Run(tasks, address, *song, time.monotonic() - started)
    raise PipelineError(f"the song at {address} is not whole, though it was made anew; look at the store")


def runner(settings: Settings) -> Callable[..., tuple[dict[str, str], str]]:
    """The function ``run`` of the runner that the settings name. Raises `SettingsError` where there is none."""
    if settings.runner not in RUNNERS:
        raise SettingsError(f"no runner {settings.runner!r}; choose one of: {', '.join(RUNNERS)} (MELODIFY_RUNNER)")
    found: Callable[..., tuple[dict[str, str], str]] = import_module(RUNNERS[settings.runner]).run
    return found


def _read_whole(store: Store, address: str) -> tuple[TrackCard, dict[str, bytes]] | None:
    """The card, and the files that it names; None where one is missing or is another."""
    try:
        name = name_in(store, address)
        card = TrackCard.from_json(store.get(name))
        return card, get_all(store, name.removesuffix("card.json"), card.files)
    except (CardError, StoreError):
        return None


def _read_description(settings: Settings, address: str) -> MusicDescription | None:
    """What a task of a job on Vertex AI handed on; None where it cannot be read, as the song's card has it too."""
    try:
        handed_on = open_store(settings.model_copy(update={"store": f"gs://{settings.bucket}"}))
        return MusicDescription.parse(handed_on.get(name_in(handed_on, address)).decode())
    except (StoreError, DescriptionError, UnicodeDecodeError):
        return None


def _is_cached_stand_in(tasks: dict[str, str], card: TrackCard) -> bool:
    """Was the description made, some time ago, by the stand-in for a describer that may be well again?"""
    return card.fallback_from is not None and tasks["rework-caption"] == "cached"


def batch_settings(settings: Settings) -> dict[str, Any]:
    """All that concerns a song, for a component that makes it whole."""
    captioner = ("captioner", "openai_model", "openai_secret")
    return _dump(settings, tuple(dict.fromkeys((*captioner, *_DESCRIBER, *_MUSICIAN))))


def _dump(settings: Settings, fields: tuple[str, ...]) -> dict[str, Any]:
    """Those of the settings, for `Settings.load` in a component; a path is absolute, as a component runs elsewhere.

    What is unset goes along as "", so that the component's environment does not fill it. For a run on Vertex AI, a
    describer in a folder is put into the store.
    """
    values = {field: getattr(settings, field) for field in fields}
    if settings.runner == "vertex" and settings.describer_model is not None and "describer_model" in values:
        values["describer_model"] = put_folder(open_store(settings), settings.describer_model)
    if "store" in values and not settings.store.startswith("gs://"):
        values["store"] = Path(settings.store)
    return {
        field: str(value.resolve()) if isinstance(value, Path) else "" if value is None else value
        for field, value in values.items()
    }
