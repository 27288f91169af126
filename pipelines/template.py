"""A compiled pipeline in Artifact Registry, from which the console, a schedule or anybody's client can run it.

KFP's own client is used where the address is Artifact Registry's, and is told who asks; it knows no time limit and no
second try, so those are `melodify_lib.cloud`'s.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from melodify_lib.cloud import clients
from melodify_lib.errors import CloudError, PipelineError
from melodify_lib.settings import Settings

SERVICE = "Artifact Registry"
_CONFLICT, _NOT_FOUND = 409, 404


def upload(template: Path, settings: Settings, *, tags: Sequence[str] = ()) -> str:
    """Put the spec `template` into the settings' repository; its address, by the hash of its content.

    The same spec is the same version, however often it is uploaded; the `tags` point to it from then on.
    Raises `PipelineError` for what is no spec, `PaidError`, `SettingsError` and `CloudError`.
    """
    clients.require_paid(settings, SERVICE)
    name, version = _name(template), f"sha256:{hashlib.sha256(template.read_bytes()).hexdigest()}"
    client = _client(settings)
    if _ask(settings, partial(client.get_version, name, version)) is None:
        answer = _ask(settings, partial(client.upload_pipeline, str(template), list(tags) or None), _CONFLICT)
        name, version = answer or (name, version)  # another was faster
    for tag in tags:
        there = _ask(settings, partial(client.get_tag, name, tag))
        if there is None:
            _ask(settings, partial(client.create_tag, name, version, tag), _CONFLICT)
        elif not str(there.get("version", "")).endswith(f"/{version}"):
            _ask(settings, partial(client.update_tag, name, version, tag))
    return f"{address(settings)}/{name}/{version}"


def address(settings: Settings) -> str:
    """Of the repository, one of the kind KFP."""
    base = settings.templates_base_url or f"https://{settings.location}-kfp.pkg.dev"
    return f"{base.rstrip('/')}/{clients.parent(settings).split('/')[1]}/{settings.templates}"


def _name(template: Path) -> str:
    import yaml

    try:
        spec = yaml.safe_load(template.read_text(encoding="utf-8"))
        return str(spec["pipelineInfo"]["name"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PipelineError(f"{template} is no compiled pipeline ({error}); see `melodify pipeline compile`") from None


def _client(settings: Settings) -> Any:
    import google.auth.transport.requests  # noqa: F401, which kfp uses and does not import
    from kfp.registry import ApiAuth, RegistryClient

    token = settings.access_token.get_secret_value() if settings.access_token else None
    with clients.google_errors(settings, SERVICE):  # no Application Default Credentials
        return RegistryClient(host=address(settings), auth=ApiAuth(token) if token else None)


def _ask(settings: Settings, request: Callable[[], Any], none_for: int = _NOT_FOUND) -> Any:
    """What the client's `request` returns; None where the answer is `none_for`."""

    def once() -> Any:
        try:
            with clients.google_errors(settings, SERVICE):
                return request()
        except CloudError as error:
            if error.status == none_for:
                return None
            raise

    return clients.ask_google(settings, once, service=SERVICE)
