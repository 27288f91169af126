"""Reading what Gemini answers: the text, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.genai.types import GenerateContentResponse, Part


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


def _parts(response: GenerateContentResponse) -> list[Part]:
    content = response.candidates[0].content if response.candidates else None
    return (content.parts or []) if content is not None else []
