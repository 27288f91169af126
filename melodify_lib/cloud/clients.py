"""Clients of the services that cost money, built from settings: the only place that holds keys and addresses.

A client is refused unless `Settings.allow_paid` is on. Addresses come from the settings alone, so the
same code reaches a public service or one on this machine: each client is told where to go, or else a
variable of the environment that it reads by itself would send the token elsewhere. None repeats a
request by itself: that is for `melodify_lib.cloud.retry`.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from pydantic import ValidationError

from melodify_lib.cloud import retry
from melodify_lib.errors import CloudError, MissingDependencyError, PaidError, SettingsError, install
from melodify_lib.logs import redact

if TYPE_CHECKING:
    from google import genai
    from google.auth.credentials import Credentials
    from google.cloud import storage
    from openai import AsyncOpenAI, OpenAI

    from melodify_lib.settings import Settings

Client = TypeVar("Client")
T = TypeVar("T")

_NOT_FOUND, _TOO_MANY = 404, 429
_ADDRESS = re.compile(r"^[A-Z]+ https?://\S+: ")  # what Google's clients put before what the service said
_MULTI_REGIONS = ("eu", "us")
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,62}")
_LONGEST_PAUSE_S = 86_400.0
EXTRA = f"the cloud needs an extra: {install('cloud')}"


def openai(settings: Settings) -> OpenAI:
    """OpenAI's client; its connections are closed when it is let go. Raises as `async_openai`."""
    client: OpenAI = _openai(settings, "OpenAI")
    # It lies in a circle of references: left to itself, its sockets may be collected before it can close them.
    finalize(client, client._client.close)
    return client


def async_openai(settings: Settings) -> AsyncOpenAI:
    """The same for many requests at a time; to be closed by its user, in the event loop that it was used in.

    Raises `PaidError`, or `SettingsError` where the key is missing.
    """
    client: AsyncOpenAI = _openai(settings, "AsyncOpenAI")
    return client


def _openai(settings: Settings, kind: str) -> Any:
    require_paid(settings, f"OpenAI ({settings.openai_model})")
    try:
        import openai
    except ModuleNotFoundError as error:
        raise MissingDependencyError(EXTRA) from error
    key = settings.openai_api_key
    try:
        return getattr(openai, kind)(
            api_key=key.get_secret_value() if key else _secret(settings),
            base_url=settings.openai_base_url or "https://api.openai.com/v1",
            timeout=retry.TIMEOUT_S,
            max_retries=0,
        )
    except openai.OpenAIError:
        raise SettingsError("no key for OpenAI: set OPENAI_API_KEY or MELODIFY_OPENAI_API_KEY") from None


def _secret(settings: Settings) -> str | None:
    """OpenAI's key from Secret Manager, which has no client here; None where there is none, or it is not needed."""
    if not settings.openai_secret or "OPENAI_API_KEY" in os.environ:
        return None
    base = settings.secret_manager_base_url or "https://secretmanager.googleapis.com"

    address = f"{base}/v1/{settings.openai_secret}:access"
    answer = ask_google(settings, lambda: _call(settings, "Secret Manager", "GET", address), service="Secret Manager")
    with readable("Secret Manager"):
        return base64.b64decode(answer["payload"]["data"], validate=True).decode()


