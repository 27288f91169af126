"""gunicorn's configuration for pages and API, read in its master process."""

from __future__ import annotations

from pathlib import Path

from melodify_lib import logs
from melodify_lib.settings import Settings
from web.config import Config
from web.parent import end_with_parent

_config = Config.load()
logs.configure(Settings.load())

wsgi_app = "web.wsgi"
workers = 1  # its memory counts clients' requests (settings.CACHES), and one picture is read at a time (limits.py)
worker_class = "melodify_lib.gunicorn_worker.PatientWorker"
threads = _config.threads
worker_connections = threads + 440  # with a file for some and a database for each thread still below 1,024 open files
timeout = 60  # seconds in which the worker's main thread must be heard of
keepalive = 5  # seconds
graceful_timeout = max(1, int(_config.grace * 0.8))  # whole seconds, and before `web.server` loses its patience
forwarded_allow_ips = "*" if _config.proxies else "127.0.0.1"
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108, gunicorn's heartbeat: not on a disk
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {},  # as `logs.configure` has it
    "loggers": {
        "gunicorn.error": {"level": "WARNING", "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
    },
}


def on_starting(arbiter: object) -> None:
    """In the master, before it forks."""
    end_with_parent()
