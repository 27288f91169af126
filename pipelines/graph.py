"""The graph: load the text model and set its input → rework the text → make the music and store it."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines import components

IMAGE = "python:3.11"
"""Container image of the components. On Vertex, one that has melodify and kfp installed."""


def music_pipeline(image: str = IMAGE) -> Any:
    """The pipeline as KFP sees it, its components in the container `image`."""
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
        store: str,
        describer: str = "local",
        describer_model: str = "",
        genre: str = "",
        musician: str = "arranger",
        seconds: float = 20.0,
        seed: int = 0,
        soundfont: str = "",
    ) -> dsl.Artifact:
        loaded = load_describer(
            caption=caption,
            image_sha256=image_sha256,
            genre=genre,
            describer=describer,
            describer_model=describer_model,
            describer_version=describer_version,
        )
        reworked = rework_caption(model=loaded.outputs["model"], request=loaded.outputs["request"])
        played = play_and_store(
            model=loaded.outputs["model"],
            request=loaded.outputs["request"],
            description=reworked.outputs["description"],
            captioner=captioner,
            seconds=seconds,
            seed=seed,
            musician=musician,
            musician_version=musician_version,
            soundfont=soundfont,
            store=store,
        )
        for task in (loaded, reworked, played):
            task.set_caching_options(enable_caching=True)
        return played.outputs["song"]

    return melodify_music


def compile_pipeline(out: Path, image: str = IMAGE) -> Path:
    """Write the pipeline's spec to `out` (.yaml or .json), the same bytes each time; return `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(music_pipeline(image), str(out))
    return out
