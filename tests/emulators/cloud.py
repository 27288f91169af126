"""The whole cloud on this machine, from Vertex AI to Artifact Registry, and settings that reach it.

python -m emulators                       # starts it, says how to use it, and waits
python -m emulators melodify doctor       # starts it for one command
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from emulators.gcs import BUCKET, gcs
from emulators.iam import IamEmulator
from emulators.openai import OpenAIEmulator
from emulators.pupil import Pupil
from emulators.templates import TemplatesEmulator
from emulators.vertex import PROJECT, VertexEmulator
from melodify_lib import stages
from melodify_lib.nouns import Caption
from melodify_lib.settings import Settings

ACCOUNT = "melodify@melodify.iam.gserviceaccount.com"
SECRET = f"projects/{PROJECT}/secrets/openai/versions/latest"
IMAGE = "us-central1-docker.pkg.dev/melodify/melodify/serving:local"


@dataclass(frozen=True)
class Cloud:
    """The servers, and the environment in which a program uses them as if they were the real ones."""

    iam: IamEmulator
    openai: OpenAIEmulator
    vertex: VertexEmulator
    templates: TemplatesEmulator
    environment: dict[str, str]


@contextmanager
def cloud() -> Iterator[Cloud]:
    """All servers, with keys that are new each time."""
    key, token = (secrets.token_urlsafe(24) for _ in range(2))
    model = Untuned()
    with (
        gcs() as gcs_url,
        IamEmulator(token, ACCOUNT) as iam,
        OpenAIEmulator(model, key) as openai,
        VertexEmulator(model, token, gcs_url) as vertex,
        TemplatesEmulator(token) as templates,
    ):
        environment = {
            "MELODIFY_PROFILE": "gcp",
            "MELODIFY_PROJECT": PROJECT,
            "MELODIFY_BUCKET": BUCKET,
            "MELODIFY_OPENAI_BASE_URL": openai.base_url,
            "MELODIFY_OPENAI_API_KEY": key,
            "MELODIFY_VERTEX_BASE_URL": vertex.url,
            "MELODIFY_ACCESS_TOKEN": token,
            "MELODIFY_GCS_BASE_URL": gcs_url,
            "MELODIFY_IAM_BASE_URL": iam.url,
            "MELODIFY_IAM_CREDENTIALS_BASE_URL": iam.url,
            "MELODIFY_QUOTAS_BASE_URL": iam.url,
            "MELODIFY_RESOURCE_MANAGER_BASE_URL": iam.url,
            "MELODIFY_SECRET_MANAGER_BASE_URL": iam.url,
            "MELODIFY_TEMPLATES_BASE_URL": templates.url,
            "MELODIFY_OPENAI_SECRET": SECRET,
            "MELODIFY_SERVICE_ACCOUNT": ACCOUNT,
            "MELODIFY_IMAGE": IMAGE,
        }
        iam.secrets[SECRET] = key
        vertex.machine = {name: value for name, value in environment.items() if name != "MELODIFY_OPENAI_API_KEY"}
        yield Cloud(iam, openai, vertex, templates, environment)


class Untuned:
    """A language model that was tuned on nothing: a teacher's question it answers as the teacher would, a caption
    as the describer does that never saw an example.
    """

    def __init__(self) -> None:
        self._pupil = Pupil()
        self._describer = stages.describer(Settings(profile="local", describer="zero_shot"))

    def __call__(self, question: str) -> Any:
        if question.lstrip().startswith("{"):
            return self._pupil(question)
        return self._describer.describe(Caption.from_text(question)).model_dump(mode="json")
