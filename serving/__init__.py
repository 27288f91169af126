"""An endpoint that plays: descriptions or prompts in, addresses of songs in the store out.

request ──`messages`──▶ what is wanted ──`service`──▶ songs in the store ──`app`──▶ answer. gunicorn runs one
process with the musician and a thread for each request (`config`, `worker`). It keeps Vertex AI's contract for
custom containers, and is the same thing on a laptop: ``melodify serve``.
"""

COMMAND = ("python", "-m", "gunicorn", "--config", "python:serving.config")
"""What the image runs, and `melodify serve`."""
