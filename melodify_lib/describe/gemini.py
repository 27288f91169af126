"""The Gemini describer: a tuned model behind a Vertex endpoint, or an untuned one.

A caption is untrusted text. It stands alone in the user's turn, the instruction is the one that the
model was tuned with, and whatever comes back must fit the schema and then `MusicDescription`: the
worst that a caption can do is to get other music.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import answers, clients, prices, tuned
from melodify_lib.cloud.tuned import VertexCard
from melodify_lib.dataset.form import SYSTEM_INSTRUCTION
from melodify_lib.describe.local import check_genre
from melodify_lib.errors import DescriptionError, ModelError
from melodify_lib.fingerprint import fingerprint
from melodify_lib.genres import GENRES
from melodify_lib.nouns import ALTERNATIVES, BPM_MAX, BPM_MIN, Caption, MusicDescription, StageVersion, sha256

if TYPE_CHECKING:
    from google.genai import types

    from melodify_lib.settings import Settings

AT_ONCE = 8
"""Captions that are asked for at the same time."""
ATTEMPTS = 2
MAX_OUTPUT_TOKENS = 1_000


def from_settings(settings: Settings) -> GeminiDescriber:
    """The model that the card in `settings.describer_model` names, or `settings.gemini_model` as it is."""
    if settings.describer_model is None:
        card = VertexCard(asks=settings.gemini_model, base_model=settings.gemini_model)
    else:
        card = tuned.load(settings.describer_model)
    return GeminiDescriber(settings, card)


class GeminiDescriber:
    """Describes the music for a caption by asking Gemini on Vertex AI."""

    def __init__(self, settings: Settings, card: VertexCard) -> None:
        """Raises `PaidError` where the settings do not allow it, `ModelError` where the model is another project's."""
        self.settings = settings
        self.card = card
        self._asks = _address(card, settings)
        self._client = clients.gemini(settings)
        self._thinking = prices.thinking(card.base_model, settings)

    @property
    def version(self) -> StageVersion:
        card = sha256(self.card.model_dump_json().encode())[:12]
        return StageVersion(name="gemini", version=f"{card}+{fingerprint('describe/gemini.py', 'dataset/form.py')}")

    def export(self, folder: Path) -> None:
        """Write the card into `folder`, from which `Settings.describer_model` can load it."""
        self.card.save(folder)

    def describe(self, caption: Caption, genre: str | None = None) -> MusicDescription:
        """Describe the music for `caption`, in `genre` if it is given.

        An answer that does not fit is asked for once more, with the reason. Raises `DescriptionError` when
        that does not help, or the caption is blocked, and `CloudError` when the service fails.
        """
        from google.genai import types

        check_genre(genre, GENRES)
        config = self._config(genre)
        turns = [types.Content(role="user", parts=[types.Part(text=caption.text)])]
        problem = ""
        for _ in range(ATTEMPTS):
            send = partial(self._client.models.generate_content, model=self._asks, contents=turns, config=config)
            response = clients.ask_google(self.settings, send, is_paid=True)
            problem, text = answers.problem(response), answers.text(response)
            if not problem:
                try:
                    return _read(text, genre)
                except DescriptionError as error:
                    problem = str(error)
            if text:  # what the model said is quoted as its own turn, never among the instructions
                again = f"That answer was refused: {problem}. Answer again."
                turns[1:] = [
                    types.Content(role="model", parts=[types.Part(text=text)]),
                    types.Content(role="user", parts=[types.Part(text=again)]),
                ]
        raise DescriptionError(f"Gemini ({self.card.asks}) gave no music description in {ATTEMPTS} answers: {problem}")

    def describe_many(self, captions: Sequence[Caption], genre: str | None = None) -> list[MusicDescription]:
        """Describe the music for each of `captions`, in their order, eight at a time."""
        check_genre(genre, GENRES)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(copy_context().run, self.describe, caption, genre) for caption in captions]
            try:
                return [one.result() for one in asked]
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what was not sent yet is not paid for
                raise

    def _config(self, genre: str | None) -> types.GenerateContentConfig:
        from google.genai import types

        wanted = f" The genre is {genre}." if genre is not None else ""
        return types.GenerateContentConfig(
            system_instruction=SYSTEM_INSTRUCTION + wanted,
            response_mime_type="application/json",
            response_schema=_schema((genre,) if genre is not None else GENRES),
            temperature=0,  # a caption gets the same music, as far as the service can promise
            seed=0,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            thinking_config=(
                types.ThinkingConfig(thinking_level=types.ThinkingLevel(self._thinking)) if self._thinking else None
            ),
        )


def _address(card: VertexCard, settings: Settings) -> str:
    """What is asked: captions and the token go to the settings' own project, whatever a card says."""
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", card.asks):  # an untuned model
        return card.asks
    if (name := tuned.own(card.asks, "endpoints", settings)) is None:
        raise ModelError(
            f"the card names {card.asks!r}, which is no endpoint of project {settings.project!r} in "
            f"{settings.location}: set MELODIFY_PROJECT and MELODIFY_LOCATION, or take another card"
        )
    return name


def _schema(genres: Sequence[str]) -> types.Schema:
    """The form of an answer, fields in the order in which the model was taught to give them."""
    from google.genai import types

    text, texts = {"type": "STRING"}, {"type": "ARRAY", "items": {"type": "STRING"}}
    fields: dict[str, dict[str, Any]] = {
        "description": text,
        "genre": {**text, "enum": list(genres)},
        "bpm": {"type": "INTEGER", "minimum": BPM_MIN, "maximum": BPM_MAX},
        "key": text,
        "moods": {**texts, "minItems": 1},
        "instruments": {**texts, "minItems": 1},
        "keywords": texts,
    }
    # A tuned model was taught to name these as well; an untuned one need not.
    known = {**fields, ALTERNATIVES: {"type": "ARRAY", "items": {**text, "enum": list(GENRES)}}}
    return types.Schema.model_validate(
        {"type": "OBJECT", "properties": known, "required": list(fields), "propertyOrdering": list(known)}
    )


def _read(text: str, genre: str | None) -> MusicDescription:
    music = MusicDescription.parse(text)
    if genre is not None and music.genre != genre:
        raise DescriptionError(f"genre: {genre!r} was asked for, not {music.genre!r}")
    return music
