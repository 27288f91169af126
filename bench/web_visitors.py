"""What a visitor of the web application does, for Locust: see web.py."""

from __future__ import annotations

import io
import random
import re
import time
from itertools import count

from locust import HttpUser, between, task
from locust.exception import StopUser
from PIL import Image

from melodify_lib.samples import sample_picture

_NUMBERS = count(1)
_TRACK = re.compile(r"/tracks/([0-9a-f]{32})/")


def _photograph() -> bytes:
    """Of a telephone, scaled to two megapixels."""
    buffer = io.BytesIO()
    Image.open(sample_picture("coffee")).convert("RGB").resize((1632, 1224)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


PHOTOGRAPH = _photograph()


class Visitor(HttpUser):
    """Looks at the page, uploads, follows the song, listens; then comes again."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        number = next(_NUMBERS)
        self.client.headers["X-Forwarded-For"] = f"10.0.{number // 250}.{number % 250 + 1}"
        self._page("/", "start page")

    @task
    def make(self) -> None:
        self._page("/", "start page")
        began = time.monotonic()
        form = {"seconds": 10, "csrfmiddlewaretoken": self.client.cookies.get("csrftoken", "")}
        with self.client.request(
            "POST", "/", name="upload", data=form, files={"image": ("a.jpg", PHOTOGRAPH, "image/jpeg")},
            headers={"Referer": self.host}, allow_redirects=False, catch_response=True,
        ) as answer:  # fmt: skip
            if answer.status_code == 503 and int(answer.headers.get("Retry-After", 0)) > 0:
                answer.request_meta["name"] = "upload, told to come back (503)"
                answer.success()
                self._sleep(int(answer.headers["Retry-After"]))
                return
            if answer.status_code != 302:
                answer.failure(f"{answer.status_code}")
                return
            track = _TRACK.search(answer.headers["Location"])[1]
        self._page(f"/tracks/{track}/", "track page")
        while self._how_far(track) in ("queued", "running"):
            self._sleep(random.uniform(1, 2))
        self.environment.events.request.fire(
            request_type="song", name="song, from upload to done", response_time=1000 * (time.monotonic() - began),
            response_length=0, exception=None, context={},
        )  # fmt: skip
        self._page(f"/tracks/{track}/", "track page")
        self._page("/tracks/", "history page")
        self.client.request("GET", f"/tracks/{track}/files/track.mp3", name="mp3")

    def _page(self, path: str, name: str) -> None:
        self.client.request("GET", path, name=name)

    def _how_far(self, track: str) -> str:
        self.client.request("GET", f"/tracks/{track}/progress/", name="progress")
        return str(self.client.request("GET", f"/api/v1/tracks/{track}/", name="API: a track").json()["state"])

    def _sleep(self, seconds: float) -> None:
        if self.environment.runner.state in ("stopping", "stopped"):
            raise StopUser
        time.sleep(seconds)  # gevent's, under Locust
