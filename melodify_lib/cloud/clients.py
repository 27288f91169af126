"""Clients of the services that cost money, built from settings: the only place that holds keys and addresses.

A client is refused unless `Settings.allow_paid` is on. Addresses and credentials come from the
settings alone, so the same code reaches a public service or one on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from melodify_lib.errors import MissingDependencyError, PaidError, SettingsError

if TYPE_CHECKING:
    from google import genai
    from google.auth.credentials import Credentials
    from google.cloud import storage
    from openai import AsyncOpenAI

    from melodify_lib.settings import Settings

TIMEOUT_S = 60.0
"""How long one request may take."""
RETRIES = 4
"""How often a request is sent again after 408, 429 or 5xx, with growing pauses or as Retry-After says."""
_EXTRA = "the cloud needs an extra: pip install 'melodify[cloud]'"


def openai(settings: Settings) -> AsyncOpenAI:
    """OpenAI's client. Raises `PaidError`, or `SettingsError` where the key is missing."""
    _require_paid(settings, f"OpenAI ({settings.openai_model})")
    try:
        from openai import AsyncOpenAI, OpenAIError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(_EXTRA) from error
    key = settings.openai_api_key
    try:
        return AsyncOpenAI(
            api_key=key.get_secret_value() if key else None,
            base_url=settings.openai_base_url,
            timeout=TIMEOUT_S,
            max_retries=RETRIES,
        )
    except OpenAIError:
        raise SettingsError("no key for OpenAI: set OPENAI_API_KEY or MELODIFY_OPENAI_API_KEY") from None


def gemini(settings: Settings) -> genai.Client:
    """The client of Gemini on Vertex AI. Raises `PaidError`, or `SettingsError` where the project is missing."""
    _require_paid(settings, f"Gemini on Vertex AI ({settings.gemini_model})")
    project = _project(settings)
    try:
        from google import genai
        from google.genai import types
    except ModuleNotFoundError as error:
        raise MissingDependencyError(_EXTRA) from error
    return genai.Client(
        vertexai=True,
        project=project,
        location=settings.location,
        credentials=_credentials(settings),
        http_options=types.HttpOptions(
            base_url=settings.vertex_base_url,
            api_version="v1",
            timeout=int(TIMEOUT_S * 1000),
            retry_options=types.HttpRetryOptions(attempts=RETRIES + 1),
        ),
    )


def storage_client(settings: Settings) -> storage.Client:
    """The client of Cloud Storage. Raises `PaidError`, or `SettingsError` where the project is missing."""
    _require_paid(settings, "Cloud Storage")
    project = _project(settings)
    try:
        from google.cloud import storage
    except ModuleNotFoundError as error:
        raise MissingDependencyError(_EXTRA) from error
    options = {"api_endpoint": settings.gcs_base_url} if settings.gcs_base_url else None
    return storage.Client(project=project, credentials=_credentials(settings), client_options=options)


def _require_paid(settings: Settings, what: str) -> None:
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
