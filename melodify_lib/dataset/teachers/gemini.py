"""The teacher that is Gemini on Vertex AI: google-genai, response schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melodify_lib.cloud import answers, clients
from melodify_lib.cloud.prices import Price, price
from melodify_lib.dataset.teachers import Terms
from melodify_lib.dataset.teachers.paid import PaidTeacher, Reply
from melodify_lib.dataset.teachers.prompt import Answer

if TYPE_CHECKING:
    from melodify_lib.settings import Settings


def from_settings(settings: Settings, terms: Terms) -> PaidTeacher:
    """`settings.gemini_model` as a teacher. Raises `PaidError` where the settings do not allow it."""
    of_model = price(settings.gemini_model, settings)
    return PaidTeacher(GeminiModel(settings, of_model), of_model, terms)


class GeminiModel:
    """A Gemini model that answers in the form of `Answer`."""

    def __init__(self, settings: Settings, of_model: Price) -> None:
        self.settings = settings
        self.client = clients.gemini(settings)
        self.thinking = of_model.thinking

    @property
    def name(self) -> str:
        return self.settings.gemini_model

    async def ask(self, instruction: str, question: str, max_tokens: int) -> Reply:
        """One answer. Raises `CloudError`."""
        from google.genai import types

        thinking = types.ThinkingConfig(thinking_level=types.ThinkingLevel(self.thinking)) if self.thinking else None
        with clients.google_errors(self.settings, is_paid=True), clients.readable("Vertex AI"):
            response = await self.client.aio.models.generate_content(
                model=self.name,
                contents=question,
                config=types.GenerateContentConfig(
                    system_instruction=instruction,
                    response_mime_type="application/json",
                    response_schema=Answer,
                    max_output_tokens=max_tokens,
                    thinking_config=thinking,
                ),
            )
            # An answer without figures is taken at its most.
            used = response.usage_metadata
            said = [used.candidates_token_count or 0, used.thoughts_token_count or 0] if used else [max_tokens]
            return Reply(
                answers.text(response),
                answers.count(used.prompt_token_count if used else None, len(instruction) + len(question)),
                sum(answers.count(one, max_tokens) for one in said),
                answers.problem(response),
            )

    def open(self) -> None:
        """A client for one lesson: a closed one sends nothing more, and a connection is bound to its event loop."""
        self.client = clients.gemini(self.settings)

    async def close(self) -> None:
        await self.client.aio.aclose()
        self.client.close()
