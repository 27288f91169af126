"""gunicorn's configuration, read in its master process: nothing heavy is imported here, and no weights are loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from melodify_lib.errors import SettingsError
from melodify_lib.settings import Settings

try:
    _settings = Settings.load()
except SettingsError as error:
    sys.exit(f"error: {error}")

SPARE_THREADS = 16
"""For health, metrics and refusals while every song has a request that waits for it."""

wsgi_app = "serving.app:create_app()"
bind = f"0.0.0.0:{os.environ.get('AIP_HTTP_PORT') or 8080}"  # as Vertex AI's contract has it
workers = 1  # one engine; more would load the weights again
worker_class = "serving.worker.Worker"
threads = _settings.songs + _settings.waiting + SPARE_THREADS
worker_connections = threads + 1000
timeout = 120  # seconds in which the worker's main thread must be heard of; a library that loads may hold it up
keepalive = 65  # seconds; longer than what is in front keeps an idle connection, or it may write into a closed one
graceful_timeout = _settings.grace
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108, gunicorn's heartbeat: not on a disk
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "melodify_lib.logs.JsonFormatter", "settings": _settings}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["out"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
    },
}
