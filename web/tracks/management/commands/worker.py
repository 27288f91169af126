"""Make songs from the queue, and do what time asks for: `python -m web worker`."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import Error, close_old_connections, connection
from django.utils import timezone
from django_tasks_db.management.commands.db_worker import Worker as TaskWorker

from melodify_lib.errors import StoreError
from web.parent import end_with_parent
from web.tracks import jobs, work
from web.tracks.models import Worker

log = logging.getLogger("melodify_lib.web")

LOOK_EVERY_S = 0.2
EXPIRE_EVERY = 300
"""Rounds of the housekeeper between two looks for what is too old."""


class Command(BaseCommand):
    """One worker: one song at a time."""

    help = "Make songs from the queue, hand on those of lost workers, delete what is too old."

    def handle(self, **options: Any) -> None:
        worker = TaskWorker(
            queue_names=["default"],
            interval=LOOK_EVERY_S,
            batch=False,
            backend_name="default",
            startup_delay=False,
            max_tasks=None,
            worker_id=secrets.token_hex(16),
            excluded_queue_names=[],
        )

        def stop(number: int, frame: FrameType | None) -> None:
            work.stop_within(settings.CONFIG.grace * 0.6)
            worker.shutdown(number, frame)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        end_with_parent()
        os.nice(5)  # where pages and songs share processors, pages go first
        work.warm_up()
        over = threading.Event()
        house = threading.Thread(target=keep_house, args=(worker.worker_id, over), name="housekeeper", daemon=True)
        house.start()
        try:
            worker.run()
        finally:
            over.set()
            house.join(timeout=5)
            Worker.objects.filter(id=worker.worker_id).delete()


def keep_house(worker_id: str, over: threading.Event) -> None:
    """Signs of life, lost workers' songs, old tracks; until the worker ends."""
    for number in itertools.count():
        close_old_connections()
        _try(lambda: Worker.objects.update_or_create(id=worker_id, defaults={"heartbeat": timezone.now()}))
        _try(jobs.reap)
        if number % EXPIRE_EVERY == 0:
            _try(jobs.expire)
            _try(Worker.objects.filter(heartbeat__lt=timezone.now() - timedelta(days=1)).delete)
        if over.wait(settings.CONFIG.heartbeat):
            connection.close()
            return


def _try(chore: Callable[[], Any]) -> None:
    """One that fails keeps no other from being done."""
    try:
        chore()
    except (Error, StoreError):
        log.warning("housekeeping failed; it is tried again", exc_info=True)
    except Exception:
        log.exception("housekeeping failed; it is tried again")
