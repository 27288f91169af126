"""A song in a process of its own, for musicians who cannot be interrupted.

The arranger's synthesiser holds the interpreter's lock for seconds in a long song: on a thread it would keep health
checks and refusals waiting, and could not be stopped. A process can be killed when nobody waits for its song any more.
"""

from __future__ import annotations

import multiprocessing
import traceback
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from melodify_lib.errors import ModelError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from melodify_lib.nouns import MusicDescription
    from melodify_lib.stages import Musician

# Forked from a process that has imported what plays, and has no threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["melodify_lib.music.arranger.render", "melodify_lib.music.finish", "pyloudnorm"])


class Performance:
    """`Musician.play`, begun. It is over when its process is."""

    def __init__(self, musician: Musician, description: MusicDescription, seconds: float, seed: int) -> None:
        self._receiver, sender = _context.Pipe(duplex=False)
        self._process = _context.Process(
            target=_perform, args=(sender, musician, description, seconds, seed), daemon=True
        )
        self._is_cancelled = False
        self._process.start()
        sender.close()

    def result(self) -> dict[str, bytes]:
        """The track's files, ``card.json`` the last. Raises what `play` raised, `CancelledError`, `ModelError`."""
        try:
            outcome = self._receiver.recv()
        except EOFError:
            outcome = None
        finally:
            self._process.join()
            self._receiver.close()
        if outcome is None:
            if self._is_cancelled:
                raise CancelledError
            raise ModelError(f"the song's process ended with {self._process.exitcode}; memory may have run out")
        if isinstance(outcome, Exception):
            raise outcome
        files: dict[str, bytes] = outcome
        return files

    def cancel(self) -> None:
        self._is_cancelled = True
        self._process.kill()


def _perform(sender: Connection, musician: Musician, description: MusicDescription, seconds: float, seed: int) -> None:
    try:
        track = musician.play(description, seconds, seed)
    except Exception as error:
        error.add_note(traceback.format_exc())  # does not go through the pipe by itself
        sender.send(error)
    else:
        sender.send({**track.files, "card.json": track.card.to_json().encode()})
