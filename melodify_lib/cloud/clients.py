"""Clients of the services that cost money, built from settings: the only place that holds keys and addresses.

A client is refused unless `Settings.allow_paid` is on. Addresses and credentials come from the
settings alone, so the same code reaches a public service or one on this machine. None repeats a
request by itself: that is for `melodify_lib.cloud.retry`.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from pydantic import ValidationError

from melodify_lib.cloud import retry
from melodify_lib.errors import CloudError, MissingDependencyError, PaidError, SettingsError
from melodify_lib.logs import redact

if TYPE_CHECKING:
    from google import genai
    from google.auth.credentials import Credentials
    from google.cloud import storage
    from openai import AsyncOpenAI, OpenAI

    from melodify_lib.settings import Settings

Client = TypeVar("Client")
T = TypeVar("T")

_NOT_FOUND = 404
EXTRA = "the cloud needs an extra: pip install 'melodify[cloud]'"


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
            base_url=settings.openai_base_url,
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
            base_url=settings.vertex_base_url,
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
    options = {"api_endpoint": settings.gcs_base_url} if settings.gcs_base_url else None
    with google_errors(settings, "Cloud Storage"):  # no Application Default Credentials
        return storage.Client(project=project, credentials=_credentials(settings), client_options=options)


def vertex(settings: Settings, service: Callable[..., Client], *, address: str | None = None) -> Client:
    """A client of one of Vertex AI's services, such as `google.cloud.aiplatform_v1.ModelServiceClient`. Over REST.

    `address` is that of a dedicated endpoint, or of another service with clients of this kind.
    Raises `PaidError`, or `SettingsError` where the project is missing.
    """
    require_paid(settings, "Vertex AI")
    _project(settings)
    options: dict[str, Any] = {
        "api_endpoint": address or settings.vertex_base_url or f"{settings.location}-aiplatform.googleapis.com"
    }
    with google_errors(settings):  # no Application Default Credentials
        return service(credentials=_credentials(settings), transport="rest", client_options=options)


def parent(settings: Settings) -> str:
    """Name of the project's place, under which Vertex AI's resources are."""
    return f"projects/{_project(settings)}/locations/{settings.location}"


def post_iam(settings: Settings, host: str, method: str, body: Mapping[str, Any]) -> Any:
    """What IAM's service on `host` answers to a `method` of the settings' service account: JSON. It has no client here.

    Asked once; for `ask_google`. Raises `PaidError`, and `CloudError` where it refuses or cannot be read.
    """
    account = f"{settings.iam_base_url or f'https://{host}'}/v1/projects/-/serviceAccounts/{settings.service_account}"
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
        raise refusal(service, answer.status_code, answer.text, answer.headers, settings)
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
        # An answer that came is paid for, so its status is given: it is not asked for as if it had been lost.
        raise CloudError(f"OpenAI's answer cannot be read ({type(error).__name__})", status=200) from None


@contextmanager
def google_errors(settings: Settings, service: str = "Vertex AI") -> Iterator[None]:
    """Whatever the Gemini and Cloud Storage clients raise inside, as `CloudError`; no token is in its message."""
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
        raise CloudError(
            f"{service}: no valid credentials ({type(error).__name__}); run `gcloud auth application-default login`",
            status=401,
        ) from None
    except APIError as error:
        headers = getattr(error.response, "headers", None) or {}
        raise refusal(service, error.code, error.message, headers, settings) from None
    except GoogleAPICallError as error:
        headers = getattr(error.response, "headers", None) or {}
        raise refusal(service, int(error.code or 500), error.message, headers, settings) from None
    except DataCorruption:
        raise CloudError(f"{service}: what was sent did not arrive whole; try again") from None
    except (httpx.TransportError, requests.RequestException, RetryError) as error:
        raise CloudError(
            f"{service} did not answer ({type(error).__name__}); check the network",
            is_unsent=isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)),
        ) from None
    except (UnknownApiResponseError, ValidationError) as error:  # Gemini's, which is paid for
        raise CloudError(f"the answer of {service} cannot be read ({type(error).__name__})", status=200) from None
    except (JSONDecodeError, ParseError) as error:
        raise CloudError(f"the answer of {service} cannot be read ({type(error).__name__})") from None


def ask_google(
    settings: Settings,
    request: Callable[[], T],
    *,
    service: str = "Vertex AI",
    is_repeatable: bool = True,
    timeout: float | None = None,
    deadline: float | None = None,
) -> T:
    """`retry.ask` for one of Google's clients. Raises `CloudError`."""

    def once() -> T:
        with google_errors(settings, service):
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
def readable(service: str) -> Iterator[None]:
    """What an answer of another form than the service's raises while it is read, as `CloudError`.

    The clients check little of it: a null is found where it is used. Only around one request and its reading.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CloudError(f"the answer of {service} cannot be read ({type(error).__name__})") from None


def refusal(
    service: str, status: int, message: str | None, headers: Mapping[str, str], settings: Settings
) -> CloudError:
    """What a service that answered `status` said, as an error to raise."""
    if status in (401, 403):  # their texts may repeat the key
        what = f"{service} refused the credentials ({status}); check the key, the project and their permissions"
    else:
        said = redact(" ".join(str(message or "no reason given").split()), settings)[:300]
        what = f"{service} answered {status}: {said}"
    return CloudError(what, status=status, retry_after=_seconds(headers.get("retry-after", "")))


def _seconds(pause: str) -> float | None:
    """A Retry-After in seconds; None for a date, or what is no time."""
    try:
        seconds = float(pause)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def require_paid(settings: Settings, what: str) -> None:
    """Raise `PaidError` where the settings allow nothing that costs money."""
    if not settings.allow_paid:
        raise PaidError(f"{what} costs money, which the settings do not allow; set MELODIFY_ALLOW_PAID=true to use it")


def _project(settings: Settings) -> str:
    if not settings.project:
        raise SettingsError("no Google Cloud project: set MELODIFY_PROJECT")
    return settings.project


def _credentials(settings: Settings) -> Credentials | None:
    """None lets Google's libraries find Application Default Credentials."""
    if settings.access_token is None:
        return None
    from google.oauth2.credentials import Credentials

    return Credentials(settings.access_token.get_secret_value())  # type: ignore[no-untyped-call]
