"""Django's own commands: `python -m web migrate`, `python -m web check --deploy`."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "web.settings")
    if sys.argv[1:2] == ["migrate"]:  # before the first start: where SQLite's file is to be, there may be no folder yet
        from django.conf import settings

        settings.CONFIG.folder.mkdir(parents=True, exist_ok=True)
    execute_from_command_line(["python -m web", *sys.argv[1:]])
