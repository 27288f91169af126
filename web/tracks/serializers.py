"""The form of what is asked and answered, for pages and programs alike."""

from __future__ import annotations

import json
import secrets
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from pydantic import ValidationError
from rest_framework import parsers, serializers
from rest_framework.exceptions import ParseError

from melodify_lib.errors import DescriptionError, InputError
from melodify_lib.genres import GENRES
from melodify_lib.image import MAX_BYTES
from melodify_lib.music.finish import SECONDS_MIN
from melodify_lib.nouns import BPM_MAX, BPM_MIN, Caption, Measures, MusicDescription, first_problem, sha256
from web.tracks import files
from web.tracks.jobs import Options
from web.tracks.models import State, Track

SEED_MAX = 2**53 - 1
"""What JavaScript and Vertex AI can hold of a whole number."""


class JSONParser(parsers.JSONParser):
    """JSON that can be said again: nested as deeply as Python follows, and in whole characters."""

    def parse(self, *arguments: Any, **names: Any) -> Any:
        try:
            data = super().parse(*arguments, **names)
            json.dumps(data, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("JSON parse error - it is nested too deeply") from None
        except UnicodeEncodeError:
            raise ParseError("JSON parse error - it has half a surrogate pair") from None
        return data


class Play(serializers.Serializer[Any]):
    """What every order may say."""

    seconds = serializers.FloatField(
        default=20,
        min_value=SECONDS_MIN,
        help_text="Length of the music; the longest that is allowed depends on the server.",
    )
    seed = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=SEED_MAX,
        help_text="The same seed is the same music; by chance if unset.",
    )

    def validate_seconds(self, value: float) -> float:
        if not value <= settings.CONFIG.longest:  # nor is it NaN
            said = self.fields["seconds"].error_messages["max_value"]
            raise serializers.ValidationError(said.format(max_value=f"{settings.CONFIG.longest:g}"))
        return value

    def seed_or_chance(self, idempotency_key: str) -> int:
        """What is asked for, or by chance; the same chance for the same key, as that is the same order."""
        seed = self.validated_data.get("seed")
        chance = sha256((idempotency_key or secrets.token_hex(16)).encode())
        return int(chance[:7], 16) if seed is None else int(seed)


class NewTrack(Play):
    """A picture, and what is wanted of its music."""

    image = serializers.FileField(help_text=f"JPEG, PNG or WebP, at most {MAX_BYTES >> 20} MiB.", max_length=None)
    genre = serializers.ChoiceField(
        GENRES, required=False, allow_blank=True, help_text="What fits the picture if unset."
    )
    musician = serializers.CharField(
        required=False, allow_blank=True, help_text="Who plays; the server's choice if unset."
    )

    def validate_musician(self, value: str) -> str:
        if value and value not in settings.CONFIG.musicians:
            said = _("There is no %(name)s here; there are: %(names)s.")
            raise serializers.ValidationError(said % {"name": value, "names": ", ".join(settings.CONFIG.musicians)})
        return value

    def options(self, idempotency_key: str) -> Options:
        said, seed = self.validated_data, self.seed_or_chance(idempotency_key)
        musician = said.get("musician") or settings.CONFIG.musicians[0]
        return Options(said["seconds"], seed, said.get("genre") or "", musician)


class Terms(serializers.ListField):
    """Words; from a page's form as one line, with commas."""

    child = serializers.CharField(max_length=60)

    def get_value(self, dictionary: Any) -> Any:
        value = dictionary.get(self.field_name, serializers.empty)
        return value if not isinstance(value, str) else [word.strip() for word in value.split(",") if word.strip()]


class Remix(Play):
    """The same picture, played anew: what is not said stays."""

    seconds = serializers.FloatField(required=False, min_value=SECONDS_MIN)
    description = serializers.CharField(required=False, max_length=2000)
    genre = serializers.ChoiceField(GENRES, required=False)
    bpm = serializers.IntegerField(required=False, min_value=BPM_MIN, max_value=BPM_MAX)
    key = serializers.CharField(required=False, max_length=20, help_text='As "D minor".')
    moods = Terms(required=False, max_length=16)
    instruments = Terms(required=False, max_length=16)
    keywords = Terms(required=False, max_length=16)

    def options(self, track: Track, idempotency_key: str) -> Options:
        """Raises `DescriptionError` for what is no description of music, or where there is none yet."""
        if track.description is None:
            raise DescriptionError("the music is not described yet; wait until it is, then remix it")
        said = dict(self.validated_data)
        seconds = said.pop("seconds", track.seconds)
        said.pop("seed", None)
        try:
            given = MusicDescription.model_validate({**track.description, **said})
        except ValidationError as error:
            raise DescriptionError(first_problem(error)) from None
        seed = self.seed_or_chance(idempotency_key)
        return Options(seconds, seed, track.genre, track.musician, given.model_dump(mode="json"))


def once_more(track: Track) -> Options:
    """The same order, for a track that came to nothing. Raises `InputError` for another."""
    if track.state not in (State.FAILED, State.CANCELLED):
        raise InputError("only a song that failed or was cancelled can be tried again; remix this one")
    return Options(track.seconds, track.seed, track.genre, track.musician, track.given or track.description)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [{**schema, "type": "object"}, {"type": "null"}]}


class TrackSerializer(serializers.ModelSerializer[Track]):
    """A track as programs and the page's script see it."""

    caption = serializers.SerializerMethodField()
    description = serializers.SerializerMethodField()
    requested = serializers.SerializerMethodField()
    measured = serializers.SerializerMethodField()
    licence = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    shared_at = serializers.SerializerMethodField()
    page = serializers.SerializerMethodField()

    class Meta:
        model = Track
        fields = (
            "id", "state", "stage", "percent", "error", "created", "started", "ended", "seconds", "seed", "genre",
            "musician", "parent", "caption", "description", "requested", "measured", "licence", "files", "shared_at",
            "page",
        )  # fmt: skip

    @extend_schema_field(_or_null(Caption.model_json_schema()))
    def get_caption(self, track: Track) -> Any:
        return track.caption

    @extend_schema_field(_or_null(MusicDescription.model_json_schema()))
    def get_description(self, track: Track) -> Any:
        return track.description

    @extend_schema_field(_or_null(Measures.model_json_schema()))
    def get_requested(self, track: Track) -> Any:
        return track.card and track.card["requested"]

    @extend_schema_field(_or_null(Measures.model_json_schema()))
    def get_measured(self, track: Track) -> Any:
        return track.card and track.card["measured"]

    def get_licence(self, track: Track) -> str:
        return track.card["licence"] if track.card else ""

    @extend_schema_field({"type": "object", "additionalProperties": {"type": "string", "format": "uri"}})
    def get_files(self, track: Track) -> dict[str, str]:
        return {name: self._url("api-file", track.id, name) for name in files.names(track)}

    @extend_schema_field({"type": ["string", "null"], "format": "uri"})
    def get_shared_at(self, track: Track) -> str | None:
        return self._url("shared", track.share) if track.share else None

    def get_page(self, track: Track) -> str:
        return self._url("track", track.id)

    def _url(self, name: str, *arguments: str) -> str:
        request: HttpRequest = self.context["request"]
        return request.build_absolute_uri(reverse(name, args=arguments))
