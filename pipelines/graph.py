"""The graph: load the text model and set its input → rework the text → make the music and store it."""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from melodify_lib.errors import PipelineError
from melodify_lib.settings import Settings
from pipelines import components

IMAGE = "python:3.11"
"""Container image of the components. On Vertex, one that has melodify and kfp installed."""
TASKS = ("load-describer", "rework-caption", "play-and-store")


@dataclass(frozen=True)
class Resources:
    """The machine that a task gets on Vertex AI; what is empty is left to the service. kfp.local warns of it."""

    cpu: str = ""
    """Cores, as ``"4"``."""
    memory: str = ""
    """As ``"16G"``."""
    accelerator: str = ""
    """As ``"NVIDIA_L4"``."""
    accelerators: int = 1

    def give(self, task: Any) -> None:
        """Set them on a task of the graph."""
        if self.cpu:
            task.set_cpu_limit(self.cpu)
        if self.memory:
            task.set_memory_limit(self.memory)
        if self.accelerator:
            task.set_accelerator_type(self.accelerator).set_accelerator_limit(self.accelerators)


def resources_for(settings: Settings, task: str = TASKS[-1]) -> dict[str, Resources]:
    """What `task` needs to play as the musician of the settings does. Source of MusicGen's: bench/musicgen.py."""
    if settings.musician != "musicgen":
        return {}
    on_gpu = settings.device.startswith("cuda")
    return {task: Resources(cpu="4", memory="16G", accelerator="NVIDIA_L4" if on_gpu else "")}


def music_pipeline(
    image: str = IMAGE, resources: Mapping[str, Resources] | None = None, *, caching: bool = True
) -> Any:
    """The pipeline as KFP sees it, its components in the container `image`; `resources` by the task's name.

    `caching`: whether a task may take what it made of the same before.

    Raises `PipelineError` for resources of a task that there is not.
    """
    machines = dict(resources or {})
    if unknown := machines.keys() - TASKS:
        raise PipelineError(f"no task {sorted(unknown)[0]!r} to give resources to; there are: {', '.join(TASKS)}")
    load_describer, rework_caption, play_and_store = (
        # The image brings what it needs; kfp.local takes 0.06 s a component so, and 0.5 s otherwise.
        dsl.component(function, base_image=image, install_kfp_package=False)
        for function in (components.load_describer, components.rework_caption, components.play_and_store)
    )

    @dsl.pipeline(name="melodify-music", description="A caption in, a song with its card in the store.")
    def melodify_music(
        caption: dict[str, Any],
        captioner: dict[str, Any],
        image_sha256: str,
        describer_version: str,
        musician_version: str,
        describer_settings: dict[str, Any],
        musician_settings: dict[str, Any],
        genre: str = "",
        given: dict[str, Any] = {},  # noqa: B006 - KFP reads it
        seconds: float = 20.0,
        seed: int = 0,
    ) -> dsl.Artifact:
        loaded = load_describer(
            caption=caption,
            image_sha256=image_sha256,
            genre=genre,
            describer_settings=describer_settings,
            describer_version=describer_version,
            given=given,
        )
        reworked = rework_caption(
            model=loaded.outputs["model"], request=loaded.outputs["request"], describer_settings=describer_settings
        )
        played = play_and_store(
            request=loaded.outputs["request"],
            description=reworked.outputs["description"],
            captioner=captioner,
            seconds=seconds,
            seed=seed,
            musician_settings=musician_settings,
            musician_version=musician_version,
        )
        for name, task in zip(TASKS, (loaded, reworked, played), strict=True):
            task.set_caching_options(enable_caching=caching)
            machines.get(name, Resources()).give(task)
        return played.outputs["song"]

    return melodify_music


def spec_of(pipeline: Any) -> dict[str, Any]:
    """The compiled pipeline, as a job carries it."""
    from google.protobuf import json_format

    spec: dict[str, Any] = json_format.MessageToDict(pipeline.pipeline_spec)
    return spec


def tasks_of(spec: dict[str, Any]) -> list[str]:
    """Names of the tasks that run, each after those that it waits for; a loop's own in its place."""
    return _tasks_in(spec["root"]["dag"], spec["components"])


def _tasks_in(dag: dict[str, Any], components: dict[str, Any]) -> list[str]:
    waits = {name: task.get("dependentTasks", []) for name, task in dag["tasks"].items()}
    names: list[str] = []
    for name in TopologicalSorter(waits).static_order():
        inner = components[dag["tasks"][name]["componentRef"]["name"]].get("dag")
        names += _tasks_in(inner, components) if inner else [name]
    return names


def compile_pipeline(out: Path, image: str = IMAGE, resources: Mapping[str, Resources] | None = None) -> Path:
    """Write the pipeline's spec to `out` (.yaml or .json), the same bytes each time; return `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(music_pipeline(image, resources), str(out))
    return out
