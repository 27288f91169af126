"""gunicorn's threaded worker, for servers that strangers reach: no client that is slow or silent holds it up.

gunicorn gives a thread to whoever connects. Here the main loop, which waits for all connections at once, reads a
request until a thread can go on without waiting for its client: all of the head, and the body where that is small.
Larger bodies are read by threads, half of them at most, so that the others are there for all that is not an upload;
and while somebody waits for one of those, who sends too slowly loses it. No thread waits for a client to read: what of
an answer is not taken at once, the main loop sends as it is, from memory or from its file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import IO, TYPE_CHECKING, Any

from gunicorn.http import get_parser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    from concurrent.futures import Future

STALLED_S = 10
"""How long a client may be silent in the middle of a request."""
HEAD_S = 10.0
"""In which a request's head has to come, however it drips."""
BODY_S = 30.0
"""In which its body has to come, with what `SLOWEST` adds."""
PRESSED_S = 3.0
"""The same, while others wait for the thread."""
SLOWEST = 50_000
"""Bytes a second: so much of a body buys its client another second."""
SMALL = 2**16
"""Bytes of a request that are read without a thread."""
IN_LINE_S = 30.0
"""How long an upload waits for a thread."""
ANSWER_S = 10.0
"""In which an answer has to be read, with what `SLOWEST_READER` adds."""
SLOWEST_READER = 8_000
"""Bytes a second: so much that is taken of an answer buys its client another second."""
READERS = 0.25
"""Of all connections, those that may have an answer under way; of more, the one whose time ends first is cut off."""
LINGER_S = 2.0
"""How long a client is waited for that does not close its side."""

_SWEEP_S = 0.25
_AT_ONCE = 2**18
"""Bytes that are sent before others have their turn."""
_AHEAD = 2**17
"""Bytes that the system takes beyond what a client is ready for: else it would hold megabytes for each."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_UNTOLD = re.compile(rb"\r\n(?:transfer-encoding|expect):", re.IGNORECASE)


def _answer(status: str, said: str, more: str = "") -> bytes:
    """To who never comes to speak with the application."""
    body = json.dumps({"error": said})
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{kind}{more}\r\n{body}".encode()


_BUSY = _answer("503 Service Unavailable", "many uploads are under way; try again soon", "Retry-After: 10\r\n")
_TIMEOUT = _answer("408 Request Timeout", "the request did not come in time")


@dataclass
class _Rest:
    """What is not sent yet of bytes or of a file."""

    source: bytes | IO[bytes]
    at: int
    end: int

    def send(self, sock: socket.socket) -> int:
        """How many bytes went. Raises `BlockingIOError` where none can now."""
        count = min(self.end - self.at, _AT_ONCE)
        if isinstance(self.source, bytes):
            sent = socket.socket.send(sock, memoryview(self.source)[self.at : self.at + count])
        else:
            sent = os.sendfile(sock.fileno(), self.source.fileno(), self.at, count)
            if not sent:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the file is shorter than it was")
        self.at += sent
        return sent


class _Client(socket.socket):
    """A connection on which nobody waits to send: what is not taken at once is kept in `rest`, for the main loop.

    An answer that is no file is kept in memory, where the application had it whole.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.rest: deque[_Rest] = deque()
        self.until = 0.0  # (monotonic) by when its client has to have taken more

    def sendall(self, data: Any, flags: int = 0) -> None:
        sent = 0
        if not self.rest:
            with suppress(BlockingIOError):
                sent = super().send(data, flags | socket.MSG_DONTWAIT)
        if sent < len(data):
            self.rest.append(_Rest(bytes(data), sent, len(data)))

    def send(self, data: Any, flags: int = 0) -> int:
        self.sendall(data, flags)
        return len(data)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        assert count is not None  # noqa: S101 - gunicorn says it
        self.rest.append(_Rest(os.fdopen(os.dup(file.fileno()), "rb", buffering=0), offset, offset + count))
        return count

    def send_more(self) -> None:
        """Of the rest, what its client takes now. Raises `OSError` where it is gone."""
        part = self.rest[0]
        with suppress(BlockingIOError):
            self.until += part.send(self) / SLOWEST_READER
        if part.at == part.end:
            self._end(self.rest.popleft())

    def close(self) -> None:
        while self.rest:
            self._end(self.rest.popleft())
        super().close()

    @staticmethod
    def _end(part: _Rest) -> None:
        if not isinstance(part.source, bytes):
            part.source.close()


