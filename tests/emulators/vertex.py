"""Vertex AI as far as Melodify uses it: Gemini's generateContent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.genai import types
from pydantic import BaseModel, ValidationError

from emulators.server import Emulator, Refused, Request, route

_PARENT = r"/v1/(?P<parent>projects/[^/]+/locations/[^/]+)"
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}
_CONTENT_FIELDS = {
    "contents", "systemInstruction", "generationConfig", "safetySettings", "tools", "toolConfig", "labels",
    "cachedContent", "modelArmorConfig",
}  # fmt: skip


class VertexEmulator(Emulator):
    """`respond` is the untuned model: the user's text → answer, a JSON value or, for what is not JSON, a text."""

    def __init__(self, respond: Callable[[str], Any], token: str) -> None:
        self.respond = respond
        self.token = token
        super().__init__()

    def error(self, status: int, message: str) -> Any:
        return {"error": {"code": status, "message": message, "status": _CODES.get(status, "INTERNAL")}}

    @route("POST", _PARENT + r"/(?P<model>publishers/google/models/[^/:]+):generateContent")
    def generate_content(self, request: Request, parent: str, model: str) -> Any:
        self.authorise(request)
        question, config = read_question(request.body)
        return content(self.respond(question), model, question, config.max_output_tokens)

    def authorise(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, f"Request had invalid credentials: {request.headers.get('authorization')}")


def known(kind: type[BaseModel], value: Any) -> Any:
    """`value` as one of the SDK's own types, which know no other fields."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(400, f"Invalid {kind.__name__}: {first['loc']} {first['msg']}") from None


def read_question(body: dict[str, Any]) -> tuple[str, types.GenerationConfig]:
    """The user's text and the configuration of a generateContent request."""
    if unknown := set(body) - _CONTENT_FIELDS:
        raise Refused(400, f"Unknown name {sorted(unknown)}")
    contents = [known(types.Content, one) for one in body["contents"]]
    known(types.Content, body["systemInstruction"])
    config = known(types.GenerationConfig, body.get("generationConfig", {}))
    if config.response_mime_type != "application/json" or config.response_schema is None:
        raise Refused(400, "this emulator answers by a response schema only")
    return "".join(part.text for part in contents[-1].parts), config


def content(answer: Any, model: str, question: str, most: int | None = None) -> dict[str, Any]:
    """A generateContent answer; cut off where it is longer than `most` tokens."""
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    whole = len(text)
    text = text if most is None else text[: 4 * most]
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": text}]},
                "finishReason": "STOP" if len(text) == whole else "MAX_TOKENS",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": len(question) // 4 + 200,
            "candidatesTokenCount": len(text) // 4,
            "totalTokenCount": len(question) // 4 + 200 + len(text) // 4,
        },
        "modelVersion": model.rsplit("/", 1)[-1],
    }


def blocked(reason: str = "SAFETY") -> dict[str, Any]:
    """The question was blocked."""
    return {
        "promptFeedback": {"blockReason": reason},
        "usageMetadata": {"promptTokenCount": 300, "totalTokenCount": 300},
    }


def stopped(reason: str = "SAFETY") -> dict[str, Any]:
    """The answer was stopped; that is billed too."""
    return {
        "candidates": [{"finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 300, "candidatesTokenCount": 10, "totalTokenCount": 310},
    }
