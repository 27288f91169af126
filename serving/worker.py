"""gunicorn's threaded worker, which goes on answering while it stops."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from melodify_lib.gunicorn_worker import PatientWorker

if TYPE_CHECKING:
    from serving.service import Service

MARGIN_S = 3
"""Of the grace: for answers to be read, connections to be closed and the interpreter to end."""


class Worker(PatientWorker):
    """On SIGTERM it says 503 to health and songs until what plays is done, and only then closes its door.

    gunicorn's own worker stops accepting at once: whoever connects then waits, and is cut off in the end.
    """

    @property
    def service(self) -> Service:
        service: Service = self.wsgi.extensions["service"]
        return service

    def run(self) -> None:
        try:
            super().run()
        finally:  # SIGINT and SIGQUIT, or the master is gone
            self.service.close()

    def handle_exit(self, *_: Any) -> None:
        """SIGTERM. A signal handler takes no locks: the main loop goes on from here."""
        self.method_queue.defer(self._stop)

    def _stop(self) -> None:
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        self.service.stop(self.cfg.graceful_timeout - MARGIN_S)
        super().handle_exit(signal.SIGTERM, None)
