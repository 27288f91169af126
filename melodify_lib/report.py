"""The report of a notebook run: one page with the picture, the song, its card, and the notebooks as pages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from melodify_lib.notebooks import NotebookResult
from melodify_lib.nouns import TrackCard
from melodify_lib.store import FolderStore


def write_report(run: Path, results: Sequence[NotebookResult]) -> Path:
    """Turn each executed notebook in `run` into a page and write ``report.html`` that links them all."""
    from jinja2 import Environment
    from nbconvert import HTMLExporter

    store = FolderStore(run)
    page_template = str(files("melodify_lib").joinpath("notebook.html.j2"))
    exporter = HTMLExporter(template_file=page_template, exclude_input_prompt=True, exclude_output_prompt=True)  # type: ignore[no-untyped-call]
    for result in results:
        executed = run / f"{result.notebook}.ipynb"
        if executed.exists():
            page, _ = exporter.from_filename(str(executed))
            store.put(f"{result.notebook}.html", page.encode())
    card = run / "song" / "card.json"
    template = Environment(autoescape=True).from_string(
        files("melodify_lib").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    text = template.render(
        results=results,
        card=TrackCard.from_json(card.read_bytes()) if card.exists() else None,
        picture=next(iter(sorted((run / "song").glob("picture.*"))), None),
    )
    return Path(store.put("report.html", text.encode()))
