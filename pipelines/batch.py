"""Many pictures as a pipeline: listed, shared out, made at the same time, and what became of each in one table.

A task makes many songs: on Vertex AI each task is a machine that has to start, which takes longer than a song. A
picture that fails, fails alone (its task says so and goes on), and what was made before is found in the store, so a
run that was killed is started again and makes only the rest. KFP's own cache is off: it knows nothing of the store.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.dsl import Artifact, Input, Metrics, Output

from melodify_lib.batch import Result, from_json
from melodify_lib.errors import InputError, SettingsError
from melodify_lib.settings import Settings
from melodify_lib.store import open_store
from pipelines.graph import IMAGE, Resources, resources_for
from pipelines.run import batch_settings, runner

PARALLEL, PER_TASK = 2, 8
RETRIES = 2
"""How often a share is begun again whose process or machine was lost; what it made is found."""
TASK = "compose-pictures"


def list_pictures(pictures: str, settings: dict[str, Any], per_task: int) -> list[list[str]]:
    """Names of the pictures in a folder or under a gs:// address, `per_task` in a share."""
    from melodify_lib import logs
    from melodify_lib.batch import list_pictures
    from melodify_lib.settings import Settings

    chosen = Settings.load(**settings)
    logs.configure_component(chosen, component="list-pictures")
    names = list_pictures(chosen, pictures)
    return [names[start : start + per_task] for start in range(0, len(names), per_task)]


def compose_pictures(
    pictures: str, share: list[str], settings: dict[str, Any], seconds: float, seed: int, results: Output[Artifact]
) -> None:
    """A song for each picture of a share, or the reason why not. results: `melodify_lib.batch.Result`s as JSON"""
    from pathlib import Path

    from melodify_lib import logs
    from melodify_lib.batch import compose_all, to_json
    from melodify_lib.model_folder import with_model_here
    from melodify_lib.settings import Settings

    logs.configure_component(Settings.load(**settings), component="compose-pictures")
    chosen = Settings.load(**with_model_here(settings))
    done = list(compose_all(chosen, pictures, share, seconds=seconds, seed=seed))
    Path(results.path).write_text(to_json(done), encoding="utf-8")


def collect_results(shares: Input[list[Artifact]], results: Output[Artifact], counts: Output[Metrics]) -> None:
    """One table of all shares, and how many were made, found and failed."""
    from collections import Counter
    from pathlib import Path

    from melodify_lib.batch import from_json, to_json

    done = [one for share in shares for one in from_json(Path(share.path).read_text(encoding="utf-8"))]
    Path(results.path).write_text(to_json(done), encoding="utf-8")
    for state, count in Counter(one.state for one in done).items():
        counts.log_metric(state, count)


def batch_pipeline(
    image: str = IMAGE, parallel: int = PARALLEL, resources: Mapping[str, Resources] | None = None
) -> Any:
    """The pipeline as KFP sees it; at most `parallel` shares at the same time. `resources` as for `music_pipeline`."""
    given = dict(resources or {})
    listing, composing, collecting = (
        dsl.component(function, base_image=image, install_kfp_package=False)
        for function in (list_pictures, compose_pictures, collect_results)
    )

    @dsl.pipeline(name="melodify-batch", description="A folder of pictures in, their songs in the store.")
    def melodify_batch(
        pictures: str, settings: dict[str, Any], per_task: int = PER_TASK, seconds: float = 20.0, seed: int = 0
    ) -> dsl.Artifact:
        listed = listing(pictures=pictures, settings=settings, per_task=per_task)
        listed.set_caching_options(enable_caching=False)
        with dsl.ParallelFor(listed.output, parallelism=parallel) as share:
            composed = composing(pictures=pictures, share=share, settings=settings, seconds=seconds, seed=seed)
            composed.set_caching_options(enable_caching=False).set_retry(num_retries=RETRIES)
            given.get(TASK, Resources()).give(composed)
        collected = collecting(shares=dsl.Collected(composed.outputs["results"]))
        collected.set_caching_options(enable_caching=False)
        return collected.outputs["results"]

    return melodify_batch


def compile_batch(out: Path, image: str = IMAGE, parallel: int = PARALLEL) -> Path:
    """Write the pipeline's spec to `out` (.yaml or .json); return `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(batch_pipeline(image, parallel), str(out))
    return out


def run_batch(
    pictures: str,
    settings: Settings,
    *,
    seconds: float = 20,
    seed: int = 0,
    parallel: int = PARALLEL,
    per_task: int = PER_TASK,
    on_event: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Run it wherever the settings say. The same pictures and options, asked for while they are made, are one run.

    Raises `PipelineError` when it is not a picture that failed, and `InputError` or `SettingsError` where the machines
    of the run would lack the pictures or a key.
    """
    run_there = runner(settings)
    where = pictures if pictures.startswith("gs://") else str(Path(pictures).resolve())
    if settings.runner == "vertex" and not pictures.startswith("gs://"):
        raise InputError(
            f"a run on Vertex AI does not see {where}: gcloud storage cp --recursive {where} gs://{settings.bucket}/, "
            "and give that address"
        )
    if settings.runner == "vertex" and settings.captioner == "openai" and not settings.openai_secret:
        raise SettingsError(
            "the machines on Vertex AI have no key of OpenAI, and a job carries none: put it into Secret Manager "
            "(gcloud secrets create) and set MELODIFY_OPENAI_SECRET, or MELODIFY_CAPTIONER=local"
        )
    parameters = {
        "pictures": where,
        "settings": batch_settings(settings),
        "per_task": per_task,
        "seconds": float(seconds),
        "seed": seed,
    }
    _, address = run_there(
        batch_pipeline(settings.image or IMAGE, parallel, resources_for(settings, TASK)),
        parameters,
        settings,
        request="",
        is_whole=lambda address: False,  # there may be more pictures, or fewer songs, than a finished run knew of
        on_event=on_event,
    )
    folder, _, name = address.rpartition("/")
    return from_json(open_store(settings.model_copy(update={"store": folder})).get(name).decode())
