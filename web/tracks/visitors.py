"""Whose a track is. There are no accounts: a visitor is who has a key, in a signed cookie or a header."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from melodify_lib.nouns import sha256

SESSION = "visitor"
_KEY = re.compile(r"[\w-]{43}")


@dataclass(frozen=True)
class Visitor:
    """`owner` is what rows have: nobody can make the key of it."""

    key: str
    is_authenticated = True

    @property
    def owner(self) -> str:
        return sha256(self.key.encode())

    @classmethod
    def new(cls) -> Visitor:
        return cls(secrets.token_urlsafe(32))


def of_session(request: HttpRequest) -> Visitor | None:
    """The visitor that the cookie names, if it does."""
    key = request.session.get(SESSION)
    return Visitor(key) if isinstance(key, str) and _KEY.fullmatch(key) else None


def begin_session(request: HttpRequest) -> Visitor:
    """The cookie's visitor or a new one, with a cookie that lasts as long as what is made now."""
    visitor = of_session(request) or Visitor.new()
    request.session[SESSION] = visitor.key
    return visitor


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer …``, with a token: POST /api/v1/token/ gives one, and so does a first track."""

    def authenticate(self, request: Request) -> tuple[Visitor, None] | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or not _KEY.fullmatch(key.strip()):
            raise AuthenticationFailed("the Authorization header must be 'Bearer' and a token of POST /api/v1/token/")
        return Visitor(key.strip()), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class SessionAuthentication(BaseAuthentication):
    """The page's cookie; what changes something needs the page's CSRF token too."""

    def authenticate(self, request: Request) -> tuple[Visitor, None] | None:
        visitor = of_session(request._request)
        if visitor is None:
            return None
        check = CSRFCheck(lambda request: None)
        check.process_request(request._request)
        reason: Any = check.process_view(request._request, None, (), {})
        if reason:
            raise PermissionDenied(f"CSRF: {reason}")
        return visitor, None
