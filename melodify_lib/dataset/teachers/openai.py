"""The teacher that is an OpenAI model: Responses API, structured output."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from melodify_lib.cloud import answers, clients
from melodify_lib.cloud.prices import Price, price
from melodify_lib.dataset.teachers import Terms
from melodify_lib.dataset.teachers.paid import PaidTeacher, Reply
from melodify_lib.dataset.teachers.prompt import Answer

if TYPE_CHECKING:
    from openai import Omit
    from openai.types.responses import ResponseFormatTextJSONSchemaConfigParam
    from openai.types.shared import ReasoningEffort
    from openai.types.shared_params import Reasoning

    from melodify_lib.settings import Settings


def from_settings(settings: Settings, terms: Terms) -> PaidTeacher:
    """`settings.openai_model` as a teacher. Raises `PaidError` where the settings do not allow it."""
    of_model = price(settings.openai_model, settings)
    return PaidTeacher(OpenAIModel(settings, of_model), of_model, terms)


class OpenAIModel:
    """An OpenAI model that answers in the form of `Answer`."""

    def __init__(self, settings: Settings, of_model: Price) -> None:
        self.settings = settings
        self.client = clients.async_openai(settings)
        self.thinking = of_model.thinking

    @property
    def name(self) -> str:
        return self.settings.openai_model

    async def ask(self, instruction: str, question: str, max_tokens: int) -> Reply:
        """One answer. Raises `CloudError`."""
        from openai import omit

        form: ResponseFormatTextJSONSchemaConfigParam = {
            "type": "json_schema",
            "name": "example",
            "schema": Answer.model_json_schema(),
            "strict": True,
        }
        reasoning: Reasoning | Omit = {"effort": cast("ReasoningEffort", self.thinking)} if self.thinking else omit
        with clients.openai_errors(self.settings), clients.readable("OpenAI"):
            response = await self.client.responses.create(
                model=self.name,
                instructions=instruction,
                input=question,
                text={"format": form},
                reasoning=reasoning,
                max_output_tokens=max_tokens,
                store=False,
            )
            # An answer without figures is taken at its most.
            used = response.usage
            return Reply(
                response.output_text,
                answers.count(getattr(used, "input_tokens", None), len(instruction) + len(question)),
                answers.count(getattr(used, "output_tokens", None), max_tokens),
                answers.openai_problem(response),
            )

    def open(self) -> None:
        """A client for one lesson: a closed one sends nothing more, and a connection is bound to its event loop."""
        self.client = clients.async_openai(self.settings)

    async def close(self) -> None:
        await self.client.close()
