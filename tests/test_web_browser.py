"""The pages in a browser: Debian's Chromium, against `melodify web` as it is started."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mido
import pytest
import soundfile

pytest.importorskip("django", reason="needs the extra web")
pytest.importorskip("playwright", reason="needs the extra dev")
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from webserver import web_server

from melodify_lib.nouns import TrackCard
from melodify_lib.samples import sample_picture

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's Chromium: apt-get install -y chromium")

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PAGE_MAX_BYTES = 50_000
PAGE_PARTS = ("document", "stylesheet", "script")
WAIT_MS = 60_000
"""For a song to be made while other tests run beside these."""
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server runs, and keeps everything."""
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """The address of `melodify web`."""
    with web_server(folder, WEB_SONGS_PER_HOUR=1000) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Visitor:
    """Somebody with a browser of their own, and what was wrong in it: errors in the console (a breach of the content
    security policy is one), requests to other hosts."""

    site: str
    context: BrowserContext
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.problems.append(str(error.error)))
        self.context.on("request", self._see)
        self.page = self.context.new_page()

    def _hear(self, message: Any) -> None:
        # That the server refuses something is what some tests are about.
        is_refusal = re.match(r"Failed to load resource: .* status of 4\d\d", message.text)
        if message.type in ("error", "warning") and not is_refusal:
            self.problems.append(message.text)

    def _see(self, request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("blob", "data") and f"{address.scheme}://{address.netloc}" != self.site:
            self.problems.append(f"asked {request.url}")

    def goto(self, path: str) -> Page:
        self.page.goto(self.site + path)
        return self.page

    def choose(self, picture: str = "coffee") -> Page:
        page = self.goto("/")
        page.set_input_files("#image", sample_picture(picture))
        return page

    def order(self, seconds: int = 4) -> Page:
        """Send the picture that was chosen; the page of its track."""
        # Shorter than the page offers, so that nobody waits; longer, where there is something to see on the way.
        self.page.evaluate("seconds => { document.querySelector('[name=seconds]:checked').value = seconds }", seconds)
        self.page.click("#send")
        self.page.wait_for_url("**/tracks/*/")
        return self.page

    def make(self, seconds: int = 4) -> Page:
        self.choose()
        self.order(seconds)
        expect(self.page.locator(".player")).to_be_visible()
        return self.page


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Visit]:
    """A new visitor; at the end nothing may have been wrong in any browser."""
    visitors: list[Visitor] = []

    def come(**options: Any) -> Visitor:
        visitors.append(Visitor(site, browser.new_context(**options)))
        visitors[-1].context.set_default_timeout(WAIT_MS)
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.context.close()
    assert [problem for visitor in visitors for problem in visitor.problems] == []


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    return visit()


@dataclass
class Made:
    """A track that is there already, for tests that only look at it."""

    cookies: Any
    path: str
    shared: str


