"""The pages. Each works without a script; the script adds what a form cannot: drag, paste, live progress, a player."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from rest_framework import serializers

from melodify_lib.errors import DescriptionError, ImageError
from melodify_lib.genres import GENRES
from melodify_lib.image import MAX_BYTES
from melodify_lib.nouns import BPM_MAX, BPM_MIN, TONICS
from web.tracks import files, jobs, limits
from web.tracks.models import State, Track
from web.tracks.problems import problem, refusal
from web.tracks.serializers import NewTrack, Remix, once_more
from web.tracks.templatetags import words
from web.tracks.visitors import begin_session, of_session

LENGTHS = (10, 20, 30, 60, 120)
"""Seconds that the page offers, of those that the server allows."""
A_PAGE = 30
KEYS = tuple(f"{tonic} {mode}" for tonic in TONICS for mode in ("major", "minor"))
View = Callable[..., HttpResponseBase]


def private(view: View) -> View:
    """What a visitor sees is theirs: no cache keeps it."""

    @wraps(view)
    def answer(*arguments: Any, **names: Any) -> HttpResponseBase:
        response = view(*arguments, **names)
        if not response.has_header("Cache-Control"):
            patch_cache_control(response, private=True, no_store=True)
        return response

    return answer


@private
@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponseBase:
    """Upload a picture."""
    if request.method != "POST":
        return _home(request)
    try:
        return redirect("track", _order(request).id)
    except Exception as error:
        return _refused(error, lambda said, status: _home(request, said, status))


def _order(request: HttpRequest) -> Track:
    asked = NewTrack(data={**_filled(request), **request.FILES.dict()})
    limits.check(request)
    asked.is_valid(raise_exception=True)
    owner, once = begin_session(request).owner, request.POST.get("once", "")
    jobs.check_room(owner, once)
    picture = limits.read_picture(asked.validated_data["image"])
    return limits.order(request, owner, asked.options(once), picture=picture, idempotency_key=once)


def _filled(request: HttpRequest) -> dict[str, Any]:
    """The fields of a form in which something stands."""
    return {name: value for name, value in request.POST.dict().items() if value.strip()}


def _refused(error: Exception, page: Callable[[str, int], HttpResponse]) -> HttpResponse:
    """The page again, with what is wrong in words for a visitor. Raises what is not theirs to know."""
    refused = refusal(error)
    if refused is None:
        raise error
    response = page(_in_words(error, refused.kind), refused.status)
    if refused.retry_after:
        response["Retry-After"] = str(refused.retry_after)
    return response


def _in_words(error: Exception, kind: str) -> str:
    match error:
        case serializers.ValidationError():
            return _first_error(error.detail)
        case ImageError():
            return words.why_refused(str(error))
        case DescriptionError() if (field := str(error).partition(":")[0]) in words.FIELDS:
            return words.field_problem(field, "")
    return words.problem(kind) or words.reason(str(error))


def _home(request: HttpRequest, error: str = "", status: int = 200) -> HttpResponse:
    visitor = of_session(request)
    context = {
        "error": error,
        "genres": GENRES,
        "musicians": settings.CONFIG.musicians,
        "lengths": _lengths(),
        "asked": request.POST,
        "max_bytes": MAX_BYTES,
        "recent": _tracks(visitor.owner)[:6] if visitor else [],
    }
    return render(request, "tracks/home.html", context, status=status)


def _first_error(errors: Any) -> str:
    field, said = next(iter(errors.items()))
    if isinstance(said, dict):  # of a list's words
        said = next(iter(said.values()))
    return _("Choose a picture first.") if field == "image" else words.field_problem(field, str(said[0]))


def _tracks(owner: str) -> Any:
    return Track.objects.filter(owner=owner).exclude(state__in=(State.DELETED, State.NEW))


def _own(request: HttpRequest, track_id: str) -> Track:
    visitor = of_session(request)
    track = _tracks(visitor.owner).filter(id=track_id).first() if visitor else None
    if track is None:
        raise Http404
    return track


@private
@require_safe
def track(request: HttpRequest, track_id: str) -> HttpResponseBase:
    """One address from the moment of upload on: how far it is, then the result."""
    return render(request, "tracks/track.html", _context(request, _own(request, track_id)))


@private
@require_safe
def progress(request: HttpRequest, track_id: str) -> HttpResponseBase:
    """The part of the page that changes, for the script that asks again and again."""
    return render(request, "tracks/_live.html", _context(request, _own(request, track_id)))


def _context(request: HttpRequest, track: Track, *, is_shared: bool = False) -> dict[str, Any]:
    ahead = 0
    if track.state == State.QUEUED:
        ahead = Track.objects.filter(state=State.QUEUED, created__lt=track.created).count()
    view, of = ("shared-file", track.share) if is_shared else ("file", track.id)
    return {
        "track": track,
        "ahead": ahead,
        "is_shared": is_shared,
        "link": request.build_absolute_uri(reverse("shared", args=[track.share])) if track.share else "",
        # By kind, as a template cannot say "track.mp3".
        "files": {name.rpartition(".")[2]: reverse(view, args=[of, name]) for name in files.names(track)},
        "size": files.preview_size(track.id),
        "genres": GENRES,
        "keys": KEYS,
        "bpm_range": (BPM_MIN, BPM_MAX),
        "lengths": sorted({track.seconds, *_lengths()}),
    }


def _lengths() -> list[float]:
    return [length for length in LENGTHS if length <= settings.CONFIG.longest]


@private
@require_POST
def change(request: HttpRequest, track_id: str, what: str) -> HttpResponseBase:
    """Cancel, delete, share, unshare, remix, retry; then the page that shows it."""
    track = _own(request, track_id)
    if what == "delete":
        jobs.delete(track)
        return redirect("history")
    if what == "remix":
        return _again(request, track, lambda key: _remixed(request, track, key))
    if what == "retry":
        return _again(request, track, lambda key: once_more(track))
    changes: dict[str, Callable[[Track], Any]] = {
        "cancel": jobs.cancel,
        "share": jobs.share,
        "unshare": jobs.unshare,
    }
    if what not in changes:
        raise Http404
    changes[what](track)
    return redirect(reverse("track", args=[track.id]) + ("#share" if "share" in what else ""))


def _remixed(request: HttpRequest, parent: Track, key: str) -> jobs.Options:
    asked = Remix(data=_filled(request))
    asked.is_valid(raise_exception=True)
    return asked.options(parent, key)


def _again(request: HttpRequest, parent: Track, options: Callable[[str], jobs.Options]) -> HttpResponseBase:
    """A new track from the picture of `parent`, with the options for the form's key."""
    try:
        limits.check(request)
        key = request.POST.get("once", "")
        made = limits.order(request, parent.owner, options(key), parent=parent, idempotency_key=key)
        return redirect("track", made.id)
    except Exception as error:
        context = {**_context(request, parent), "asked": request.POST}
        return _refused(
            error, lambda said, status: render(request, "tracks/track.html", {**context, "error": said}, status=status)
        )


