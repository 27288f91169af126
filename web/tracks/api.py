"""The API: what the pages can do, for programs."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotAuthenticated
from rest_framework.generics import get_object_or_404
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from web.tracks import files, jobs, limits
from web.tracks.models import State, Track
from web.tracks.serializers import NewTrack, Remix, TrackSerializer, once_more
from web.tracks.visitors import SessionAuthentication, TokenAuthentication, Visitor

PROBLEM = OpenApiResponse(
    {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {"type": "object", "additionalProperties": True},
        },
        "required": ["type", "title", "status", "detail"],
    },
    "Problem details, RFC 9457",
)
KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key is the same track, however often it is sent.",
)


def _problems(*codes: int) -> dict[Any, Any]:
    return {(code, "application/problem+json"): PROBLEM for code in (401, 404, 406, 429, *codes)}


class Pages(CursorPagination):
    page_size = 20
    ordering = "-created"


class TokenView(APIView):
    """A token, by which a program's tracks are its own. Nothing is kept of it here."""

    throttle_classes = (limits.RequestThrottle,)

    @extend_schema(
        request=None,
        responses={201: inline_serializer("Token", {"token": serializers.CharField()}), **_problems()},
    )
    def post(self, request: Request) -> Response:
        """A new token, for the header ``Authorization: Bearer …``."""
        return Response({"token": Visitor.new().key}, 201)


class TrackViewSet(viewsets.GenericViewSet[Track]):
    """Tracks of whoever asks: by the page's cookie, or by a token."""

    authentication_classes = (TokenAuthentication, SessionAuthentication)
    throttle_classes = (limits.RequestThrottle,)
    pagination_class = Pages
    serializer_class = TrackSerializer
    lookup_value_regex = "[0-9a-f]{32}"
    queryset = Track.objects.all()

    def get_throttles(self) -> list[Any]:
        more = [limits.SongThrottle()] if self.action in ("create", "remix", "retry") else []
        return [*super().get_throttles(), *more]

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.action == "create" else [IsAuthenticated()]

    def permission_denied(self, request: Request, message: str | None = None, code: str | None = None) -> NoReturn:
        raise NotAuthenticated("send your token: 'Authorization: Bearer …'; POST /api/v1/token/ gives a new one")

    def get_queryset(self) -> QuerySet[Track]:
        if getattr(self, "swagger_fake_view", False):
            return Track.objects.none()
        return Track.objects.filter(owner=self.request.user.owner).exclude(state=State.DELETED)

    def _answer(self, track: Track, code: int, **more: Any) -> Response:
        data = {**self.get_serializer(track).data, **more}
        headers = {"Location": self.reverse_action("detail", args=[track.id])} if code == 202 else {}
        return Response(data, code, headers=headers)

    @extend_schema(responses={200: TrackSerializer(many=True), **_problems()})
    def list(self, request: Request) -> Response:
        """Your tracks, the newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        request={"multipart/form-data": NewTrack},
        parameters=[KEY],
        responses={
            202: inline_serializer(
                "CreatedTrack", {"track": TrackSerializer(), "token": serializers.CharField(required=False)}
            ),
            **_problems(400, 413, 415, 422, 503),
        },
    )
    def create(self, request: Request) -> Response:
        """Order the music for a picture.

        Without a token it is your first: the answer has one, which all else needs. A program sends the picture itself,
        never an address.
        """
        asked = NewTrack(data=request.data)
        asked.is_valid(raise_exception=True)
        visitor = request.user if isinstance(request.user, Visitor) else None
        if visitor is None and "Idempotency-Key" in request.headers:
            raise NotAuthenticated("an Idempotency-Key is somebody's: get a token first, POST /api/v1/token/")
        owner = visitor or Visitor.new()
        key = request.headers.get("Idempotency-Key", "")
        jobs.check_room(owner.owner, key)
        picture = limits.read_picture(asked.validated_data["image"])
        track = limits.order(request, owner.owner, asked.options(key), picture=picture, idempotency_key=key)
        answer = self._answer(track, 202)
        answer.data = {"track": answer.data, **({} if visitor else {"token": owner.key})}
        return answer

    @extend_schema(responses={200: TrackSerializer, **_problems()})
    def retrieve(self, request: Request, pk: str) -> Response:
        """A track, as far as it is."""
        return self._answer(self.get_object(), 200)

    @extend_schema(responses={204: None, **_problems(503)})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a track and all its files."""
        jobs.delete(self.get_object())
        return Response(status=204)

    @extend_schema(request=None, responses={200: TrackSerializer, **_problems()})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Stop a track that is under way. One that has ended stays as it is."""
        track = self.get_object()
        jobs.cancel(track)
        track.refresh_from_db()
        return self._answer(track, 200)

    @extend_schema(request=Remix, parameters=[KEY], responses={202: TrackSerializer, **_problems(400, 415, 422, 503)})
    @action(detail=True, methods=["post"])
    def remix(self, request: Request, pk: str) -> Response:
        """The same picture, played anew with another description or seed. What is not said stays."""
        parent = self.get_object()
        asked = Remix(data=request.data)
        asked.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key", "")
        track = limits.order(request, parent.owner, asked.options(parent, key), parent=parent, idempotency_key=key)
        return self._answer(track, 202)

    @extend_schema(request=None, parameters=[KEY], responses={202: TrackSerializer, **_problems(400, 422, 503)})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """The same order again, as a new track, for one that failed or was cancelled."""
        parent = self.get_object()
        key = request.headers.get("Idempotency-Key", "")
        track = limits.order(request, parent.owner, once_more(parent), parent=parent, idempotency_key=key)
        return self._answer(track, 202)

    @extend_schema(request=None, responses={200: TrackSerializer, **_problems()})
    @action(detail=True, methods=["post"])
    def share(self, request: Request, pk: str) -> Response:
        """Make a link by which others can listen."""
        track = self.get_object()
        jobs.share(track)
        return self._answer(track, 200)

    @extend_schema(request=None, responses={200: TrackSerializer, **_problems()})
    @share.mapping.delete
    def unshare(self, request: Request, pk: str) -> Response:
        """The link is good no more."""
        track = self.get_object()
        jobs.unshare(track)
        track.refresh_from_db()
        return self._answer(track, 200)

    @extend_schema(
        parameters=[
            OpenApiParameter("name", str, OpenApiParameter.PATH, enum=tuple(files.TYPES)),
            OpenApiParameter("Range", str, OpenApiParameter.HEADER),
        ],
        responses={
            **{(code, kind): OpenApiTypes.BINARY for code in (200, 206) for kind in files.TYPES.values()},
            302: None,
            416: None,
            **_problems(),
        },
    )
    def file(self, request: Request, pk: str, name: str) -> HttpResponseBase:
        """A file of a track, or a range of it."""
        track = get_object_or_404(self.get_queryset(), pk=pk)
        return files.response(request._request, track, name)
