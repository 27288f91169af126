"""The musician behind a Vertex AI endpoint: our own server (serving/), which puts songs into the store.

An answer has addresses, not audio. It is not trusted: what is read lies in the settings' own store, and is whole,
and what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import clients, endpoints
from melodify_lib.errors import InputError, ModelError
from melodify_lib.music.finish import SEED_LIMIT, check_request
from melodify_lib.music.foreign import read_wav
from melodify_lib.music.licence import check_use
from melodify_lib.nouns import MusicDescription, PermittedUse, StageVersion, Track, TrackCard, sha256
from melodify_lib.store import name_in, open_store

if TYPE_CHECKING:
    from melodify_lib.settings import Settings
    from melodify_lib.stages import OnProgress


def from_settings(settings: Settings) -> EndpointMusician:
    """The endpoint that the settings name. Raises `PaidError` or `SettingsError` where it may not or cannot be used."""
    return EndpointMusician(settings)


class EndpointMusician:
    """A `Musician` that asks another. The track is the other's, with its card."""

    permitted_use: PermittedUse = "any"
    """What the other's licence permits is on the card of each track, and looked at there."""

    def __init__(self, settings: Settings) -> None:
        clients.require_paid(settings, "an endpoint of Vertex AI")
        self._settings = settings
        self._name = endpoints.own_endpoint(settings)
        self._store = open_store(settings)

    @property
    def version(self) -> StageVersion:
        """What the endpoint serves now, by its share of the traffic. A track's card names who played it."""
        endpoint = endpoints.get(self._settings, self._name)
        with clients.readable("Vertex AI"):
            served = (
                f"{one.model.rpartition('/')[2].partition('@')[0]}@{one.model_version_id}"
                for one in endpoint.deployed_models
                if endpoint.traffic_split.get(one.id)
            )
            return StageVersion(name="endpoint", version="+".join(sorted(served)) or "nothing deployed")

    def play(
        self, description: MusicDescription, seconds: float, seed: int, on_progress: OnProgress = lambda share: None
    ) -> Track:
        """Ask for the song, and fetch it from the store.

        Raises `InputError` for a seed that would lose digits on its way, `CloudError` when the endpoint fails, and
        `ModelError` for an answer that is not the song that was asked for.
        """
        check_request(seconds, seed)
        if seed >= SEED_LIMIT:
            raise InputError(f"a seed for an endpoint must be below 2**53; got {seed}")
        asked = {"description": description.model_dump(mode="json"), "seconds": seconds, "seed": seed}
        answer = endpoints.predict(self._settings, endpoints.get(self._settings, self._name), [asked])
        return self.fetch(answer.predictions[0], asked)

    def fetch(self, prediction: Any, asked: dict[str, Any]) -> Track:
        """The song that was `asked` for, from where a `prediction` says it lies. Raises `ModelError` as `play`."""
        address = _card_address(prediction)
        prefix = name_in(self._store, address).removesuffix("card.json")
        card = TrackCard.from_json(self._store.get(f"{prefix}card.json"))
        got = {
            "description": card.description.model_dump(mode="json"),
            "seconds": card.requested.duration_s,
            "seed": card.seed,
        }
        if got != asked:
            raise ModelError(f"the endpoint gave another song than the one that was asked for: {address}")
        check_use(self._settings, card.permitted_use, f"the endpoint's {card.musician.name}")
        files = {name: self._store.get(prefix + name) for name in card.files}
        if broken := [name for name, data in files.items() if sha256(data) != card.files[name]]:
            raise ModelError(f"{', '.join(broken)} beside {address} is not what the card says")
        audio, sample_rate = read_wav(files.get("track.wav", b""), f"the audio beside {address}")
        return Track(audio=audio, sample_rate=sample_rate, files=files, card=card)


def _card_address(prediction: Any) -> str:
    address = prediction.get("card") if isinstance(prediction, dict) else None
    if not isinstance(address, str) or not address.endswith("/card.json"):
        raise ModelError("the endpoint's answer names no card")
    return address
