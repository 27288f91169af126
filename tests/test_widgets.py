"""The form and the bar of the notebooks, driven as a person would: by their values and clicks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from melodify_lib import widgets
from melodify_lib.flow import Composer
from melodify_lib.image import open_image


def choose(form: widgets.SongForm, content: bytes) -> None:
    """What a browser sends for a chosen file."""
    file = {"name": "photo.jpg", "type": "image/jpeg", "size": len(content), "last_modified": 0}
    form.upload.set_state({"value": [{**file, "content": memoryview(content)}]})


def shown(form: widgets.SongForm) -> str:
    """All that stands below the form, as text and types."""
    return "\n".join(
        one["text"] if one["output_type"] == "stream" else " ".join(one["data"]) for one in form.output.outputs
    )


@pytest.fixture
def form(composer: Composer) -> widgets.SongForm:
    return widgets.SongForm(composer, seconds=5)


def test_a_chosen_picture_is_shown_described_and_heard(
    form: widgets.SongForm, photograph: Path, tmp_path: Path
) -> None:
    open_image(photograph).save(tmp_path / "photo.jpg")
    shares: list[float] = []
    form.bar.observe(lambda change: shares.append(change["new"]), "value")
    choose(form, (tmp_path / "photo.jpg").read_bytes())
    assert form.genre.label == "what fits the picture"
    form.genre.value = "reggae"
    form.button.click()
    picture, *_, player = form.output.outputs
    assert "image/png" in picture["data"] and picture["metadata"]["image/png"]["alt"]
    assert "genre: reggae" in shown(form)
    assert re.search(r'<audio[^>]*>.*src="data:audio/(x-)?wav;base64,', player["data"]["text/html"], re.DOTALL)
    assert len(shares) > 3 and shares == sorted(shares)
    assert not form.button.disabled and form.bar.layout.visibility == "hidden"


def test_what_goes_wrong_is_said_below_and_the_form_goes_on(
    form: widgets.SongForm, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form.button.click()
    assert "no picture yet" in shown(form)
    choose(form, b"this is no picture")
    form.button.click()
    assert "JPEG" in shown(form) and "Traceback" not in shown(form) and "no picture yet" not in shown(form)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(form._composer, "compose", broken)
        form.button.click()
    assert "ZeroDivisionError" in shown(form)
    choose(form, photograph.read_bytes())
    form.button.click()
    assert "Error" not in shown(form) and "text/html" in shown(form)


def test_where_no_one_presses_a_button_the_form_says_what_it_is_for(form: widgets.SongForm) -> None:
    data = form._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "JupyterLab" in data["text/html"] and data["text/plain"] in data["text/html"]


def test_a_bar_goes_as_far_as_it_is_told() -> None:
    with widgets.progress("Playing") as on_progress:
        bar = on_progress.__closure__[0].cell_contents  # type: ignore[attr-defined]
        for done in (1, 3, 3, 7):
            on_progress(done, 7)
    assert (bar.n, bar.total, bar.desc) == (7, 7, "Playing")
