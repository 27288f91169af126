"""An endpoint that plays: descriptions or prompts in, addresses of songs in the store out.

request ──`messages`──▶ what is wanted ──`service`──▶ songs in the store ──`app`──▶ answer. gunicorn runs one
process with the musician and a thread for each request (`config`, `worker`). It keeps Vertex AI's contract for
custom containers, and is the same thing on a laptop: ``melodify serve``.
"""

import sys

COMMAND = ("python", "-m", "gunicorn", "--config", "python:serving.config")
"""What the image runs."""


def command(host: str, port: int) -> list[str]:
    """The same under this interpreter, at another address."""
    return [sys.executable, *COMMAND[1:], "--bind", f"{host}:{port}"]
