"""What the site takes in from outside of docs/, as it stands there: README and others as pages, and every file that a
page links to as a page with its source. So a link that works in the repository works on the site, and one that leads
nowhere fails `mkdocs build --strict`. A notebook is the page that the last `make run` made of it, with figures and
players, where there is one of the notebook as it stands; else its source.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "serving/README.md": "serving.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data/generate_jsonl/DATASHEET.md": "dataset.md",
}
"""File of the repository → page of the site."""
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".js": "javascript", ".tf": "hcl", ".po": "po"}
_MOST_CHARS = 40_000
LATEST = ROOT / "runs/latest"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and those of what they link to."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    linked: set[str] = set()
    for file in files.documentation_pages():
        for part in _CODE.split(file.content_string)[::2]:
            linked |= {target for link in _LINK.finditer(part) if (target := _target(file.src_uri, link[1]))}
    for target in sorted(linked):
        if executed := _executed(target):
            files.append(File.generated(config, executed, abs_src_path=str(LATEST / Path(executed).name)))
        elif not _is_page(target):
            files.append(File.generated(config, _source_page(target), content=_source(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to the site's pages."""

    def to_page(link: re.Match[str]) -> str:
        target = _target(page.file.src_uri, link[1])
        if target is None:
            return str(link[0])
        if target in PAGES:
            goal = PAGES[target]
        else:
            goal = target.removeprefix("docs/") if _is_page(target) else _executed(target) or _source_page(target)
        return posixpath.relpath(goal, posixpath.dirname(page.file.src_uri) or ".") + (link[2] or "")

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(to_page, part) for part in parts[::2]]
    return "".join(parts)


def _target(page: str, link: str) -> str | None:
    """What a page links to, as a path in the repository; None where there is nothing, which mkdocs tells."""
    here = next((path for path, name in PAGES.items() if name == page), f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if page.startswith("source/") or path.startswith("..") or not (ROOT / path).exists():
        return None
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def _is_page(target: str) -> bool:
    return target in PAGES or (target.startswith("docs/") and (ROOT / target).is_file())


def _executed(target: str) -> str | None:
    """Where the site has the notebook `target` as it ran; None for what is none, or did not pass as it stands."""
    ran = LATEST / Path(target).name
    result, page = ran.with_suffix(".json"), ran.with_suffix(".html")
    if ran.suffix != ".ipynb" or not (result.exists() and page.exists()):
        return None
    passed = json.loads(result.read_text(encoding="utf-8"))["passed"]
    return f"notebooks/{page.name}" if passed and _code(ran) == _code(ROOT / target) else None


def _code(notebook: Path) -> list[str]:
    """What is in its cells, without the one that papermill puts in."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    own = [cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in own]


def _source_page(target: str) -> str:
    return f"source/{target.replace('.', '_') if target[0] == '.' else target}.md"  # mkdocs passes over dots


def _source(path: Path) -> str:
    """A file, a folder's list or a notebook as a page that is not searched."""
    name = path.relative_to(ROOT).as_posix()
    head = f"---\nsearch: {{exclude: true}}\ntitle: {name}\nhide: [toc]\n---\n# `{name}`\n\n"
    if path.is_dir():
        return head + "\n".join(f"- `{one.name}`" for one in sorted(path.iterdir()) if one.name[0] not in "._")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return head + "\n\n".join(_cell(cell) for cell in json.loads(text)["cells"])
    rest = "\n\n(and so on)" if len(text) > _MOST_CHARS else ""
    return head + _fenced(text[:_MOST_CHARS], _LANGUAGES.get(path.suffix, "text")) + rest


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    if cell["cell_type"] == "code":
        return _fenced(text, "python")
    return re.sub(r"(?m)^#", "##", _LINK.sub("#", text))  # its own links are beside the notebook


def _fenced(text: str, language: str) -> str:
    return f"``````{language}\n{text.rstrip()}\n``````"