@pytest.fixture(scope="module")
def made(browser: Browser, site: str) -> Made:
    visitor = Visitor(site, browser.new_context())
    page = visitor.make()
    path = urlsplit(page.url).path
    page.click("text=Make a link")
    shared = urlsplit(page.input_value("#link")).path
    cookies = visitor.context.storage_state()
    visitor.context.close()
    return Made(cookies, path, shared)


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages go: kept where WEB_SCREENSHOTS says."""
    folder = Path(os.environ.get("WEB_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(page: Page, link: Locator) -> bytes:
    with page.expect_download() as started:
        link.click()
    assert started.value.suggested_filename.startswith("melodify-")
    return Path(started.value.path()).read_bytes()


def _now(page: Page) -> float:
    return float(page.evaluate("document.querySelector('audio').currentTime"))


def test_a_picture_becomes_music_that_plays(visitor: Visitor) -> None:
    page = visitor.choose()
    expect(page.locator("#preview")).to_be_visible()
    assert page.evaluate("document.querySelector('#preview').naturalWidth") > 0
    expect(page.get_by_role("status")).to_have_text("Chosen: coffee.png")

    visitor.order(seconds=60)
    bar = page.get_by_role("progressbar", name="Progress")
    expect(bar).to_be_visible()
    expect(page.locator("[data-part=caption] blockquote")).to_contain_text("espresso")
    expect(page.locator("[data-part=bar]")).to_contain_text(
        re.compile(r"(Playing the music|Finishing the files)\s*\d+%")
    )
    assert re.match(r"\d+% · Making your music · Melodify", page.title())
    assert 10 < page.evaluate("document.querySelector('progress').value") < 100

    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text(re.compile(r"^\S.* in [A-G]( flat| sharp)? (major|minor)$"))
    expect(page.get_by_role("status").first).to_have_text("Your music is ready.")
    assert page.title() == f"{heading.text_content()} · Melodify"

    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.2")
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate("document.querySelector('audio').paused")
    box = page.locator(".wave").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    assert _now(page) == pytest.approx(45, abs=1)
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "0:45 of 1:00"
    assert float(page.locator("clipPath rect").get_attribute("width") or 0) == pytest.approx(450, abs=10)


def test_downloads_open_in_other_programs(visit: Visit, made: Made) -> None:
    page = visit(storage_state=made.cookies).goto(made.path)
    links = page.locator(".downloads a")
    files = {(link.text_content() or "")[:3]: _download(page, link) for link in links.all()}
    assert set(files) == {"MP3", "WAV", "MID", "Car"}
    for name in ("MP3", "WAV"):
        audio, rate = soundfile.read(io.BytesIO(files[name]))
        assert len(audio) / rate == pytest.approx(4, abs=0.1)
    assert mido.MidiFile(file=io.BytesIO(files["MID"])).length > 2
    card = TrackCard.from_json(files["Car"])
    page.click("text=Asked and measured")
    rows = page.locator(".measured tbody tr")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text(f"{card.description.bpm} bpm")
    expect(rows.nth(2)).to_contain_text("−14 LUFS")
    expect(page.locator(".downloads")).to_contain_text("CC0")


def test_a_remix_plays_what_was_changed_and_shows_words_as_they_are(visitor: Visitor) -> None:
    page = visitor.make()
    first = page.url
    page.click("summary:has-text('Remix')")
    expect(page.get_by_label("Seed")).to_have_value(re.compile(r"\d+"))
    page.get_by_label("Tempo").fill("101")
    page.get_by_label("Genre").select_option("r&b")
    page.get_by_label("Key").select_option(label="E flat minor")
    page.get_by_label("Moods").fill("calm, sunny")
    said = "<img src=x onerror=alert(1)> </textarea><script>alert(2)</script> a slow tune."
    page.get_by_label("Description").fill(said)
    page.click("text=Make the remix")
    page.wait_for_url(lambda url: url != first)
    expect(page.get_by_role("heading", level=1)).to_have_text("R&B in E flat minor")
    expect(page.locator(".facts").first).to_contain_text("101 bpm")
    expect(page.locator(".words p").first).to_have_text(said)
    page.click("summary:has-text('Remix')")
    expect(page.get_by_label("Description")).to_have_value(said)
    expect(page.get_by_label("Genre")).to_have_value("r&b")
    page.click("text=The track it came from")
    assert page.url == first


def test_a_remix_that_cannot_be_played_is_refused_beside_its_form(visit: Visit, made: Made) -> None:
    page = visit(storage_state=made.cookies).goto(made.path)
    page.click("summary:has-text('Remix')")
    page.get_by_label("Moods").fill("calm: sunny.")
    page.get_by_label("Tempo").fill("77")
    page.click("text=Make the remix")
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("Moods: This cannot be used")
    expect(page.get_by_label("Moods")).to_have_value("calm: sunny.")
    expect(page.get_by_label("Tempo")).to_have_value("77")


def test_a_shared_link_is_for_all_until_it_is_not(visitor: Visitor, visit: Visit) -> None:
    page = visitor.make()
    page.click("text=Make a link")
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Copy")
    expect(page.locator(".copy [role=status]")).to_have_text("Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.input_value("#link")

    other = visit()
    other.goto(urlsplit(page.url).path)
    expect(other.page.get_by_role("heading", level=1)).to_have_text("Nothing is here")
    other.page.goto(link)
    expect(other.page.get_by_text("Somebody shared this with you")).to_be_visible()
    other.page.get_by_role("button", name="Play").click()
    other.page.wait_for_function("() => document.querySelector('audio').currentTime > 0.1")
    assert _download(other.page, other.page.locator(".downloads a").first)
    assert other.page.locator("form[action*=tracks]").count() == 0

    page.click("text=Stop sharing")
    expect(page.get_by_role("button", name="Make a link")).to_be_visible()
    answer = other.page.goto(link)
    assert answer is not None and answer.status == 404


def test_deleted_is_gone(visitor: Visitor) -> None:
    page = visitor.make()
    path = urlsplit(page.url).path
    music = page.evaluate("document.querySelector('audio').src")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete for good").click()
    page.wait_for_url("**/tracks/")
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    assert visitor.context.request.get(music).status == 404
    visitor.goto(path)
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is here")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(visitor: Visitor, way: str) -> None:
    page = visitor.goto("/")
    data = base64.b64encode(sample_picture("coffee").read_bytes()).decode()
    page.evaluate(
        """([way, data]) => {
            const box = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            box.items.add(new File([bytes], "cup.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            const event = way === "drop" ? new DragEvent("drop", { ...options, dataTransfer: box })
                : new ClipboardEvent("paste", { ...options, clipboardData: box });
            document.querySelector(way === "drop" ? "#drop" : "body").dispatchEvent(event);
        }""",
        [way, data],
    )
    expect(page.locator("#preview")).to_have_attribute("alt", "The chosen picture: cup.png")
    visitor.order()
    expect(page.locator(".words blockquote").first).to_contain_text("espresso")


def _damaged() -> bytes:
    """A photograph of which half is missing: a browser shows what there is."""
    buffer = io.BytesIO()
    Image.open(sample_picture("coffee")).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"}, "not a picture in JPEG, PNG or WebP"),
        ({"name": "notes.png", "mimeType": "image/png", "buffer": b"words"}, "not a picture in JPEG, PNG or WebP"),
        ({"name": "half.jpg", "mimeType": "image/jpeg", "buffer": _damaged}, "This picture is damaged"),
        (None, "Choose a picture first"),
    ],
)
def test_a_refusal_says_why_beside_the_form(visitor: Visitor, file: dict[str, Any] | None, said: str) -> None:
    page = visitor.goto("/")
    error = page.locator("#error")
    expect(error).to_be_hidden()
    if file is not None:
        content = file["buffer"]
        page.set_input_files("#image", [{**file, "buffer": content() if callable(content) else content}])  # type: ignore[list-item]
    if error.is_hidden():
        page.click("#send")
    expect(error).to_contain_text(said)
    expect(error).to_be_focused()
    assert urlsplit(page.url).path == "/"
    expect(page.get_by_role("button", name="Make the music")).to_be_enabled()
    expect(page.get_by_text("Choose another", exact=True)).to_be_hidden()  # no frame without its picture
    expect(page.locator(".invite")).to_be_visible()
    page.click("#send")
    expect(error).to_contain_text(said)
    page.set_input_files("#image", sample_picture("coffee"))
    expect(error).to_be_hidden()


def test_too_large_a_picture_is_not_even_sent(visitor: Visitor) -> None:
    page = visitor.goto("/")
    page.evaluate(
        """() => {
            const box = new DataTransfer();
            box.items.add(new File([new Uint8Array(31 << 20)], "big.png", { type: "image/png" }));
            const input = document.querySelector("#image");
            input.files = box.files;
            input.dispatchEvent(new Event("change"));
        }"""
    )
    expect(page.get_by_role("alert")).to_contain_text("too large: at most 30 MB")
    expect(page.get_by_role("alert")).to_be_focused()
    assert page.evaluate("document.querySelector('#image').files.length") == 0


def test_a_song_can_be_cancelled_and_tried_again(visitor: Visitor) -> None:
    visitor.choose()
    page = visitor.order(seconds=120)
    expect(page.locator("[data-part=description] p").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancelled")
    again = page.get_by_role("button", name="Try again with this picture")
    expect(again).to_be_visible()
    expect(page.get_by_role("link", name="Choose another picture")).to_have_attribute("href", "/")
    cancelled = page.url
    again.click()
    page.wait_for_url(lambda url: url != cancelled)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancelled")


def test_what_was_cancelled_while_it_waited_is_tried_again_with_its_picture(visitor: Visitor) -> None:
    urls = []
    for _ in range(2):
        visitor.choose()
        urls.append(visitor.order(seconds=120).url)
    page = visitor.page
    for url in urls[::-1]:
        page.goto(url)
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Cancelled")
    page.goto(urls[1])
    expect(page.locator("[data-part=caption]")).to_have_count(0)
    page.get_by_role("button", name="Try again with this picture").click()
    page.wait_for_url(lambda url: url not in urls)
    expect(page.locator("[data-part=caption] blockquote")).to_contain_text("espresso")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancelled")


def test_a_place_in_the_queue_and_what_is_said_of_a_failure(visitor: Visitor, folder: Path) -> None:
    page = visitor.page
    pages = []
    for _ in range(3):
        visitor.choose()
        pages.append(visitor.order(seconds=120).url)
    expect(page.get_by_text("1 song is before yours.")).to_be_visible()
    (folder / "store/web" / pages[2].split("/")[-2] / "picture.png").unlink()
    page.goto(pages[1])
    expect(page.get_by_text("Yours is the next.")).to_be_visible()
    for url in pages[1::-1]:
        page.goto(url)
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Cancelled")
    page.goto(pages[2])
    expect(page.get_by_role("heading", level=1)).to_have_text("That did not work")
    expect(page.get_by_text("Something went wrong on our side. Please try again later.")).to_be_visible()
    expect(page.get_by_role("link", name="Choose another picture")).to_have_attribute("href", "/")
    visitor.goto("/tracks/")
    expect(page.locator(".grid .name")).to_have_text(["Did not work", "Cancelled", "Cancelled"])


def test_progress_survives_a_reload_and_leaves_focus_alone(visitor: Visitor) -> None:
    visitor.choose()
    page = visitor.order(seconds=60)
    expect(page.locator("[data-part=caption] blockquote")).to_be_visible()
    page.reload()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("[data-part=caption] blockquote")).to_contain_text("espresso")
    percents = iter(range(30, 90))

    def hasten(route: Any) -> None:  # some musicians say more often than others how far they are
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'value="\d+"', f'value="{next(percents)}"', answer.text(), count=1))

    page.route("**/progress/", hasten)
    cancel = page.get_by_role("button", name="Cancel")
    cancel.focus()
    page.wait_for_function("() => document.querySelector('progress').value > 30")
    expect(cancel).to_be_focused()
    page.unroute("**/progress/")
    expect(page.locator(".player")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()  # the button is gone


def test_a_server_that_does_not_answer_is_asked_again(visitor: Visitor) -> None:
    visitor.choose()
    visitor.page.route("**/progress/", lambda route: route.fulfill(status=503))
    page = visitor.order(seconds=10)
    expect(page.get_by_text("No answer just now")).to_be_visible()
    visitor.problems.clear()  # the console tells of the 503
    page.unroute("**/progress/")
    expect(page.locator(".player")).to_be_visible()
    expect(page.get_by_text("No answer just now")).to_be_hidden()


def test_sent_twice_it_is_made_once(visitor: Visitor, site: str) -> None:
    page = visitor.goto("/")
    form = {
        "csrfmiddlewaretoken": page.locator("#make [name=csrfmiddlewaretoken]").input_value(),
        "once": page.locator("#make [name=once]").input_value(),
        "seconds": "4",
        "image": {"name": "cup.png", "mimeType": "image/png", "buffer": sample_picture("coffee").read_bytes()},
    }
    assert re.fullmatch("[0-9a-f]{32}", form["once"])  # type: ignore[arg-type]
    first, second = (visitor.context.request.post(f"{site}/", multipart=form).url for _ in range(2))  # type: ignore[arg-type]
    assert "/tracks/" in first and first == second
    visitor.goto("/tracks/")
    assert page.locator(".grid li").count() == 1
    visitor.goto("/")
    assert page.locator("#make [name=once]").input_value() != form["once"]


def test_all_of_it_by_keyboard(visitor: Visitor) -> None:
    page = visitor.goto("/")
    page.on("filechooser", lambda chooser: None)  # the browser's own stays shut from here on
    press = page.keyboard.press

    def tab_to(locator: Locator, most: int = 40) -> None:
        for _ in range(most):
            press("Tab")
            if locator.evaluate("one => one === document.activeElement"):
                return
        raise AssertionError(f"{locator} is not reached by Tab")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    tab_to(page.locator("#image"), 2)
    assert page.locator("#drop").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files(sample_picture("coffee"))
    expect(page.locator("#preview")).to_be_visible()
    tab_to(page.get_by_role("radio", name="20 s"))
    press("ArrowLeft")
    expect(page.get_by_role("radio", name="10 s")).to_be_checked()
    tab_to(page.get_by_label("Genre"))
    page.keyboard.type("Jazz")
    tab_to(page.get_by_role("button", name="Make the music"))
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Jazz in"))
    tab_to(page.get_by_role("button", name="Play"))
    press("Space")
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.1")
    press("Space")
    tab_to(page.get_by_role("slider"), 1)
    press("End")
    assert _now(page) == pytest.approx(10, abs=0.2)
    press("ArrowLeft")
    press("PageDown")
    assert _now(page) == pytest.approx(5, abs=0.3)
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "0:05 of 0:10"
    tab_to(page.locator(".remix summary"))
    press("Enter")
    tab_to(page.get_by_label("Tempo"))
    tab_to(page.get_by_role("button", name="Delete"))
    press("Enter")
    press("Tab")
    press("Enter")
    page.wait_for_url("**/tracks/")


def _pages(made: Made) -> dict[str, str]:
    return {
        "home": "/", "track": made.path, "history": "/tracks/", "shared": made.shared, "about": "/about/",
        "error": "/nothing/",
    }  # fmt: skip


def _violations(page: Page) -> list[str]:
    options = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(visit: Visit, made: Made, screenshots: Path, scheme: str) -> None:
    visitor = visit(storage_state=made.cookies, color_scheme=scheme, reduced_motion="reduce")
    page = visitor.page

    def check(name: str) -> None:
        page.screenshot(path=screenshots / f"{name}-{scheme}.png", full_page=True)
        assert _violations(page) == [], name

    for name, path in _pages(made).items():
        visitor.goto(path)
        check(name)
    visitor.goto(made.path)
    for summary in page.locator(".fold summary").all():
        summary.click()
    check("track-open")
    page.get_by_role("button", name="Delete").click()
    check("track-delete")
    visitor.choose("china")
    page.click(".more summary")
    check("home-chosen")
    page.set_input_files("#image", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"}])
    check("home-refused")
    visitor.choose("china")
    visitor.order(seconds=120)
    expect(page.locator("[data-part=description] p").first).to_be_visible()
    check("track-under-way")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancelled")
    check("track-cancelled")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()

    nobody = visit(color_scheme=scheme)
    for name, path in (("home-first", "/"), ("history-empty", "/tracks/")):
        nobody.goto(path)
        nobody.page.screenshot(path=screenshots / f"{name}-{scheme}.png", full_page=True)
        assert _violations(nobody.page) == [], name


@pytest.mark.parametrize("language", ["en-GB", "ko-KR"])
def test_pages_fit_a_telephone(visit: Visit, made: Made, screenshots: Path, language: str) -> None:
    visitor = visit(storage_state=made.cookies, locale=language, **PHONE)
    for name, path in _pages(made).items():
        page = visitor.goto(path)
        for summary in page.locator(".fold summary").all():
            summary.click()
        page.screenshot(path=screenshots / f"{name}-phone-{language[:2]}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        assert page.locator("html").get_attribute("lang") == language[:2]
    visitor.goto("/")
    expect(page.locator("label[for=camera]")).to_be_visible()
    page.set_input_files("#camera", sample_picture("coffee"))
    expect(page.locator("#preview")).to_be_visible()
    expect(visitor.order().locator(".player")).to_be_visible()


@pytest.mark.parametrize("language", ["en-GB", "ko-KR"])
def test_text_twice_as_large_fits_a_telephone(visit: Visit, made: Made, screenshots: Path, language: str) -> None:
    visitor = visit(storage_state=made.cookies, locale=language, **PHONE)
    wide = {}
    for name, path in _pages(made).items():
        page = visitor.goto(path)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        assert page.evaluate("getComputedStyle(document.body).fontSize") == "32px"
        for summary in page.locator(".fold summary").all():
            summary.click()
        page.screenshot(path=screenshots / f"{name}-large-{language[:2]}.png", full_page=True)
        wide[name] = page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((one) => {
                const box = one.getBoundingClientRect();
                const isClipped = one.closest(".unseen, .file, .skip, dialog:not([open])");
                return !isClipped && box.width && (box.right > 390.5 || box.left < -0.5);
            }).map((one) => one.outerHTML.slice(0, 90))"""
        )
        for box in page.locator(".drop, .segments label, .downloads .button").all():
            text = box.text_content()
            fits = "one => one.scrollWidth <= one.clientWidth + 1 && one.scrollHeight <= one.clientHeight + 1"
            is_whole = box.evaluate(fits)
            assert is_whole, (name, text)
    assert not any(wide.values()), wide


def test_korean_by_the_browser_and_by_choice(visit: Visit, made: Made) -> None:
    visitor = visit(storage_state=made.cookies, locale="ko-KR")
    page = visitor.goto(made.path)
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^[A-G][♭♯]?[장단]조 "))
    expect(page.get_by_role("button", name="재생")).to_be_visible()
    page.get_by_role("button", name="English").click()
    assert urlsplit(page.url).path == made.path
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    visitor.goto("/")
    page.get_by_role("button", name="한국어").click()
    page.set_input_files("#image", [{"name": "a.png", "mimeType": "image/png", "buffer": b"words"}])
    page.click("#send")
    expect(page.get_by_role("alert")).to_have_text("JPEG, PNG, WebP 형식의 사진이 아닙니다. 다른 파일을 골라 주세요.")


def test_all_of_it_without_a_script(visit: Visit) -> None:
    visitor = visit(java_script_enabled=False)
    page = visitor.goto("/")
    page.click("#send")
    expect(page.get_by_role("alert")).to_have_text("Choose a picture first.")
    page.set_input_files("#image", sample_picture("coffee"))
    page.check("[name=seconds][value='10']", force=True)
    page.click("#send")
    expect(page.locator("audio")).to_be_visible()  # the page loads itself again until then
    expect(page.locator(".play")).to_be_hidden()
    page.click("text=Make a link")
    expect(page.locator("#link")).to_be_visible()
    page.click("summary:has-text('Delete')")
    page.locator("details button:has-text('Delete for good')").click()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()


def test_only_what_pages_ask_for_is_published(site: str, folder: Path) -> None:
    assert {path.name for path in (folder / "web/static").iterdir() if path.is_dir()} == {"tracks"}


def test_pages_are_light_and_do_not_jump(visit: Visit, made: Made) -> None:
    visitor = visit(storage_state=made.cookies)
    answers: list[Any] = []
    visitor.page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 - a list's own takes no mark
    for name, path in _pages(made).items():
        answers.clear()
        page = visitor.goto(path)
        jumps = page.evaluate(
            """() => new Promise((done) => {
                let sum = 0;
                const watch = (list) => list.getEntries().forEach((entry) => { sum += entry.value; });
                new PerformanceObserver(watch).observe({ type: "layout-shift", buffered: true });
                setTimeout(() => done(sum), 200);
            })"""
        )
        assert jumps < 0.02, name
        sizes = {one.url: len(one.body()) for one in answers if one.request.resource_type in PAGE_PARTS}
        assert len(sizes) == 3 and sum(sizes.values()) < PAGE_MAX_BYTES, (name, sizes)
        robots = page.locator("meta[name=robots]").count()
        assert robots == (0 if name in ("home", "about") else 1), name
        assert not re.search(r"<style| style=|<script>| on\w+=", answers[0].text()), name


def test_the_page_of_a_track_holds_no_more_than_its_visitor_may_know(visitor: Visitor, made: Made) -> None:
    """What others cannot see: the visitor's key, and the track's own address on a shared page."""
    page = visitor.goto(made.shared)
    identifier = made.path.split("/")[2]
    assert identifier not in page.content()
    assert "sessionid" not in json.dumps(page.evaluate("document.cookie"))
