"""A track's row: every change of state, and that none can happen twice, by halves, or to what is not one's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import webapp
from django.db import OperationalError, connection
from django.db.models import QuerySet
from django.utils import timezone
from PIL import Image
from prometheus_client import generate_latest

from emulators.cloud import Cloud
from melodify_lib.errors import InputError, StoreError
from melodify_lib.flow import Composer
from melodify_lib.nouns import TrackCard, sha256
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore
from web.tracks import files, jobs, operations, tallies, work
from web.tracks.jobs import ConflictError, GoneError, Options, QueueFullError
from web.tracks.models import UNDER_WAY, Fault, Stage, State, Track

pytestmark = pytest.mark.django_db(transaction=True)
OWNER = "a" * 64
OPTIONS = Options(seconds=4, seed=7, genre="", musician="arranger")
RED = Image.new("RGB", (32, 32), "red")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, composer: Composer) -> Callable[[str], None]:
    """What a worker does for a row, with the stages that are loaded already."""
    monkeypatch.setattr(work, "_composer", lambda musician: composer)
    monkeypatch.setattr(work, "_stop_at", None)
    return work.make


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], list[str]]:
    """Every file in the store, half-written ones too."""
    root = tmp_path / "store"
    return lambda: sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def order(**options: Any) -> Track:
    return jobs.create(OWNER, replace(OPTIONS, **options), picture=RED)[0]


def claimed() -> Track:
    track = jobs.claim(order().id)
    assert track is not None
    return track


def state(track: Track) -> str:
    return Track.objects.get(id=track.id).state


def age(track: Track, seconds: float = 3600) -> None:
    """As if its worker, and whoever sent it, had been silent for so long."""
    then = timezone.now() - timedelta(seconds=seconds)
    Track.objects.filter(id=track.id).update(heartbeat=then, created=then)


def tasks() -> list[str]:
    """Of the rows that a worker is told to look at."""
    from django_tasks_db.models import DBTaskResult

    return [one.args_kwargs["args"][0] for one in DBTaskResult.objects.ready()]


def run_tasks() -> None:
    from django_tasks_db.models import DBTaskResult

    DBTaskResult.objects.all().delete()


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    """`call` in so many threads at one moment; what each returned or raised."""
    at_once = threading.Barrier(count)

    def run(number: int) -> Any:
        try:
            at_once.wait(10)
            return call(number)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# --- a song's way ----------------------------------------------------------------------------------------------------


def test_an_order_is_queued_and_made_with_its_card_and_files(make: Callable[[str], None]) -> None:
    track = order()
    assert (track.state, track.attempt, tasks()) == (State.QUEUED, 0, [track.id])
    make(track.id)
    track.refresh_from_db()
    assert (track.state, track.percent, track.attempt, track.error, track.claim) == (State.DONE, 100, 1, "", "")
    assert track.started < track.ended
    card = TrackCard.model_validate(track.card)
    assert (track.caption, track.description) == (track.card["caption"], track.card["description"])
    store = FolderStore(Settings.load().store)
    for name, digest in card.files.items():
        assert sha256(store.get(f"web/{track.id}/{name}")) == digest
    assert TrackCard.from_json(store.get(f"web/{track.id}/card.json")) == card
    assert len(track.peaks) == work.PEAKS and 0 < max(track.peaks) <= 1
    make(track.id)  # a second task for the same row
    assert Track.objects.get(id=track.id).ended == track.ended


def test_progress_only_grows_and_names_each_stage(make: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    progress = jobs.progress
    monkeypatch.setattr(
        jobs, "progress", lambda track, stage, percent, **found: (
            said.append((stage, percent)), progress(track, stage, percent, **found)
        )[1]
    )  # fmt: skip
    monkeypatch.setattr(work, "SAY_EVERY_S", 0)
    make(order().id)
    percents = [percent for _, percent in said]
    assert percents == sorted(percents) and percents[-1] < 100
    assert list(dict.fromkeys(stage for stage, _ in said)) == list(Stage)


def test_one_of_many_claims_a_row() -> None:
    track = order()
    taken = together(8, lambda _: jobs.claim(track.id))
    assert sum(isinstance(one, Track) for one in taken) == 1, taken
    assert Track.objects.get(id=track.id).attempt == 1


@pytest.mark.parametrize("kept", [State.NEW, State.RUNNING, State.DONE, State.FAILED, State.CANCELLED, State.DELETED])
def test_only_a_queued_row_is_claimed(kept: State) -> None:
    track = order()
    Track.objects.filter(id=track.id).update(state=kept)
    assert jobs.claim(track.id) is None
    assert state(track) == kept


def test_a_lost_claim_writes_nothing() -> None:
    track = claimed()
    age(track)
    jobs.reap()
    mine = jobs.claim(track.id)
    assert mine is not None and mine.claim != track.claim
    assert not jobs.beat(track)
    assert not jobs.progress(track, Stage.PLAY, 50)
    assert not jobs.finish(track, card={}, peaks=[])
    assert not jobs.fail(track, Fault.OURS, "x")
    assert not jobs.give_back(track)
    assert jobs.beat(mine)
    assert jobs.finish(mine, card={"files": {}}, peaks=[])
    assert state(track) == State.DONE


def test_a_failure_has_a_reason_and_ours_is_not_told(
    make: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(work, "_composer", broken)
    track = order()
    make(track.id)
    track.refresh_from_db()
    assert (track.state, track.error) == (State.FAILED, work.OURS)
    assert "secret detail" in caplog.text


def test_a_song_that_takes_too_long_fails_with_a_reason(make: Callable[[str], None], settings: Any) -> None:
    settings.CONFIG = webapp.configure(deadline=1e-9)
    track = order()
    make(track.id)
    track.refresh_from_db()
    assert track.state == State.FAILED and "ask for a shorter song" in track.error


def test_a_worker_that_stops_gives_its_song_back_and_that_was_no_attempt(
    make: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    track = order()
    run_tasks()
    work.stop_within(0)
    make(track.id)
    track.refresh_from_db()
    assert (track.state, track.attempt, track.claim, tasks()) == (State.QUEUED, 0, "", [track.id])
    monkeypatch.setattr(work, "_stop_at", None)
    make(track.id)
    assert state(track) == State.DONE


def test_a_second_signal_does_not_put_the_end_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_stop_at", None)
    work.stop_within(1)
    first = work._stop_at
    work.stop_within(100)
    assert work._stop_at == first


# --- lost workers ----------------------------------------------------------------------------------------------------


def test_a_lost_workers_song_is_handed_on_until_its_attempts_are_used_up(settings: Any) -> None:
    track = order()
    for attempt in range(1, settings.CONFIG.attempts + 1):
        run_tasks()
        mine = jobs.claim(track.id)
        assert mine is not None and mine.attempt == attempt
        assert jobs.reap() == 0  # it has just been heard of
        age(track)
        assert jobs.reap() == 1
        if attempt < settings.CONFIG.attempts:
            assert (state(track), tasks()) == (State.QUEUED, [track.id])
    track.refresh_from_db()
    assert track.state == State.FAILED and "stopped several times" in track.error


def test_a_worker_that_is_heard_of_at_the_last_moment_keeps_its_song(monkeypatch: pytest.MonkeyPatch) -> None:
    track = claimed()
    age(track)
    monkeypatch.setattr(jobs.log, "warning", lambda *_, **__: jobs.beat(track))  # between the look and the deed
    jobs.reap()
    assert state(track) == State.RUNNING and jobs.beat(track)


def test_many_reapers_hand_on_once() -> None:
    track = claimed()
    run_tasks()
    age(track)
    together(4, lambda _: jobs.reap())
    assert state(track) == State.QUEUED
    assert set(tasks()) == {track.id}


def test_a_song_whose_task_was_lost_gets_another() -> None:
    track = order()
    run_tasks()  # taken by a worker that was killed before it claimed the row
    assert jobs.reap() == 1
    assert tasks() == [track.id]
    assert jobs.reap() == 0
    assert tasks() == [track.id]


# --- cancel and delete, whatever the state ---------------------------------------------------------------------------


@pytest.mark.parametrize("now", list(State)[:-1])
def test_cancel_stops_what_is_under_way_and_leaves_the_rest(now: State) -> None:
    track = order()
    Track.objects.filter(id=track.id).update(state=now)
    assert jobs.cancel(track) == (now in UNDER_WAY)
    assert state(track) == (State.CANCELLED if now in UNDER_WAY else now)


def test_a_running_song_notices_that_it_was_cancelled(
    make: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    track = order()
    monkeypatch.setattr(work.Reporter, "described", lambda self, description: jobs.cancel(track))
    make(track.id)
    track.refresh_from_db()
    assert (track.state, track.card) == (State.CANCELLED, None)


def test_cancelled_while_it_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    put = files.put_picture
    monkeypatch.setattr(
        files, "put_picture", lambda track_id, picture: (put(track_id, picture), jobs.cancel(Track(id=track_id)))
    )
    assert order().state == State.CANCELLED
    assert tasks() == []


@pytest.mark.parametrize("now", list(State))
def test_delete_leaves_no_file_and_no_row(
    now: State, stored: Callable[[], list[str]], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = order()
    Track.objects.filter(id=track.id).update(state=now, card={"files": {}}, caption={"text": "x"}, share="y" * 22)
    Path(Settings.load().store, f"web/{track.id}/.track.wav.12.ab").touch()  # of a worker that was killed
    jobs.delete(track)
    assert stored() == ["web"]
    hidden = Track.objects.get(id=track.id)
    assert (hidden.state, hidden.card, hidden.caption, hidden.share) == (State.DELETED, None, None, None)
    age(track)
    jobs.reap()
    assert not Track.objects.filter(id=track.id).exists()


def test_deleted_before_its_picture_is_read_is_no_error(
    make: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    track, get = order(), FolderStore.get
    monkeypatch.setattr(
        FolderStore, "get", lambda self, name: (name.endswith(".png") and jobs.delete(track), get(self, name))[1]
    )
    make(track.id)
    assert state(track) == State.DELETED
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize("is_purged", [False, True])
def test_deleted_while_it_is_made_nothing_comes_after(
    is_purged: bool, make: Callable[[str], None], stored: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    track = order()

    def delete(*_: Any) -> bytes:
        jobs.delete(track)
        if is_purged:
            age(track)
            jobs.reap()
        return b"mp3"

    monkeypatch.setattr(work, "encode", delete)  # after the last look at the row
    make(track.id)
    assert stored() == ["web"]
    assert not Track.objects.exclude(state=State.DELETED).exists()


def test_deleted_while_it_is_received(stored: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    put = files.put_picture
    monkeypatch.setattr(
        files, "put_picture", lambda track_id, picture: (jobs.delete(Track(id=track_id)), put(track_id, picture))
    )
    with pytest.raises(StoreError, match="deleted"):
        order()
    assert stored() == ["web"] and not Track.objects.exists()


def test_a_store_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(files, "put_picture", full)
    with pytest.raises(StoreError):
        order()
    assert not Track.objects.exists() and tasks() == []


def test_half_received_rows_go(stored: Callable[[], list[str]]) -> None:
    track = order()
    Track.objects.filter(id=track.id).update(state=State.NEW)
    jobs.reap()
    assert state(track) == State.NEW  # it may be on its way
    age(track)
    jobs.reap()
    assert not Track.objects.exists() and stored() == ["web"]


def test_what_is_too_old_goes_with_its_files(stored: Callable[[], list[str]], settings: Any) -> None:
    old, young = order(), order()
    age(old, settings.CONFIG.keep_days * 24 * 3600 + 60)
    assert jobs.expire() == 1
    assert (state(old), state(young)) == (State.DELETED, State.QUEUED)
    assert {name.split("/")[1] for name in stored() if "/" in name} == {young.id}


def figures(*names: str) -> dict[str, float]:
    """Those of the metrics whose names begin so and that are not 0."""
    found: dict[str, float] = {}
    for line in generate_latest(operations.REGISTRY).decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(names) and float(value):
            found[name] = float(value)
    return found


def test_songs_are_counted_by_their_end_and_stay_so_when_rows_go(
    make: Callable[[str], None], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [order(seed=seed) for seed in range(3)]
    for track in made:
        make(track.id)
        make(track.id)
        jobs.cancel(track)
    for _ in range(2):
        jobs.cancel(made[0])
        jobs.delete(order())
        jobs.cancel(cancelled := order())
    jobs.delete(cancelled)
    settings.CONFIG = webapp.configure(deadline=1e-9)
    make(order().id)
    settings.CONFIG = webapp.configure(attempts=1)
    age(claimed())
    jobs.reap()
    for error in (RuntimeError("x"), StoreError("x"), InputError("x")):
        monkeypatch.setattr(work, "_made", mock.Mock(side_effect=error))
        make(order().id)
    songs = 'melodify_web_songs_total{end="%s",kind="%s"}'
    ends = {"done": 3, "cancelled": 4}
    faults = {"late": 1, "lost": 1, "ours": 2, "asked": 1}
    counted = figures("melodify_web_songs_total", "melodify_web_song_seconds")
    said = {songs % (end, ""): count for end, count in ends.items()}
    said |= {songs % ("failed", fault): count for fault, count in faults.items()}
    assert said.items() <= counted.items() and sum(said.values()) == Track.objects.count()
    assert counted['melodify_web_song_seconds_bucket{le="+Inf"}'] == counted["melodify_web_song_seconds_count"] == 3
    took = sum((track.ended - track.started).total_seconds() for track in Track.objects.filter(state=State.DONE))
    assert counted["melodify_web_song_seconds_sum"] == pytest.approx(took)
    stages = [f'melodify_web_stage_seconds_count{{stage="{one}"}}' for one in ("caption", "describe", "play")]
    assert figures("melodify_web_stage_seconds_count") == dict.fromkeys(stages, 3)
    for track in Track.objects.all():
        age(track, settings.CONFIG.keep_days * 24 * 3600 + 60)
    jobs.expire()
    Track.objects.update(heartbeat=timezone.now() - timedelta(hours=1))
    jobs.reap()
    assert not Track.objects.exists()
    assert figures("melodify_web_songs_total", "melodify_web_song_seconds") == counted


def test_what_many_count_at_once_is_all_counted() -> None:
    assert not [one for one in together(8, lambda _: tallies.count(State.DONE, seconds=7)) if one]
    assert figures("melodify_web_song_seconds") == {
        **{f'melodify_web_song_seconds_bucket{{le="{one}"}}': 8.0 for one in tallies.WITHIN[3:]},
        "melodify_web_song_seconds_count": 8.0,
        "melodify_web_song_seconds_sum": 56.0,
    }


# --- keys, room, remixes ---------------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_track_and_another_body_a_conflict() -> None:
    first, is_new = jobs.create(OWNER, OPTIONS, picture=RED, idempotency_key="k")
    again, is_new_again = jobs.create(OWNER, OPTIONS, picture=RED.copy(), idempotency_key="k")
    assert (first.id, is_new, is_new_again) == (again.id, True, False)
    for options, image in ((replace(OPTIONS, seed=8), RED), (OPTIONS, Image.new("RGB", (32, 32), "blue"))):
        with pytest.raises(ConflictError):
            jobs.create(OWNER, options, picture=image, idempotency_key="k")
    other, _ = jobs.create("b" * 64, OPTIONS, picture=RED, idempotency_key="k")
    assert other.id != first.id
    assert Track.objects.count() == 2


def test_the_same_key_at_the_same_moment_is_one_track() -> None:
    made = together(6, lambda _: jobs.create(OWNER, OPTIONS, picture=RED, idempotency_key="k"))
    assert len({track.id for track, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1
    assert Track.objects.count() == 1


def test_a_deleted_tracks_key_may_be_used_again() -> None:
    first, _ = jobs.create(OWNER, OPTIONS, picture=RED, idempotency_key="k")
    jobs.delete(first)
    again, is_new = jobs.create(OWNER, OPTIONS, picture=RED, idempotency_key="k")
    assert is_new and again.id != first.id


def test_the_queue_never_holds_more_than_it_may(settings: Any) -> None:
    settings.CONFIG = webapp.configure(workers=1, waiting=3)
    made = together(10, lambda number: order(seed=number))
    assert sum(isinstance(one, Track) for one in made) == 4, made
    assert sum(isinstance(one, QueueFullError) for one in made) == 6, made
    assert Track.objects.filter(state__in=UNDER_WAY).count() == 4
    jobs.cancel(Track.objects.first())
    order()


def test_a_remix_has_its_parents_picture_and_outlives_it(make: Callable[[str], None]) -> None:
    parent = order()
    make(parent.id)
    parent.refresh_from_db()
    given = {**parent.description, "bpm": 100}
    remix, _ = jobs.create(OWNER, replace(OPTIONS, given=given), parent=parent)
    assert remix.parent_id == parent.id
    jobs.delete(parent)
    age(parent)
    jobs.reap()
    make(remix.id)
    remix.refresh_from_db()
    assert (remix.state, remix.description["bpm"], remix.parent_id) == (State.DONE, 100, None)
    assert remix.card["describer"] is None
    with pytest.raises(GoneError):
        jobs.create(OWNER, OPTIONS, parent=parent)


def test_a_link_is_the_same_until_it_is_taken_back() -> None:
    track = order()
    link = jobs.share(track)
    assert jobs.share(Track.objects.get(id=track.id)) == link and len(link) >= 22
    jobs.unshare(track)
    track.refresh_from_db()
    assert track.share is None
    assert jobs.share(track) != link


@pytest.fixture(autouse=True)
def _no_connection_is_left() -> Iterator[None]:
    yield
    connection.close()


def test_one_folder_that_cannot_be_removed_keeps_no_other_from_being_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, gone = order(), order()
    for track in (stuck, gone):
        jobs.delete(track)
    Track.objects.update(heartbeat=timezone.now() - timedelta(days=1))
    remove = files.delete

    def refuse(track_id: str) -> None:
        if track_id == stuck.id:
            raise StoreError("cannot delete")
        remove(track_id)

    monkeypatch.setattr(files, "delete", refuse)
    jobs.reap()
    assert [track.id for track in Track.objects.all()] == [stuck.id]


def test_files_are_deleted_even_where_no_row_can_be_written(
    monkeypatch: pytest.MonkeyPatch, stored: Callable[[], list[str]]
) -> None:
    track = order()
    assert stored()

    def full(*_: Any, **__: Any) -> None:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(QuerySet, "update", full)
    with pytest.raises(OperationalError):
        jobs.delete(track)
    assert not [name for name in stored() if "." in name]


# --- in the cloud ----------------------------------------------------------------------------------------------------


def test_a_jobs_description_is_in_the_row_while_its_song_is_played(gcp: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import vertex

    monkeypatch.setattr(vertex, "POLL_S", 0.02)
    said: list[tuple[Stage, Any]] = []

    def say(track: Track, stage: Stage, percent: int, **found: Any) -> bool:
        told = progress(track, stage, percent, **found)
        said.append((stage, Track.objects.get(id=track.id).description))
        return told

    progress = jobs.progress
    monkeypatch.setattr(jobs, "progress", say)
    track = order()
    work.make(track.id)
    track.refresh_from_db()
    assert track.state == State.DONE, gcp.vertex.task_logs
    played = [description for stage, description in said if stage == Stage.PLAY]
    assert track.description in played[:-1], played  # the last comes when the song is there