class _Reader(SocketUnreader):  # type: ignore[misc]
    """What came of a connection; a thread reads the rest through it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.is_cut = False
        self.since: float | None = None  # (monotonic) a thread waits for the client now
        self.begin()

    def begin(self) -> None:
        """A request."""
        self.began = time.monotonic()
        self.until = self.began + HEAD_S  # where the main loop waits
        self.received, self.waited = 0, 0.0  # bytes that a thread read, seconds in which it waited for them

    def chunk(self, size_hint: int | None = None) -> bytes:
        self.since = time.monotonic()
        try:
            data: bytes = super().chunk(size_hint)
        except BlockingIOError:  # what a time limit of the socket looks like
            raise ConnectionResetError(errno.ECONNRESET, "the client is silent") from None
        finally:
            self.waited += time.monotonic() - self.since
            self.since = None
        if self.is_cut:
            raise ConnectionResetError(errno.ECONNRESET, "the client is too slow")
        self.received += len(data)
        return data

    def more(self, data: bytes) -> None:
        self.buf.seek(0, 2)
        self.buf.write(data)

    def missing(self) -> tuple[bool, int | None]:
        """Is the head all there? And of the body, how many bytes are not; None where that cannot be told."""
        came: bytes = self.buf.getvalue().removeprefix(b"\r\n")
        end = came.find(b"\r\n\r\n")
        if end < 0:
            return False, None
        head = came[: end + 2]
        if _UNTOLD.search(head):
            return True, None
        length = _LENGTH.search(head)
        return True, max(0, int(length[1]) - (len(came) - end - 4)) if length else 0

    def cut(self) -> None:
        self.is_cut = True
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # whoever waits for it is woken

    def is_slow(self, patience: float, now: float) -> bool:
        since = self.since
        return since is not None and self.waited + now - since > patience + self.received / SLOWEST


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """A thread that reads from a client in silence gets an `OSError` after `STALLED_S`, no client that only drips has
    a thread for longer than it takes to see that, and none has one to read its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._coming: dict[Any, None] = {}  # connections whose request the main loop reads
        self._line: deque[Any] = deque()  # those that wait for a thread to read their body
        self._uploads: set[Any] = set()  # those that have one
        self._answering: dict[Any, Future[Any]] = {}  # those that did not take all of their answer yet
        self._leaving: dict[Any, float] = {}  # those that are closed, once the client is done or at this time
        self._swept = 0.0

    def run(self) -> None:
        for listener in self.sockets:  # connections inherit it; gunicorn has no such limit
            listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", STALLED_S, 0))
            with suppress(OSError):  # no TCP
                listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _AHEAD)
        super().run()

    def enqueue_req(self, conn: Any) -> None:
        """A connection is new, or has begun another request."""
        if conn.parser is None:
            conn.sock = _Client(conn.sock)
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = _Reader(conn.sock)
            conn.data_ready = True  # gunicorn would wait for it, in the thread
        reader = conn.parser.unreader
        reader.begin()
        conn.sock.setblocking(False)
        while self.nr_conns >= self.worker_connections and self._coming:  # nobody could connect
            self._drop(next(iter(self._coming)))
        self._coming[conn] = None
        self.poller.register(conn.sock, EVENT_READ, partial(self._read, conn))
        self._read(conn)

    def _read(self, conn: Any, _: object = None) -> None:
        if conn not in self._coming:  # dropped a moment ago, to make room
            return
        reader = conn.parser.unreader
        try:
            data = conn.sock.recv(SMALL)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        reader.more(data or b"")
        has_head, missing = reader.missing()
        if has_head and missing == 0:
            self._leave_poller(conn)
            super().enqueue_req(conn)
        elif data == b"":
            self._drop(conn)
        elif len(reader.buf.getvalue()) + (missing or 0) > SMALL or (has_head and missing is None):
            self._leave_poller(conn)
            reader.until = time.monotonic() + IN_LINE_S
            self._line.append(conn)
            self._next_upload()
        elif has_head:
            reader.until = min(reader.began + BODY_S, time.monotonic() + STALLED_S)

    def _next_upload(self) -> None:
        while self._line and len(self._uploads) < max(1, self.cfg.threads // 2):
            conn = self._line.popleft()
            self._uploads.add(conn)
            super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """gunicorn waits up to 2 s for a client to close its side, on the thread that accepts; not so here."""
        self._uploads.discard(conn)
        self._next_upload()
        if not conn.sock.rest:
            self._answered(conn, fs)
            return
        conn.sock.setblocking(False)
        self._answering[conn] = fs
        self.poller.register(conn.sock, EVENT_WRITE, partial(self._write, conn))
        self._write(conn)
        conn.sock.until = time.monotonic() + ANSWER_S  # what the system took by itself buys nothing
        if len(self._answering) > READERS * self.worker_connections:
            self._cut(min(self._answering, key=lambda one: one.sock.until))

    def _write(self, conn: Any, _: object = None) -> None:
        if conn not in self._answering:  # cut off a moment ago, to make room
            return
        try:
            conn.sock.send_more()
        except OSError:
            self._drop(conn)
            return
        if not conn.sock.rest:
            fs = self._answering[conn]
            self._leave_poller(conn)
            self._answered(conn, fs)

    def _answered(self, conn: Any, fs: Future[Any]) -> None:
        if not fs.cancelled() and fs.exception() is None and fs.result():  # the connection stays open
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def murder_pending(self) -> None:
        """What the main loop does again and again: end what takes too long."""
        now = time.monotonic()
        if now - self._swept < _SWEEP_S:
            return
        self._swept = now
        for conn in list(self._coming):
            reader = conn.parser.unreader
            if now > (reader.until if self.alive else min(reader.until, now + LINGER_S)):
                self.log.debug("A request did not come in time")
                self._leave_poller(conn)
                self._linger(conn, _TIMEOUT if reader.buf.getvalue() else b"")
        while self._line and now > self._line[0].parser.unreader.until:
            self._linger(self._line.popleft(), _BUSY)
        patience = PRESSED_S if self._line else BODY_S
        for conn in self._uploads:
            if conn.parser.unreader.is_slow(patience, now):
                self.log.debug("A body came too slowly")
                conn.parser.unreader.cut()
        for conn in [one for one in self._answering if now > one.sock.until]:
            self._cut(conn)
        for conn, until in list(self._leaving.items()):
            if now > until:
                self._forget(conn)

    def _cut(self, conn: Any) -> None:
        """End an answer that is read too slowly; what the system holds of it goes too."""
        self.log.debug("An answer was read too slowly")
        with suppress(OSError):
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(conn)

    def _drop(self, conn: Any) -> None:
        self._leave_poller(conn)
        self.nr_conns -= 1
        conn.close()

    def _leave_poller(self, conn: Any) -> None:
        self._coming.pop(conn, None)
        self._answering.pop(conn, None)
        with suppress(KeyError, ValueError, OSError):
            self.poller.unregister(conn.sock)

    def _linger(self, conn: Any, answer: bytes = b"") -> None:
        """Say that this was all, and read what still comes: else an answer that was not read yet would be lost."""
        try:
            conn.sock.setblocking(False)
            if answer:
                conn.sock.send(answer)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, EVENT_READ, partial(self._ignore, conn))
        except (OSError, ValueError, KeyError):
            self.nr_conns -= 1
            conn.close()
            return
        self._leaving[conn] = time.monotonic() + LINGER_S

    def _ignore(self, conn: Any, _: object = None) -> None:
        try:
            is_over = not conn.sock.recv(SMALL)
        except BlockingIOError:
            return
        except OSError:
            is_over = True
        if is_over:
            self._forget(conn)

    def _forget(self, conn: Any) -> None:
        del self._leaving[conn]
        self._drop(conn)