def gemini(settings: Settings) -> genai.Client:
    """The client of Gemini on Vertex AI; its connections are closed when it is let go, as in `openai`.

    Raises `PaidError`, or `SettingsError` where the project is missing.
    """
    require_paid(settings, f"Gemini on Vertex AI ({settings.gemini_model})")
    project = _project(settings)
    try:
        from google import genai
        from google.genai import types
    except ModuleNotFoundError as error:
        raise MissingDependencyError(EXTRA) from error
    client = genai.Client(
        vertexai=True,
        project=project,
        location=settings.location,
        credentials=_credentials(settings),
        http_options=types.HttpOptions(
            base_url=_vertex_address(settings),
            api_version="v1",
            timeout=int(retry.TIMEOUT_S * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )
    finalize(client, client._api_client.close)
    return client


def storage_client(settings: Settings) -> storage.Client:
    """The client of Cloud Storage. Raises `PaidError`, or `SettingsError` where the project is missing."""
    require_paid(settings, "Cloud Storage")
    project = _project(settings)
    try:
        from google.cloud import storage
    except ModuleNotFoundError as error:
        raise MissingDependencyError(EXTRA) from error
    # Or else it looks the bucket up beside each first request, on a thread of its own with retries of its own, for
    # traces that nobody asked for, and needs a right (storage.buckets.get) that a user of objects lacks.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    options = {"api_endpoint": storage_address(settings)}
    with google_errors(settings, "Cloud Storage"):  # no Application Default Credentials
        return storage.Client(project=project, credentials=_credentials(settings), client_options=options)


def storage_address(settings: Settings) -> str:
    """Where Cloud Storage is."""
    return settings.gcs_base_url or "https://storage.googleapis.com"


def vertex(settings: Settings, service: Callable[..., Client], *, address: str | None = None) -> Client:
    """A client of one of Vertex AI's services, such as `google.cloud.aiplatform_v1.ModelServiceClient`. Over REST.

    `address` is that of a dedicated endpoint, or of another service with clients of this kind.
    Raises `PaidError`, or `SettingsError` where the project is missing.
    """
    require_paid(settings, "Vertex AI")
    _project(settings)
    options: dict[str, Any] = {"api_endpoint": address or _vertex_address(settings)}
    with google_errors(settings):  # no Application Default Credentials
        return service(credentials=_credentials(settings), transport="rest", client_options=options)


def parent(settings: Settings) -> str:
    """Name of the project's place, under which Vertex AI's resources are."""
    return f"projects/{_project(settings)}/locations/{settings.location}"


def post_iam(settings: Settings, address: str, method: str, body: Mapping[str, Any]) -> Any:
    """What IAM's service at `address` answers to a `method` of the settings' service account: JSON.

    It has no client here. Asked once, for `ask_google`. Raises `PaidError`, and `CloudError` where it refuses or cannot
    be read.
    """
    account = f"{address}/v1/projects/-/serviceAccounts/{settings.service_account}"
    return _call(settings, "IAM", "POST", f"{account}:{method}", body)


def _call(settings: Settings, service: str, verb: str, address: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON that a service without a client here answers; asked once."""
    require_paid(settings, service)
    try:
        import google.auth
        from google.auth.transport.requests import AuthorizedSession
    except ModuleNotFoundError as error:
        raise MissingDependencyError(EXTRA) from error
    credentials = _credentials(settings)
    if credentials is None:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    with AuthorizedSession(credentials) as session:  # type: ignore[no-untyped-call]
        answer = session.request(verb, address, json=body, timeout=retry.TIMEOUT_S)
    if not answer.ok:
        raise refusal(service, answer.status_code, answer.text, answer.headers, settings, _reason(answer.text))
    with readable(service):
        return answer.json()


@contextmanager
def openai_errors(settings: Settings) -> Iterator[None]:
    """Whatever OpenAI's client raises inside, as `CloudError`; no key is in its message."""
    from openai import APIConnectionError, APIStatusError, OpenAIError

    try:
        yield
    except APIConnectionError as error:  # a timeout is one too
        raise CloudError(
            f"OpenAI did not answer: {error.message} Check the network and openai_base_url",
            # By name: which HTTP library is below depends on the client's version. A closed client raises RuntimeError.
            is_unsent=type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "RuntimeError"),
        ) from None
    except APIStatusError as error:
        if error.code == "insufficient_quota":  # a 429 that no waiting mends
            raise CloudError("OpenAI says that the account's quota is used up; check its plan", status=402) from None
        message = error.body.get("message") if isinstance(error.body, Mapping) else None
        raise refusal("OpenAI", error.status_code, message, error.response.headers, settings) from None
    except (OpenAIError, JSONDecodeError) as error:
        raise _unreadable("OpenAI", error, is_paid=True) from None


@contextmanager
def google_errors(settings: Settings, service: str = "Vertex AI", *, is_paid: bool = False) -> Iterator[None]:
    """Whatever Google's clients raise inside, as `CloudError`; no token is in its message."""
    import httpx
    import requests
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from google.genai.errors import APIError, UnknownApiResponseError
    from google.protobuf.json_format import ParseError

    try:
        yield
    except GoogleAuthError as error:
        renew = (
            "set a new MELODIFY_ACCESS_TOKEN"
            if settings.access_token
            else "run `gcloud auth application-default login`"
        )
        raise CloudError(f"{service}: no valid credentials ({type(error).__name__}); {renew}", status=401) from None
    except APIError as error:
        headers = getattr(error.response, "headers", None) or {}
        raise refusal(service, error.code, error.message, headers, settings, _reason(error.details)) from None
    except GoogleAPICallError as error:
        headers = getattr(error.response, "headers", None) or {}
        reason = _reason({"error": {"details": error.details, "errors": error.errors}})
        raise refusal(service, int(error.code or 500), error.message, headers, settings, reason) from None
    except DataCorruption:
        raise CloudError(f"{service}: what was sent did not arrive whole; try again") from None
    except (UnknownApiResponseError, ValidationError, JSONDecodeError, ParseError) as error:
        raise _unreadable(service, error, is_paid) from None
    except requests.HTTPError as error:  # of KFP's client of Artifact Registry
        answer = error.response
        raise refusal(
            service, answer.status_code, answer.text, answer.headers, settings, _reason(answer.text)
        ) from None
    except (httpx.TransportError, requests.RequestException, RetryError) as error:
        raise CloudError(
            f"{service} did not answer ({type(error).__name__}); check the network",
            is_unsent=isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)),
        ) from None


