"""Django's entry to the app."""

import logging

from django.apps import AppConfig

from melodify_lib import logs
from melodify_lib.settings import Settings


class TracksConfig(AppConfig):
    name = "web.tracks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from web.tracks import schema  # noqa: F401 - which drf-spectacular finds when it is imported

        logs.configure(Settings.load())
        logging.getLogger("django.request").setLevel(logging.ERROR)  # `middleware` logs what was asked
        logging.getLogger("django.security.DisallowedHost").setLevel(logging.CRITICAL)  # every bot, with a traceback
