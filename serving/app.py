"""HTTP: Vertex AI's routes for custom containers, metrics, and errors as JSON."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from typing import Any

from flask import Flask, Response, g, jsonify, request
from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import ParseException
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge

from melodify_lib.errors import MelodifyError
from melodify_lib.logs import TRACE, trace_of
from melodify_lib.settings import Settings
from serving.messages import BODY_MAX_BYTES, RETRY_AFTER_S, Refusal
from serving.metrics import Metrics
from serving.service import Service

log = logging.getLogger(__name__)


def create_app() -> Flask:
    """The application of the environment's settings. The musician is loaded meanwhile, on a thread."""
    settings = Settings.load(checkpoint=os.environ.get("AIP_STORAGE_URI") or None)
    metrics = Metrics()
    service = Service(settings, metrics)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = BODY_MAX_BYTES + 1
    app.extensions["service"] = service
    predict_route = os.environ.get("AIP_PREDICT_ROUTE") or "/predict"

    @app.before_request
    def begin() -> None:
        g.arrived = time.monotonic()
        TRACE.set(trace_of(dict(request.headers)))

    @app.get(os.environ.get("AIP_HEALTH_ROUTE") or "/health")
    def health() -> tuple[Response, int]:
        return jsonify(status=service.state), 200 if service.state == "ready" else 503

    @app.post(predict_route)
    def predict() -> Response:
        try:
            data = request.get_data()
        except ClientDisconnected:
            raise Refusal(408, "the body stopped coming; send it without a pause") from None
        except ParseException as error:
            raise Refusal(400, f"the body cannot be read: {error}") from None
        if len(data) > BODY_MAX_BYTES:  # where werkzeug cuts off a body of unknown length
            raise RequestEntityTooLarge
        connection: socket.socket = request.environ["gunicorn.socket"]
        return jsonify(predictions=service.predict(data, g.arrived, lambda: _is_gone(connection)))

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)

    @app.after_request
    def end(response: Response) -> Response:
        if response.status_code == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        if request.path == predict_route:
            metrics.requests.labels(response.status_code).inc()
            _log(response)
        return response

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        TRACE.set("")  # the thread takes up another request

    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _failed)
    threading.Thread(target=_load, args=(service,), name="load", daemon=True).start()
    return app


def _load(service: Service) -> None:
    """Load the musician; a server that cannot is no server, and gunicorn's master ends with it."""
    try:
        service.load()
    except MelodifyError as error:
        log.critical("cannot load the musician: %s", error)
    except Exception:
        log.critical("cannot load the musician", exc_info=True)
    else:
        return
    logging.shutdown()
    os._exit(Arbiter.WORKER_BOOT_ERROR)


def _is_gone(connection: socket.socket) -> bool:
    """Has the client closed the connection, or its sending side? Whatever it sent before."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    try:
        return bool(poll.poll(0))
    except OSError:
        return True


def _error(status: int, message: str, field: str = "") -> Response:
    error: dict[str, Any] = {"code": status, "message": message}
    response = jsonify(error=error | ({"field": field} if field else {}))
    response.status_code = status
    return response


def _refused(refusal: Refusal) -> Response:
    g.problem = str(refusal)
    return _error(refusal.status, str(refusal), refusal.field)


def _http_error(error: HTTPException) -> Response:
    message = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        message = f"the body is longer than {BODY_MAX_BYTES:,} bytes; ask for fewer songs in a request"
    response = _error(error.code or 500, message)
    response.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    return response


def _failed(error: Exception) -> Response:
    log.error("the request failed", exc_info=error)
    return _error(500, "the server failed; its log says why")


def _log(response: Response) -> None:
    status = response.status_code
    level = logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
    latency = time.monotonic() - g.arrived
    http = {
        "requestMethod": request.method,
        "requestUrl": request.path,
        "status": status,
        "requestSize": str(request.content_length or 0),
        "responseSize": str(response.content_length or 0),
        "latency": f"{latency:.3f}s",
    }
    message = f"{request.method} {request.path} {status} in {latency:.2f} s"
    if "problem" in g:
        message += f": {g.problem}"
    log.log(level, "%s", message, extra={"fields": {"httpRequest": http}})
