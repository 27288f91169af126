"""A new version of the musician beside the one that serves: a canary, asked and judged, that gets all or nothing.

    deploy at 10 % ──▶ ask until it has answered ──▶ judge ──▶ passed: all the traffic; the older version is undeployed
                                                        └────▶ refused: undeployed; the older version as it was

A deployment is billed as long as it stands. So an error or an interrupt is a refusal too, and what a rollout that was
killed has left is taken away by `settle`, with which the next one begins.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import clients, endpoints
from melodify_lib.errors import InputError, MelodifyError, ModelError, SettingsError
from melodify_lib.music.finish import SEED_LIMIT
from melodify_lib.nouns import MusicDescription

if TYPE_CHECKING:
    from melodify_lib.music.endpoint import EndpointMusician
    from melodify_lib.settings import Settings

LIVE = "live"
"""The alias, in Model Registry, of the version that has passed."""
FOLDER = "songs/canary"
"""In the store: what was asked for lies there until the bucket's rule for songs ends it."""
MUSIC = MusicDescription(
    description="A calm piano piece.",
    genre="jazz",
    bpm=100,
    key="C major",
    moods=("calm",),
    instruments=("piano",),
)


@dataclass(frozen=True)
class Gate:
    """What a canary must do to get all the traffic."""

    share: int = 10
    """Percent of the traffic that it has meanwhile."""
    answers: int = 3
    """Songs that it must make: each whole, as long as asked, and not silent."""
    within_s: float = 60.0
    """How long the slowest of them may take, from the question to the answer."""
    asks: int = 100
    """Questions at most, as chance sends most of them to the other: 3 answers are missed once in 500 rollouts."""
    seconds: float = 8.0
    """Length of a song."""


@dataclass(frozen=True)
class Rollout:
    """How it went. Seconds from question to answer, of the canary's answers and of the older version's."""

    model: str
    endpoint: str
    deployed: str
    older: str = ""
    canary_s: list[float] = field(default_factory=list)
    older_s: list[float] = field(default_factory=list)


def roll_out(
    settings: Settings,
    model: str,
    gate: Gate | None = None,
    *,
    on_event: Callable[[str], None] = lambda text: None,
    **machine: Any,
) -> Rollout:
    """Let `model` serve instead of what serves now, if the `gate` lets it pass; `machine` is as for `endpoints.deploy`.

    Where nothing serves, the canary has all the traffic from the start. A version that has passed gets the alias
    `LIVE`, and is not asked again while it serves. Raises `ModelError` for one that is refused, and whatever else came
    between; it is undeployed before that.
    """
    gate = gate or Gate()
    if not settings.store.startswith("gs://"):
        raise SettingsError(
            f"a song of an endpoint cannot be fetched from {settings.store}: set MELODIFY_STORE to gs://…"
        )
    if not 1 <= gate.share <= 99:
        raise InputError(f"a canary gets 1 to 99 percent of the traffic, not {gate.share}")
    name = f"{clients.parent(settings)}/endpoints/{settings.serving_name}"
    older = settle(settings, on_event=on_event)
    try:
        _, deployed = endpoints.deploy(settings, model, traffic=gate.share, on_event=on_event, **machine)
        if deployed == older:
            if _is_live(settings, model):
                return Rollout(model, name, deployed, older)
            older = ""  # a rollout that was killed while this was the first version: it serves, and was never judged
        rollout = Rollout(model, name, deployed, older)
        refused = _judge(settings, rollout, gate)
    except BaseException:
        on_event("rolling back")
        _roll_back(settings, name, older, on_event)
        raise
    if refused:
        _roll_back(settings, name, older, on_event)
        raise ModelError(f"the gate refuses {model.rpartition('/')[2]}, which is undeployed: {'; '.join(refused)}")
    try:
        endpoints.split(settings, name, {deployed: 100})  # before the other is gone
        endpoints.serve_only(settings, name, deployed, on_event=on_event)
        endpoints.alias(settings, model, LIVE)
    except BaseException:  # with whichever of the two has the traffic now
        settle(settings, on_event=on_event)
        raise
    return rollout


def settle(settings: Settings, *, on_event: Callable[[str], None] = lambda text: None) -> str:
    """Undeploy all but the version that has the most traffic; its deployment, or nothing.

    That ends what a rollout that was killed has left, and is for the endpoint that rollouts alone deploy to.
    """
    name = f"{clients.parent(settings)}/endpoints/{settings.serving_name}"
    endpoints.wait_until_unchanged(settings, name, on_event=on_event)
    there = endpoints.find_endpoint(settings, name)
    if there is None:
        return ""
    keep = endpoints.busiest(there)
    if {one.id for one in there.deployed_models} - {keep}:
        endpoints.serve_only(settings, name, keep, on_event=on_event)
    return keep


def _is_live(settings: Settings, model: str) -> bool:
    there = endpoints.find_model(settings, model)
    return there is not None and LIVE in there.version_aliases


def _roll_back(settings: Settings, endpoint: str, older: str, on_event: Callable[[str], None]) -> None:
    """The older version alone; nothing, where there was none or somebody took it away meanwhile."""
    endpoints.wait_until_unchanged(settings, endpoint, on_event=on_event)
    there = endpoints.find_endpoint(settings, endpoint)
    if there is not None:
        keep = older if older in {one.id for one in there.deployed_models} else ""
        endpoints.serve_only(settings, endpoint, keep, on_event=on_event)


def _judge(settings: Settings, rollout: Rollout, gate: Gate) -> list[str]:
    """Why the canary is refused; nothing where it passes. Of a question that failed nobody says to whom it went."""
    try:
        _ask(settings, rollout, gate)
    except MelodifyError as error:
        return [f"an answer failed: {error}"]
    heard = len(rollout.canary_s)
    if heard < gate.answers:
        return [f"{heard} of {gate.asks} answers were its own, and {gate.answers} are needed"]
    if max(rollout.canary_s) > gate.within_s:
        return [f"its slowest answer took {max(rollout.canary_s):.1f} s, and may take {gate.within_s:g} s"]
    return []


def _ask(settings: Settings, rollout: Rollout, gate: Gate) -> None:
    """Ask, until the canary has made its songs. Each question is new, or else the older version's song were found."""
    from melodify_lib.music.endpoint import EndpointMusician

    musician = EndpointMusician(settings.model_copy(update={"endpoint": rollout.endpoint}))
    endpoint = endpoints.get(settings, rollout.endpoint)
    for _ in range(gate.asks):
        if len(rollout.canary_s) == gate.answers:
            break
        asked = {
            "description": MUSIC.model_dump(mode="json"),
            "seconds": gate.seconds,
            "seed": secrets.randbelow(SEED_LIMIT),
        }
        began = time.monotonic()
        answer = endpoints.predict(settings, endpoint, [{**asked, "output": FOLDER}])
        took = round(time.monotonic() - began, 2)
        is_canary = answer.deployed == rollout.deployed
        (rollout.canary_s if is_canary else rollout.older_s).append(took)
        if is_canary:
            _check(musician, answer.predictions[0], asked)


def _check(musician: EndpointMusician, prediction: Any, asked: dict[str, Any]) -> None:
    """Raise `ModelError` for a song that is not whole, not what was asked for, or silent."""
    track = musician.fetch(prediction, asked)
    length = track.audio.shape[1] / track.sample_rate
    if abs(length - asked["seconds"]) > 0.5 or not track.audio.any():
        raise ModelError(f"{length:.1f} s of sound for {asked['seconds']:g} s asked for, or silence")
