"""What is installed here, what each stage would use, and what is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from melodify_lib import stages, weights
from melodify_lib.errors import MelodifyError, install
from melodify_lib.settings import Settings

_EXTRAS = {
    "notebooks": ("papermill", "jupyterlab"),
    "evaluate": ("librosa", "sklearn"),
    "pipelines": ("kfp",),
    "cloud": ("openai", "aiolimiter"),
    "musicgen": ("onnx", "onnxruntime", "transformers"),
    "serving": ("flask", "gunicorn", "prometheus_client"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it can be used (None where that was not asked), and what was found or what to do."""

    ok: bool | None
    what: str
    found: str


def examine(settings: Settings | None = None) -> list[Finding]:
    """Look at everything that the flow needs; nothing is downloaded or paid for."""
    settings = settings or Settings.load()
    if not settings.allow_paid:
        return _here(settings)
    from melodify_lib.cloud import checks

    checks.import_clients()
    with ThreadPoolExecutor(1) as pool:  # the cloud has its time while the stages are built
        asked = pool.submit(checks.check, settings)
        return [*_here(settings), *(Finding(*found) for found in asked.result())]


def _here(settings: Settings) -> list[Finding]:
    return [
        Finding(
            True, "melodify", f"{version('melodify')}, Python {platform.python_version()}, {os.cpu_count()} processors"
        ),
        Finding(True, "profile", settings.profile),
        *(_stage(name, build, settings) for name, build in _BUILDERS.items()),
        _weights(),
        Finding(True, "torch", _torch()),
        *([] if settings.store.startswith("gs://") else [_store(Path(settings.store))]),
        *(_extra(name, modules) for name, modules in _EXTRAS.items()),
    ]


_ASK_THE_CLOUD = ("openai", "gemini", "endpoint", "lyria")
Build = Callable[[Settings], stages.Captioner | stages.Describer | stages.Musician]
_BUILDERS: dict[str, Build] = {
    "captioner": stages.captioner,
    "describer": stages.describer,
    "musician": stages.musician,
}


def _stage(name: str, build: Build, settings: Settings) -> Finding:
    def look() -> str:
        found = build(settings).version
        return f"{found.name} {found.version}"

    if getattr(settings, name) in _ASK_THE_CLOUD:
        from melodify_lib.cloud.checks import tried

        ok, found = tried(look)
        return Finding(ok, name, found)
    try:
        return Finding(True, name, look())  # a model may take its time to load
    except MelodifyError as error:
        return Finding(False, name, str(error))


def _weights() -> Finding:
    try:
        return Finding(True, "weights", weights.check())
    except MelodifyError as error:
        return Finding(False, "weights", str(error))


def _torch() -> str:
    import torch

    return (
        f"{torch.__version__}, {'CUDA ' + str(torch.version.cuda) if torch.cuda.is_available() else 'processor only'}"
    )


def _store(folder: Path) -> Finding:
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    writable = os.access(existing, os.W_OK)
    return Finding(
        writable, "store", f"{folder.resolve()}{'' if writable else ' cannot be written; set MELODIFY_STORE'}"
    )


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if find_spec(module) is None]
    return Finding(not missing, name, f"missing: {install(name)}" if missing else "installed")
