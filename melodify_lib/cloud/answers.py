"""Reading what Gemini and OpenAI answer: the text, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.genai.types import GenerateContentResponse, Part
    from openai.types.responses import Response


MOST_TOKENS = 10_000_000
"""No model reads or writes more in one request; a count above it is none."""


def count(said: Any, otherwise: int) -> int:
    """How many tokens a service says that it bills; `otherwise` where that cannot be a count."""
    if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) < 10:  # JSON's 64-bit integers
        said = int(said)
    is_count = isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= MOST_TOKENS
    return int(said) if is_count else otherwise


def text(response: GenerateContentResponse) -> str:
    """The answer's text without thoughts; empty when there is none."""
    parts = _parts(response)
    return "".join(part.text for part in parts if part.text and not part.thought)


def problem(response: GenerateContentResponse) -> str:
    """Why a response has no whole answer; empty when it has."""
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        return f"the question was blocked ({feedback.block_reason.value})"
    if not response.candidates:
        return "the answer was empty"
    reason = response.candidates[0].finish_reason
    if reason is not None and reason.value == "MAX_TOKENS":
        return "the answer was cut off (MAX_TOKENS); be brief"
    if reason is not None and reason.value not in ("STOP", "FINISH_REASON_UNSPECIFIED"):
        return f"the answer was stopped ({reason.value})"
    return "" if text(response) else "the answer was empty"


def openai_problem(response: Response) -> str:
    """Why a response of OpenAI has no whole answer; empty when it has."""
    for item in response.output:
        for part in item.content if item.type == "message" else ():
            if part.type == "refusal":
                return "the model refused"
    if response.error is not None:
        return f"the model failed ({response.error.code})"
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return f"the answer was cut off ({reason}); be brief"
    return "" if response.output_text else "the answer was empty"


def _parts(response: GenerateContentResponse) -> list[Part]:
    content = response.candidates[0].content if response.candidates else None
    return (content.parts or []) if content is not None else []
