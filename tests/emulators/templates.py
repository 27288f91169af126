"""Artifact Registry as a repository of KFP templates, under one address for what is uploaded and what is asked."""

from __future__ import annotations

import hashlib
import re
from email.parser import BytesParser
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from emulators.server import Emulator, Refused, Reply, Request, route

REPOSITORY = r"/(?P<project>[a-z0-9-]+)/(?P<repository>[a-z0-9-]+)"
PACKAGE = REPOSITORY + r"/packages/(?P<package>[a-z0-9-]+)"


class TemplatesEmulator(Emulator):
    """`templates` by package and version, `tags` by package and name. What is there already is refused (409)."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.templates: dict[tuple[str, str], bytes] = {}
        self.tags: dict[tuple[str, str], str] = {}
        super().__init__()

    def error(self, status: int, message: str) -> Any:
        return {"error": {"code": status, "message": message}}

    @route("POST", REPOSITORY)
    def upload(self, request: Request, project: str, repository: str) -> Any:
        self._authorise(request)
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + request.body)
        fields = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}  # type: ignore[union-attr,misc]
        data: bytes = fields["content"].get_payload(decode=True)  # type: ignore[union-attr,assignment]
        try:
            spec = json_format.ParseDict(yaml.safe_load(data), PipelineSpec())
        except json_format.ParseError as error:
            raise Refused(400, f"not a pipeline: {error}") from None
        package, version = spec.pipeline_info.name, f"sha256:{hashlib.sha256(data).hexdigest()}"
        if (package, version) in self.templates:
            raise Refused(409, f"{version} already exists")
        self.templates[package, version] = data
        if "tags" in fields:
            for tag in fields["tags"].get_payload(decode=True).decode().split(","):  # type: ignore[union-attr]
                self.tags[package, tag] = version
        return Reply(f"{package}/{version}".encode(), headers={"Content-Type": "text/plain"})

    @route("GET", PACKAGE + r"/versions/(?P<version>sha256:[0-9a-f]{64})")
    def get_version(self, request: Request, project: str, repository: str, package: str, version: str) -> Any:
        self._authorise(request)
        if (package, version) not in self.templates:
            raise Refused(404, "no such version")
        return {"name": f"packages/{package}/versions/{version}"}

    @route("GET", PACKAGE + r"/tags/(?P<tag>[^/]+)")
    def get_tag(self, request: Request, project: str, repository: str, package: str, tag: str) -> Any:
        self._authorise(request)
        if (package, tag) not in self.tags:
            raise Refused(404, "no such tag")
        return {"version": f"packages/{package}/versions/{self.tags[package, tag]}"}

    @route("POST", PACKAGE + "/tags")
    def create_tag(self, request: Request, project: str, repository: str, package: str) -> Any:
        return self._point(request, package, request.query["tagId"][0], is_new=True)

    @route("PATCH", PACKAGE + r"/tags/(?P<tag>[^/]+)")
    def update_tag(self, request: Request, project: str, repository: str, package: str, tag: str) -> Any:
        return self._point(request, package, tag, is_new=False)

    def _point(self, request: Request, package: str, tag: str, *, is_new: bool) -> Any:
        self._authorise(request)
        if ((package, tag) in self.tags) is is_new:
            raise Refused(409 if is_new else 404, tag)
        found = re.fullmatch(r"packages/([^/]+)/versions/(sha256:\w+)", request.body["version"])
        if not found or (package, found[2]) not in self.templates:
            raise Refused(400, f"no version {request.body['version']}")
        self.tags[package, tag] = found[2]
        return request.body

    def _authorise(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "no valid token")
