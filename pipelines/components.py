"""The three steps of the music pipeline, as plain functions that KFP turns into components.

Each is thin over `melodify_lib`, imports it inside (KFP ships only a function's own source), and can
be called directly or used in another pipeline. A version that a step receives is checked against
what it finds: KFP's cache compares arguments, so a version among them makes a hit honest.

Each logs JSON, labelled with its name and the picture's hash, by which the logs of a song's steps are found: a trace
among the arguments would end all cache hits.
"""

# No `from __future__ import annotations` here: KFP reads the annotations as types.
from typing import Any

from kfp.dsl import Artifact, Input, Metrics, Model, Output


def load_describer(
    caption: dict[str, Any],
    image_sha256: str,
    genre: str,
    describer_settings: dict[str, Any],
    describer_version: str,
    given: dict[str, Any],
    model: Output[Model],
    request: Output[Artifact],
) -> None:
    """Load the text model, keep the copy that this run uses, and set its input.

    caption:            a `Caption` as JSON
    genre:              one of the twenty, or "" to let the describer choose
    describer_settings: the `Settings` that concern the describer
    describer_version:  the version expected of it
    given:              a `MusicDescription` as JSON, to be played as it is; empty to let the describer write it
    model:              the text model
    request:            what is asked of it: caption, genre, what is given and the picture's hash, as JSON
    """
    import json
    from pathlib import Path

    from melodify_lib import logs, stages
    from melodify_lib.errors import PipelineError
    from melodify_lib.model_folder import with_model_here
    from melodify_lib.nouns import Caption
    from melodify_lib.settings import Settings

    logs.configure_component(Settings.load(**describer_settings), component="load-describer", picture=image_sha256)
    loaded = stages.describer(Settings.load(**with_model_here(describer_settings)))
    if loaded.version.version != describer_version:
        raise PipelineError(f"the describer is {loaded.version.version}; the run was submitted for {describer_version}")
    loaded.export(Path(model.path))
    model.metadata["version"] = describer_version
    asked = {
        "caption": Caption.model_validate(caption).model_dump(),
        "genre": genre,
        "given": given,
        "image_sha256": image_sha256,
    }
    Path(request.path).write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")


def rework_caption(
    model: Input[Model], request: Input[Artifact], describer_settings: dict[str, Any], description: Output[Artifact]
) -> None:
    """Rework the caption into a music description with the text model.

    describer_settings: as for `load_describer`, whose copy of the model is used
    description:        a `MusicDescription` as JSON; its metadata has the prompt that MusicGen would read, and who
                        made it, where it was not given
    """
    import json
    import time
    from pathlib import Path

    from melodify_lib import logs, stages
    from melodify_lib.nouns import Caption, MusicDescription
    from melodify_lib.settings import Settings

    asked = json.loads(Path(request.path).read_text(encoding="utf-8"))
    settings = Settings.load(**{**describer_settings, "describer_model": model.path})
    logs.configure_component(settings, component="rework-caption", picture=asked["image_sha256"])
    if asked["given"]:
        made = MusicDescription.model_validate(asked["given"])
    else:
        describer = stages.DescriberWithFallback(settings)
        since = time.monotonic()
        result = describer.describe(Caption.model_validate(asked["caption"]), asked["genre"] or None)
        logs.stage_done("describe", result.describer, since)
        made = result.description
        description.metadata["describer"] = result.describer.model_dump()
        if result.fallback_from is not None:
            description.metadata["fallback_from"] = result.fallback_from.model_dump()
    Path(description.path).write_text(made.to_json(), encoding="utf-8")
    description.metadata["prompt"] = made.to_prompt()


def play_and_store(
    request: Input[Artifact],
    description: Input[Artifact],
    captioner: dict[str, Any],
    seconds: float,
    seed: int,
    musician_settings: dict[str, Any],
    musician_version: str,
    song: Output[Artifact],
    measured: Output[Metrics],
) -> None:
    """Make the music and store the track with its card.

    captioner:         the `StageVersion` that wrote the caption, as JSON
    seconds:           duration of the track in seconds
    musician_settings: the `Settings` that concern the musician and the store
    musician_version:  the version expected
    song:              the card in the store; the track's files lie beside it
    measured:          what the finished audio measures
    """
    import json
    import time
    from pathlib import Path

    from melodify_lib import logs, stages
    from melodify_lib.errors import PipelineError
    from melodify_lib.nouns import Caption, MusicDescription, StageVersion
    from melodify_lib.settings import Settings
    from melodify_lib.store import open_store

    asked = json.loads(Path(request.path).read_text(encoding="utf-8"))
    settings = Settings.load(**musician_settings)
    logs.configure_component(settings, component="play-and-store", picture=asked["image_sha256"])
    player = stages.musician(settings)
    if player.version.version != musician_version:
        raise PipelineError(f"the musician is {player.version.version}; the run was submitted for {musician_version}")
    since = time.monotonic()
    track = player.play(MusicDescription.parse(Path(description.path).read_text(encoding="utf-8")), seconds, seed)
    described_by, fell_back = (description.metadata.get(name) for name in ("describer", "fallback_from"))
    track = track.with_card(
        image_sha256=asked["image_sha256"],
        caption=Caption.model_validate(asked["caption"]),
        captioner=StageVersion.model_validate(captioner),
        describer=StageVersion.model_validate(described_by) if described_by else None,
        fallback_from=StageVersion.model_validate(fell_back) if fell_back else None,
    )
    logs.stage_done("play", player.version, since, song=track.card.files["track.wav"])
    song.uri = track.put_song(open_store(settings))
    values = track.card.measured.model_dump(exclude_none=True)
    # A file too: kfp.local takes an artifact without one for lost, and would never find this step in its cache.
    Path(measured.path).write_text(json.dumps(values), encoding="utf-8")
    for what, value in values.items():
        if isinstance(value, float):
            measured.log_metric(what, value)
