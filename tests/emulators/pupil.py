"""What the emulated language models know: the answer to a teacher's question, by the offline teacher's grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from melodify_lib.dataset import tables
from melodify_lib.dataset.teachers import offline

SOURCE = Path(__file__).resolve().parents[2] / "data" / "generate_jsonl"


class Pupil:
    """Answers questions as `melodify_lib.dataset.teachers.prompt` puts them."""

    def __init__(self) -> None:
        self._tables = tables.load(SOURCE)
        self._scenes = {scene.name: scene for scene in self._tables.scenes}
        self._seen: set[str] = set()

    def __call__(self, question: str) -> dict[str, Any]:
        """A right answer, and a new one each time."""
        asked = json.loads(question)
        choice = tables.Choice(self._scenes[asked["picture"]["shows"]], asked["mood"], asked["genre"])
        for attempt in range(100):
            example = offline.write(choice, self._tables, f"pupil {attempt}")
            texts = {example.caption, example.description.description}
            if not texts & self._seen:
                break
        self._seen |= texts
        music = example.description.model_dump(mode="json")
        return {"caption": example.caption, **music, "alternatives": list(example.alternatives)}
