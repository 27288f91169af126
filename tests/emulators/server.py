"""What the emulators share: routes over a threaded HTTP server on 127.0.0.1, a log, and faults on demand."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """What a client sent; `status` is what it got, 0 while it waits or when the connection was dropped."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any
    status: int = 0


@dataclass(frozen=True)
class Reply:
    """What a client gets."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request is not one that the service takes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


DROP = "drop"
"""A fault: the connection is closed without an answer."""
HANG = "hang"
"""A fault: no answer until the emulator is released; then the connection is closed."""
Fault = Reply | str


def route(method: str, pattern: str) -> Callable[[Any], Any]:
    """Marks a method of an emulator as the handler of a path; named groups of `pattern` become its arguments."""

    def mark(handler: Any) -> Any:
        handler.route = (method, re.compile(pattern))
        return handler

    return mark


class Emulator:
    """A service. `log` has all requests in order of arrival; `most_at_once` is how many were open together."""

    def __init__(self) -> None:
        self.log: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.pause_s = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._routes = [
            (*member.route, getattr(self, name))
            for name in dir(type(self))
            if hasattr(member := getattr(type(self), name), "route")
        ]
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self) -> None:
        """Let go of the requests that hang."""
        self._released.set()
        self._released = threading.Event()

    def served(self) -> list[Request]:
        """The requests that were answered, and so are billed."""
        return [request for request in self.log if request.status == 200]

    def error(self, status: int, message: str) -> Any:
        """The body of an error, in the service's form."""
        raise NotImplementedError

    def answer(self, request: Request) -> Reply | None:
        """The reply, or None to drop the connection."""
        with self._lock:
            self.log.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            released = self._released
        try:
            fault = self.fault(request)
            if fault == HANG:
                released.wait(60)
                return None
            if fault == DROP:
                return None
            if isinstance(fault, Reply):
                return fault
            if self.pause_s:
                released.wait(self.pause_s)
            return self._route(request)
        except Refused as refused:
            return Reply(self.error(refused.status, str(refused)), refused.status)
        finally:
            with self._lock:
                self._at_once -= 1

    def _route(self, request: Request) -> Reply:
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                body = handler(request, **match.groupdict())
                return body if isinstance(body, Reply) else Reply(body)
        raise Refused(404, f"no route {request.method} {request.path}")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _read(kind: str, data: bytes) -> Any:
    if kind.startswith("multipart/"):
        return data
    return json.loads(data) if data else None


def _handler(emulator: Emulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        wbufsize = -1  # headers and body in one packet, or the client waits for its own acknowledgement

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            address = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            if len(data) < length:  # the client was killed while it sent
                self.close_connection = True
                return
            request = Request(
                self.command,
                unquote(address.path),
                parse_qs(address.query),
                {name.lower(): value for name, value in self.headers.items()},
                _read(self.headers.get_content_type(), data),
            )
            reply = emulator.answer(request)
            if reply is None:
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                request.status = reply.status  # before the client can see the answer, or the log would lag behind it
                self.wfile.write(body)
                self.wfile.flush()
            except OSError:  # the client is gone
                request.status = 0
                self.close_connection = True

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    return Handler
