"""Django, set up for tests in this process: import this before anything of `web`.

The database is SQLite in a temporary folder, or what TEST_DATABASE_URL names.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import django
from django.conf import settings
from PIL import Image

FOLDER = Path(tempfile.mkdtemp(prefix="melodify-web-"))
(FOLDER / "static").mkdir()  # WhiteNoise warns where it is missing; nothing is collected into it
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def _set_up() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("WEB_", "MELODIFY_", "DATABASE"))
    }
    given = {"DJANGO_SETTINGS_MODULE": "web.settings", "WEB_FOLDER": str(FOLDER)}
    if url := os.environ.get("TEST_DATABASE_URL"):
        given["DATABASE_URL"] = url
    with mock.patch.dict(os.environ, plain | given, clear=True):
        django.setup()
    # In a file: SQLite in memory has no writers that wait for each other.
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = "test_melodify" if url else FOLDER / "test.sqlite3"
    # So pages name static files as they are, without a manifest.
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    root.handlers[:] = handlers  # other tests have theirs
    root.setLevel(level)


_set_up()


def picture(colour: str = "navy", size: tuple[int, int] = (64, 48)) -> bytes:
    """A PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def configure(**changes: Any) -> Any:
    """The configuration of the web application with these `changes`, for `settings.CONFIG`."""
    return settings.CONFIG.model_copy(update=changes)
