"""gunicorn's threaded worker, which goes on answering while it stops."""

from __future__ import annotations

import signal
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    from concurrent.futures import Future

    from serving.service import Service

MARGIN_S = 3
"""Of the grace: for answers to be read, connections to be closed and the interpreter to end."""
STALLED_S = 10
"""How long a client may be silent in the middle of a request, or not read its answer."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """On SIGTERM it says 503 to health and songs until what plays is done, and only then closes its door.

    gunicorn's own worker stops accepting at once: whoever connects then waits, and is cut off in the end.
    """

    @property
    def service(self) -> Service:
        service: Service = self.wsgi.extensions["service"]
        return service

    def run(self) -> None:
        for listener in self.sockets:  # connections inherit it; gunicorn has no such limit
            for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.sock.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", STALLED_S, 0))
        try:
            super().run()
        finally:  # SIGINT and SIGQUIT, or the master is gone
            self.service.close()

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

    def handle_exit(self, *_: Any) -> None:
        """SIGTERM. A signal handler takes no locks: the main loop goes on from here."""
        self.method_queue.defer(self._stop)

    def _stop(self) -> None:
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        self.service.stop(self.cfg.graceful_timeout - MARGIN_S)
        super().handle_exit(signal.SIGTERM, None)