@require_safe
def file(request: HttpRequest, track_id: str, name: str) -> HttpResponseBase:
    """A file of one's own."""
    return files.response(request, _own(request, track_id), name)


@private
@require_safe
def history(request: HttpRequest) -> HttpResponseBase:
    """All that this visitor made."""
    visitor = of_session(request)
    tracks = _tracks(visitor.owner) if visitor else Track.objects.none()
    page = Paginator(tracks, A_PAGE).get_page(request.GET.get("page"))
    return render(request, "tracks/history.html", {"tracks": page})


def _shared(link: str) -> Track:
    track = Track.objects.filter(share=link, state=State.DONE).first() if link else None
    if track is None:
        raise Http404
    return track


@private
@require_safe
def shared(request: HttpRequest, link: str) -> HttpResponseBase:
    """What somebody wants others to hear."""
    return render(request, "tracks/shared.html", _context(request, _shared(link), is_shared=True))


@require_safe
def shared_file(request: HttpRequest, link: str, name: str) -> HttpResponseBase:
    """A file of it."""
    return files.response(request, _shared(link), name)


@require_safe
def about(request: HttpRequest) -> HttpResponseBase:
    """How it works, what is kept, whose the music is."""
    return render(request, "tracks/about.html", {"keep_days": settings.CONFIG.keep_days})


def _error(request: HttpRequest, title: str, said: str, status: int) -> HttpResponse:
    if request.path.startswith("/api/"):
        return problem(status, title, said)
    return render(request, "tracks/error.html", {"title": title, "said": said}, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, _("That did not work"), words.problem("parse-error"), 400)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, _("Nothing is here"), words.problem("not-found"), 404)


def unavailable(request: HttpRequest) -> HttpResponse:
    response = _error(request, _("That did not work"), words.problem("unavailable"), 503)
    response["Retry-After"] = "60"
    return response


def too_large(request: HttpRequest, most: int) -> HttpResponse:
    """Its body has more than so many bytes, and was not read."""
    if request.path.startswith("/api/"):
        said = f"the request is larger than {most:,} bytes"
        return problem(413, "The request is too large", said, "/problems/too-large")
    said = words.why_refused("MiB") if request.content_type == "multipart/form-data" else words.problem("parse-error")
    return _error(request, _("That did not work"), said, 413)


def our_fault(request: HttpRequest) -> HttpResponse:
    return _error(request, _("That did not work"), _("The fault is ours. Please try again."), 500)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _error(request, _("This page is too old"), _("Go back, reload it, and try again."), 403)
