"""How the OpenAPI document names the two ways to be somebody."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class Token(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """A token: POST /api/v1/token/ gives one, and so does a first track."""

    target_class = "web.tracks.visitors.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class Session(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The page's cookie."""

    target_class = "web.tracks.visitors.SessionAuthentication"
    name = "cookie"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
