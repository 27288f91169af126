"""Django's own commands: `python -m web migrate`, `python -m web check --deploy`."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "web.settings")
    execute_from_command_line(["python -m web", *sys.argv[1:]])
