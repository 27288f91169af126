"""A proxy that spoils: in front of a server that cannot be told to fail."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import requests

Fault = str | dict[str, Any] | threading.Event | None


class Proxy:
    """Forwards to `target`. Each request takes the first of `faults`, which says what becomes of it: None, a status
    with a body, an event until which it waits, or a word. One that answers None stays for the next request. `hit`
    counts what was spoilt.

    reset               the connection is reset before the request is forwarded
    cut the request     half of the request is forwarded, then both connections are closed
    damage the request  a byte of the request's body is another
    lose the answer     it is forwarded, and the connection reset instead of an answer
    cut the answer      half of the answer's body
    damage the answer   a byte of the answer's body is another
    not JSON            an answer that cannot be read
    trickle             a byte of the answer each tenth of a second
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.faults: list[Callable[[str, str], Fault]] = []
        self.hit = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, method: str, path: str) -> Fault:
        with self._lock:
            fault = self.faults[0](method, path) if self.faults else None
            if fault is not None:
                self.faults.pop(0)
                self.hit += 1
            return fault


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.take(self.command, self.path)
            if isinstance(fault, dict):
                text = json.dumps({"error": {"code": fault["status"], "message": fault.get("body", "no")}}).encode()
                headers = {"Retry-After": fault["retry_after"]} if "retry_after" in fault else {}
                self.reply(fault["status"], {**headers, "Content-Type": "application/json"}, text)
                return
            if isinstance(fault, threading.Event):
                fault.wait(60)
            if fault == "reset":
                self.reset()
                return
            if fault == "cut the request":
                self.send_half(body)
                self.reset()
                return
            if fault == "damage the request":
                body = body.replace(b"xxxx", b"xyxx", 1)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            answer = requests.request(
                self.command,
                proxy.target + self.path,
                headers={**headers, "Accept-Encoding": "identity"},
                data=body,
                timeout=60,
                allow_redirects=False,
            )
            if fault == "lose the answer":
                self.reset()
                return
            skipped = ("content-length", "transfer-encoding", "connection", "content-encoding", "date", "server")
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in skipped}
            if "Location" in kept:
                kept["Location"] = kept["Location"].replace(proxy.target, proxy.url)
            self.reply(answer.status_code, kept, answer.content, fault)

        def reply(self, status: int, headers: dict[str, str], body: bytes, fault: Fault = None) -> None:
            if fault == "not JSON":
                body = b"<html>" + body[6:]
            if fault == "damage the answer" and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "cut the answer":
                self.wfile.write(body[: len(body) // 2])
                self.reset()
                return
            if fault == "trickle":
                for index in range(len(body)):
                    time.sleep(0.1)
                    try:
                        self.wfile.write(body[index : index + 1])
                    except OSError:
                        return
                return
            self.wfile.write(body)

        def send_half(self, body: bytes) -> None:
            address = proxy.target.removeprefix("http://").split(":")
            with socket.create_connection((address[0], int(address[1]))) as server:
                head = f"{self.command} {self.path} HTTP/1.1\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                server.sendall(head.encode() + b"\r\n" + body[: len(body) // 2])

        def reset(self) -> None:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def finish(self) -> None:
            if self.connection.fileno() >= 0:
                super().finish()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    return Handler
