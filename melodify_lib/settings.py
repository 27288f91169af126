"""Settings: one frozen object, built at the edge (CLI, notebook, component) and passed in.

Every field can be set by an environment variable with the prefix ``MELODIFY_``
(``MELODIFY_MUSICIAN=arranger``). A profile is only a set of defaults: each stage can still be
chosen alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from melodify_lib.errors import SettingsError
from melodify_lib.nouns import first_problem

PROFILES: dict[str, dict[str, Any]] = {
    "local": {"captioner": "local", "describer": "local", "musician": "arranger", "tuner": "local", "runner": "local"},
    "gcp": {
        "captioner": "openai",
        "describer": "gemini",
        "musician": "arranger",
        "tuner": "vertex",
        "runner": "vertex",
        "allow_paid": True,
    },
}
"""What each profile chooses where nothing else is said. ``local`` needs no account and pays nobody.

In ``gcp`` the store is the bucket, and the arranger still plays, as an endpoint costs money by the hour: deploy one
and name it (MELODIFY_MUSICIAN=endpoint, MELODIFY_ENDPOINT).
"""


class Settings(BaseSettings):
    """All that can be chosen. Raises `SettingsError` (through `load`) for what cannot be used."""

    model_config = SettingsConfigDict(env_prefix="MELODIFY_", frozen=True, extra="forbid", validate_default=True)

    profile: str = Field("local", description="a set of defaults for the stages below")
    captioner: str = Field("", description="image → caption")
    describer: str = Field("", description="caption → music description")
    musician: str = Field("", description="music description → audio")
    store: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)] = Field(
        "runs/store", description="folder or gs:// address for songs, cards and pipeline artifacts"
    )
    describer_model: Path | None = Field(None, description="folder of a tuned describer; the shipped one if unset")
    soundfont: Path | None = Field(
        None, description="SoundFont of the arranger (.sf2, .sf3); the best that is found if unset"
    )

    checkpoint: str = Field(
        "facebook/musicgen-small", description="MusicGen: name on the hub, folder, or gs:// address"
    )
    device: str = Field("cpu", description="where MusicGen runs: cpu, cuda, cuda:1 …")
    precision: str = Field("int8", description="MusicGen's weights: int8, float16, float32; on cuda also bfloat16")
    songs: int = Field(8, ge=1, le=64, description="songs that MusicGen makes at once")
    waiting: int = Field(32, ge=0, le=1000, description="serving: songs that may wait behind them")
    deadline: float = Field(600, gt=0, le=3600, description="serving: seconds that a request may take at most")
    grace: int = Field(30, ge=5, le=3600, description="serving: seconds between SIGTERM and the end")

    tuner: str = Field("", description="who tunes the describer")
    runner: str = Field("", description="where pipelines run: local or vertex")
    describer_fallback: str = Field("", description="who describes where the describer fails; nobody if unset")
    use: Literal["any", "commercial"] = Field(
        "any", description="commercial refuses musicians whose licence forbids selling what they make"
    )
    allow_paid: bool = Field(False, description="whether a client that costs money may be built")
    project: str = Field("", description="Google Cloud project")
    location: str = Field("us-central1", description="Google Cloud region")
    bucket: str = Field("", description="Cloud Storage bucket for datasets and songs, without gs://")
    gemini_model: str = Field("gemini-3.5-flash-lite", description="Gemini that is tuned, and that teaches")
    openai_model: str = Field("gpt-5-mini", description="OpenAI model that captions and teaches")
    lyria_model: str = Field("lyria-002", description="Lyria that plays")
    endpoint: str = Field("", description="number or name of the Vertex AI endpoint that plays")
    serving_name: str = Field(
        "melodify-musician",
        pattern=r"^[a-z][a-z0-9-]{0,61}[a-z0-9]$",
        description="name of the endpoint that is deployed to, and of its model in Model Registry",
    )
    image: str = Field("", description="container image of the pipeline's components and of the endpoint")
    templates: str = Field("melodify-pipelines", description="KFP repository in Artifact Registry for pipelines")
    service_account: str = Field("", description="e-mail of the service account that jobs, servers and links act as")
    log_format: Literal["text", "json"] = Field("text", description="logs for people, or for Cloud Logging")
    trace: str = Field(
        "", pattern=r"^([0-9a-f]{32})?$", description="trace that a component's logs belong to; a new one if unset"
    )
    keep_days: int = Field(30, ge=1, le=3650, description="days after which what was created may be cleaned away")
    prices: Path | None = Field(None, description="price table for estimates and budgets; the shipped one if unset")
    openai_api_key: SecretStr | None = Field(None, description="key of OpenAI; OPENAI_API_KEY if unset")
    openai_secret: str = Field(
        "",
        pattern=r"^(projects/[\w-]+/secrets/[\w-]+/versions/[\w-]+)?$",
        description="version in Secret Manager that has OpenAI's key, for machines on Vertex AI: projects/…/versions/…",
    )
    access_token: SecretStr | None = Field(
        None, description="Google OAuth token; Application Default Credentials if unset"
    )
    openai_base_url: str | None = Field(None, description="address of OpenAI's API, if not the public one")
    vertex_base_url: str | None = Field(None, description="address of Vertex AI, if not the region's own")
    gcs_base_url: str | None = Field(None, description="address of Cloud Storage, if not the public one")
    iam_base_url: str | None = Field(None, description="address of IAM, if not the public one")
    iam_credentials_base_url: str | None = Field(None, description="address of IAM Credentials, if not the public one")
    secret_manager_base_url: str | None = Field(None, description="address of Secret Manager, if not the public one")
    templates_base_url: str | None = Field(None, description="address of that repository's host, if not the region's")
    quotas_base_url: str | None = Field(None, description="address of Cloud Quotas, if not the public one")
    resource_manager_base_url: str | None = Field(
        None, description="address of Resource Manager, if not the public one"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("profile", "local")
        if name not in PROFILES:
            raise ValueError(f"no profile {name!r}; choose one of: {', '.join(PROFILES)}")
        chosen = {field: value for field, value in values.items() if value not in ("", None)}
        if name == "gcp" and "bucket" in chosen:
            chosen = {"store": f"gs://{chosen['bucket']}", **chosen}
        return {**PROFILES[name], **chosen}

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Settings from the environment, with those given here (and not None) on top."""
        known = [f"MELODIFY_{field.upper()}" for field in cls.model_fields]
        for name in os.environ:
            if name.startswith("MELODIFY_") and name not in known:
                raise SettingsError(f"no setting {name}; there are: {', '.join(known)}")
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            problem = first_problem(error)
            raise SettingsError(f"{problem}; settings are MELODIFY_* variables and options") from None
