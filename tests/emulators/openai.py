"""OpenAI's Responses API as far as Melodify uses it: structured output, refusals, truncation, usage."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import jsonschema
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from emulators.server import Emulator, Refused, Reply, Request, route
from melodify_lib.caption.local import LocalCaptioner

_PARAMS = TypeAdapter(ResponseCreateParamsNonStreaming)


class OpenAIEmulator(Emulator):
    """`respond` is the model: question → answer, a JSON value or, for what is not JSON, a text."""

    def __init__(self, respond: Callable[[str], Any], key: str) -> None:
        self.respond = respond
        self.see: Callable[[Image.Image], Any] = look_locally
        self.seen: list[Image.Image] = []
        self.key = key
        self._ids = itertools.count(1)
        super().__init__()

    @property
    def base_url(self) -> str:
        return f"{self.url}/openai/v1"

    def error(self, status: int, message: str) -> Any:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    @route("GET", r"/openai/v1/models/(?P<model>[^/]+)")
    def model(self, request: Request, model: str) -> Any:
        self._authorise(request)
        if not model.startswith("gpt-"):
            raise Refused(404, f"The model {model!r} does not exist")
        return {"id": model, "object": "model", "created": 1, "owned_by": "openai"}

    @route("POST", r"/openai/v1/responses")
    def responses(self, request: Request) -> Any:
        self._authorise(request)
        body = request.body
        try:
            known = _PARAMS.validate_python(body, strict=True)
        except ValidationError as error:
            raise Refused(400, f"Invalid request: {error.errors()[0]['loc']} {error.errors()[0]['msg']}") from None
        if known != body:  # a typed dict drops what it does not know
            raise Refused(400, f"Unknown parameter in {sorted(body)}")
        form = body.get("text", {}).get("format", {})
        if form.get("type") != "json_schema" or not form.get("strict"):
            raise Refused(400, "this emulator serves structured output only: text.format json_schema, strict")
        _check_strict(form["schema"])
        answer = self.respond(body["input"]) if isinstance(body["input"], str) else self._look(body["input"])
        return self.response(body, answer, form["schema"])

    def _authorise(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(401, f"Incorrect API key provided: {request.headers.get('authorization')}")

    def _look(self, turns: list[dict[str, Any]]) -> Any:
        """What `see` says of the one picture in the one turn."""
        if len(turns) != 1 or [part["type"] for part in turns[0]["content"]] != ["input_image"]:
            raise Refused(400, "this emulator looks at one picture at a time")
        kind, _, data = turns[0]["content"][0]["image_url"].partition(";base64,")
        try:
            image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("JPEG", "PNG", "WEBP"))
            image.load()
        except (ValueError, OSError):
            raise Refused(400, "The image data you provided does not represent a valid image") from None
        if kind != f"data:image/{str(image.format).lower()}":
            raise Refused(400, f"Invalid MIME type {kind}")
        self.seen.append(image)
        return self.see(image)

    def response(self, body: dict[str, Any], answer: Any, schema: dict[str, Any]) -> dict[str, Any]:
        """A response in the API's form; `answer` is cut off where it is longer than what was allowed."""
        if isinstance(answer, dict):
            jsonschema.validate(answer, schema)
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        asked = len(body["instructions"] + str(body["input"])[:4_000] + json.dumps(schema)) // 4
        most = body["max_output_tokens"]
        cut = len(text) // 4 > most
        return self._whole(
            body,
            {"type": "output_text", "text": text[: 4 * most], "annotations": []},
            asked,
            len(text[: 4 * most]) // 4,
            cut,
        )

    def refusal(self, request: Request) -> Reply:
        """The model refuses; that is billed too."""
        return Reply(
            self._whole(request.body, {"type": "refusal", "refusal": "I cannot help with that."}, 300, 10, False)
        )

    def _whole(
        self, body: dict[str, Any], part: dict[str, Any], asked: int, answered: int, cut: bool
    ) -> dict[str, Any]:
        status = "incomplete" if cut else "completed"
        number = next(self._ids)
        response = Response.model_validate(
            {
                "id": f"resp_{number}",
                "object": "response",
                "created_at": 1,
                "status": status,
                "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
                "model": body["model"],
                "parallel_tool_calls": True,
                "tool_choice": "auto",
                "tools": [],
                "output": [
                    {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": status, "content": [part]}
                ],
                "usage": {
                    "input_tokens": asked,
                    "output_tokens": answered,
                    "total_tokens": asked + answered,
                    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "output_tokens_details": {"reasoning_tokens": 0},
                },
            }
        )
        return response.model_dump(mode="json", exclude_unset=True)


def look_locally(image: Image.Image) -> dict[str, Any]:
    """What the local captioner sees, in the form that `melodify_lib.caption.openai` asks for."""
    caption = _captioner().caption(image.convert("RGB"))
    return {"text": caption.text, "valence": caption.valence, "arousal": caption.arousal}


@cache
def _captioner() -> LocalCaptioner:
    return LocalCaptioner()


def _check_strict(schema: dict[str, Any]) -> None:
    """What strict structured output asks of a schema: closed objects, everything required."""
    jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)
    if re.search(r'"(minLength|maxLength|default|patternProperties)":', text):
        raise Refused(400, "Invalid schema: keyword not permitted")
    if schema.get("additionalProperties") is not False or set(schema["required"]) != set(schema["properties"]):
        raise Refused(400, "Invalid schema: additionalProperties must be false and everything required")
