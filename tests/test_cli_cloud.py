"""The command line in the cloud profile, as a process, against the servers on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from emulators.cloud import Cloud
from melodify_lib.nouns import MusicDescription, TrackCard

MUSIC = MusicDescription(
    description="A calm tune.", genre="jazz", bpm=100, key="C major", moods=("calm",), instruments=("piano",)
)
LOUD = """
import logging
from melodify_lib import cli, logs
configure = logs.configure
def loud(*arguments, **more):
    configure(*arguments, **more)
    for name in (None, *logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.DEBUG)
logs.configure = loud
cli.main()
"""
"""`melodify` with everything logged that any library has to say."""


def melodify(*arguments: object, stdin: str = "") -> tuple[str, str]:
    environment = {**os.environ, "OPENAI_LOG": "debug", "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google"}
    command = [sys.executable, "-c", LOUD, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_caption_and_a_clip_are_bought_and_no_log_has_a_key(gcp: Cloud, photograph: Path, tmp_path: Path) -> None:
    seen, said = melodify("caption", photograph, "--json")
    assert json.loads(seen)["source"] == "openai" and len(gcp.openai.served()) == 1
    play = ("play", "-", "--musician", "lyria", "--seconds", 4, "--out", tmp_path, "--json")
    played, more = melodify(*play, stdin=MUSIC.to_json())
    card = TrackCard.from_json(played)
    assert (card.musician.name, card.watermark, gcp.vertex.clips) == ("lyria", "SynthID", 1)
    described, rest = melodify("describe", "-", "--json", stdin="A cat asleep by a fire.\n")
    assert MusicDescription.parse(described)
    logged = said + more + rest
    assert "DEBUG" in logged.upper() and "generateContent" in logged
    for name in ("MELODIFY_OPENAI_API_KEY", "MELODIFY_ACCESS_TOKEN"):
        assert gcp.environment[name] not in logged + seen + played + described
