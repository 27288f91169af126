"""gunicorn's threaded worker, for servers that strangers reach: no client that is slow or silent holds it up."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    from concurrent.futures import Future

STALLED_S = 10
"""How long a client may be silent in the middle of a request, or not read its answer."""


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """A thread that reads from, or writes to, a client in silence gets an `OSError` after `STALLED_S`."""

    def run(self) -> None:
        for listener in self.sockets:  # connections inherit it; gunicorn has no such limit
            for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.sock.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", STALLED_S, 0))
        super().run()

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """gunicorn waits up to 2 s for a client to close its side, on the thread that accepts; not so here."""
        if not fs.cancelled() and fs.exception() is None and fs.result():  # the connection stays open
            super().finish_request(conn, fs)
            return
        self.nr_conns -= 1
        try:
            self.tpool.submit(conn.close, graceful=True)
        except RuntimeError:  # no more threads: the worker ends
            conn.close()