def ask_google(
    settings: Settings,
    request: Callable[[], T],
    *,
    service: str = "Vertex AI",
    is_repeatable: bool = True,
    is_paid: bool = False,
    timeout: float | None = None,
    deadline: float | None = None,
) -> T:
    """`retry.ask` for one of Google's clients. Raises `CloudError`."""

    def once() -> T:
        with readable(service, is_paid=is_paid), google_errors(settings, service, is_paid=is_paid):
            return request()

    return retry.ask(once, is_repeatable=is_repeatable, timeout=timeout, deadline=deadline)


def find_google(settings: Settings, request: Callable[[], T], *, service: str = "Vertex AI") -> T | None:
    """`ask_google`, with None for what is not there."""
    try:
        return ask_google(settings, request, service=service)
    except CloudError as error:
        if error.status == _NOT_FOUND:
            return None
        raise


@contextmanager
def readable(service: str, *, is_paid: bool = False) -> Iterator[None]:
    """What an answer of another form than the service's raises while it is read, as `CloudError`.

    The clients check little of it: a null is found where it is used. Only around one request and its reading.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(service, error, is_paid) from None


def _unreadable(service: str, error: Exception, is_paid: bool) -> CloudError:
    """An answer that came and is paid for has a status, so that it is not asked for as if it had been lost."""
    said = f"the answer of {service} cannot be read ({type(error).__name__}); try again later"
    return CloudError(said, status=200 if is_paid else None)


def refusal(
    service: str, status: int, message: str | None, headers: Mapping[str, str], settings: Settings, reason: str = ""
) -> CloudError:
    """What a service that answered `status` said, as an error to raise; `reason` is a word of its own for why."""
    if status in (401, 403) and reason:  # their texts may repeat the key
        what = (
            f"{service} refused ({status}, {redact(reason, settings)}); "
            "check the credentials, the project, that its API is enabled, its billing, and the permissions"
        )
    elif status in (401, 403):
        what = f"{service} refused the credentials ({status}); check the key, the project and their permissions"
    else:
        said = _ADDRESS.sub("", " ".join(str(message or "no reason given").split()))
        what = f"{service} answered {status}: {redact(said, settings)[:300]}"
        if status == _NOT_FOUND:
            what += "; check the name, the project and the location"
        elif status in retry.BUSY or status >= 500:
            what += "; try again later" + (", or ask for a larger quota" if status == _TOO_MANY else "")
    return CloudError(what, status=status, retry_after=_seconds(headers.get("retry-after", "")))


def _seconds(pause: str) -> float | None:
    """A Retry-After, a number or a date, in seconds from now, at most a day; None for what is no time."""
    try:
        seconds = float(pause)
    except ValueError:
        try:
            until = parsedate_to_datetime(pause)
        except ValueError:
            return None
        seconds = max((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0)
    return min(seconds, _LONGEST_PAUSE_S) if math.isfinite(seconds) and seconds >= 0 else None


def _reason(answer: Any) -> str:
    """Google's machine-readable reason for an error, such as ``SERVICE_DISABLED``; nothing where `answer` has none."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        error = (json.loads(answer) if isinstance(answer, str) else answer)["error"]
        for one in (*error.get("details", ()), *error.get("errors", ())):  # ErrorInfo, and Cloud Storage's own
            if _REASON.fullmatch(one.get("reason", "")):
                return str(one["reason"])
    return ""


def require_paid(settings: Settings, what: str) -> None:
    """Raise `PaidError` where the settings allow nothing that costs money."""
    if not settings.allow_paid:
        raise PaidError(f"{what} costs money, which the settings do not allow; set MELODIFY_ALLOW_PAID=true to use it")


def _project(settings: Settings) -> str:
    if not settings.project:
        raise SettingsError("no Google Cloud project: set MELODIFY_PROJECT")
    return settings.project


def _vertex_address(settings: Settings) -> str:
    if settings.vertex_base_url:
        return settings.vertex_base_url
    place = settings.location
    if place in _MULTI_REGIONS:
        return f"https://aiplatform.{place}.rep.googleapis.com"
    return "https://aiplatform.googleapis.com" if place == "global" else f"https://{place}-aiplatform.googleapis.com"


def _credentials(settings: Settings) -> Credentials | None:
    """None lets Google's libraries find Application Default Credentials."""
    if settings.access_token is None:
        return None
    from google.oauth2.credentials import Credentials

    return Credentials(settings.access_token.get_secret_value())  # type: ignore[no-untyped-call]
