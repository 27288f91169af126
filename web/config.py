"""What can be set for the web application: ``WEB_…`` in the environment, beside the ``MELODIFY_…`` of the library."""

from __future__ import annotations

import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from melodify_lib.errors import SettingsError
from melodify_lib.nouns import first_problem
from melodify_lib.settings import Settings

KEY_MIN_CHARS = 50


class Config(BaseSettings):
    """Of the web application alone: what makes the music is in `melodify_lib.settings.Settings`."""

    model_config = SettingsConfigDict(env_prefix="WEB_", frozen=True, extra="ignore", populate_by_name=True)

    production: bool = Field(False, description="HTTPS only, and no start without a secret key and host names")
    secret_key: SecretStr | None = Field(None, description="signs cookies; made and kept in the folder if unset")
    hosts: list[str] = Field(["localhost", "127.0.0.1", "[::1]"], description="names under which it is reached")
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("database_url", "DATABASE_URL"),
        description="such as postgres://user:password@host/name; SQLite in the folder if unset",
    )
    migrate: bool = Field(
        True, description="bring the database up to date at the start; `python -m web migrate` if not"
    )
    folder: Path = Field(Path("runs/web"), description="for the database, the secret key and static files")
    metrics_token: SecretStr | None = Field(None, description="who may read /metrics; in production nobody if unset")
    proxies: int = Field(0, ge=0, le=5, description="trusted proxies in front, for a client's address; Cloud Run: 1")

    musicians: list[str] = Field(
        default_factory=lambda: [Settings.load().musician],
        min_length=1,
        description="that visitors may choose from, the first if they do not; the library's setting if unset",
    )
    longest: float = Field(120, ge=20, le=300, description="seconds of music at most")
    workers: int = Field(1, ge=0, le=64, description="songs that are made at once on this machine")
    threads: int = Field(64, ge=1, le=256, description="requests at once; uploads among them wait in turn")
    waiting: int = Field(20, ge=0, le=10_000, description="songs that may wait; more are refused with 503")
    songs_per_hour: int = Field(60, ge=1, description="of one client; more are refused with 429")
    requests_per_minute: int = Field(600, ge=1, description="to the API, of one client")
    heartbeat: float = Field(2, gt=0, description="seconds between two signs of life of a worker")
    lost_after: float = Field(20, gt=0, description="seconds without one, after which its song is made by another")
    attempts: int = Field(3, ge=1, le=10, description="at making a song whose worker was lost")
    deadline: float = Field(900, gt=0, description="seconds that a song may take")
    grace: float = Field(25, gt=0, description="seconds between SIGTERM and the end")
    keep_days: float = Field(7, gt=0, description="days after which a track is deleted, with all its files")

    @model_validator(mode="after")
    def _check_heartbeat(self) -> Self:
        if self.lost_after < 3 * self.heartbeat:
            raise ValueError(f"lost_after must be at least three heartbeats ({3 * self.heartbeat:g} s)")
        return self

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """From the environment, with those given here on top. Raises `SettingsError` for what cannot be used."""
        try:
            config = cls(**overrides)
        except (ValidationError, ValueError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise SettingsError(f"{problem}; settings of the web application are WEB_* variables") from None
        if config.production:
            key = config.secret_key.get_secret_value() if config.secret_key else ""
            if len(key) < KEY_MIN_CHARS or len(set(key)) < 5 or key.startswith("django-insecure-"):
                raise SettingsError(
                    f"production needs a secret key of at least {KEY_MIN_CHARS} characters: set WEB_SECRET_KEY to what "
                    "`python -c 'import secrets; print(secrets.token_urlsafe(48))'` prints"
                )
            if "hosts" not in config.model_fields_set or not config.hosts or "*" in config.hosts:
                raise SettingsError(
                    "production needs the names of its hosts: set WEB_HOSTS to '[\"music.example.org\"]'"
                )
        return config

    @cached_property
    def key(self) -> str:
        """The secret key; a new one is kept in the folder, for the next start."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value()
        path = self.folder / "secret-key"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".secret-key.{secrets.token_hex(4)}")
            aside.touch(mode=0o600)
            aside.write_text(secrets.token_urlsafe(48), encoding="ascii")
            with suppress(FileExistsError):  # another process was faster
                path.hardlink_to(aside)
            aside.unlink()
        return path.read_text(encoding="ascii")
