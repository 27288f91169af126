"""The command line: one command, `melodify`, thin over the library.

Results go to standard output, progress and errors to standard error. This is an edge of the
library, like a notebook: the only module in it that reaches outward, to `pipelines` and `serving`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from melodify_lib.errors import (
    ImageError,
    InputError,
    MelodifyError,
    MissingDependencyError,
    ModelError,
    NotebookError,
    SettingsError,
    install,
)
from melodify_lib.genres import GENRES

if TYPE_CHECKING:
    from PIL.Image import Image

    from melodify_lib.cloud.resources import Resource
    from melodify_lib.dataset import Statistics
    from melodify_lib.evaluate import alignment, tracks
    from melodify_lib.evaluate.bars import Bar
    from melodify_lib.evaluate.describer import Evaluation
    from melodify_lib.nouns import Measures, MusicDescription, Track

log = logging.getLogger(__name__)

app = typer.Typer(
    help="A picture in, music that fits it out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
dataset_app = typer.Typer(help="Build, check and count the tuning dataset.", no_args_is_help=True)
notebooks_app = typer.Typer(help="Run the notebooks.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Measure how good a stage is.", no_args_is_help=True)
pipeline_app = typer.Typer(help="Compile and run the Kubeflow pipeline.", no_args_is_help=True)
cloud_app = typer.Typer(help="What Melodify made in Google Cloud: list it, clean it away.", no_args_is_help=True)
app.add_typer(cloud_app, name="cloud")
app.add_typer(dataset_app, name="dataset")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(notebooks_app, name="notebooks")
app.add_typer(pipeline_app, name="pipeline")

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


class Export(StrEnum):
    """The forms of a track that are written on request."""

    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"


Picture = Annotated[Path, typer.Argument(metavar="IMAGE", help="A JPEG, PNG or WebP picture.")]
Seconds = Annotated[float, typer.Option(help="Length of the track in seconds, 4 to 300.")]
Seed = Annotated[int, typer.Option(help="Another seed, another piece.")]
OwnSeed = Annotated[
    int | None,
    typer.Option(help="Another seed, another piece; by default that of the picture, or of what else is given."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for track.wav, track.mid and card.json.")]
Loop = Annotated[
    bool, typer.Option("--loop", help="Whole bars that join on to their own beginning, instead of an end; arranger.")
]
Stems = Annotated[
    bool, typer.Option("--stems", help="A file a part too, in stems/; together they are the mix; arranger.")
]
Takes = Annotated[int, typer.Option(min=1, max=20, help="Play so many, from the seed on, and keep the best.")]
Formats = Annotated[
    list[Export] | None,
    typer.Option("--format", help="Beside track.wav, a track.mp3, .flac or .ogg; may be repeated."),
]
GenreName = Annotated[str | None, typer.Option("--genre", help=f"Choose the genre: {', '.join(GENRES)}.")]
MusicianName = Annotated[str | None, typer.Option("--musician", help="Who plays (MELODIFY_MUSICIAN).")]
DescriberModel = Annotated[
    Path | None, typer.Option("--describer-model", help="Folder of a tuned describer; the one that ships if not given.")
]
Runner = Annotated[
    str | None, typer.Option(help="Where: local (kfp.local) or vertex (Vertex AI, paid) (MELODIFY_RUNNER).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
EvaluationOut = Annotated[Path, typer.Option("--out", "-o", help="Folder for the figures as JSON, and the plots.")]
TABLES = Path("data/generate_jsonl")
Source = Annotated[Path, typer.Option("--source", help="Folder with the teacher's tables.")]
JsonlFile = Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file.")]


def main() -> None:
    """Run the command line, in one trace; one line and exit code 1 for anything that Melodify refuses."""
    from melodify_lib import logs

    with logs.tracing(_begin_logs()):
        try:
            app()
        except MelodifyError as error:
            if _logs_json():
                log.error("%s", error)
            else:
                err.print(Text.assemble(("error:", "red"), " ", _printable(error)))
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(1)
        except Exception:
            if not _logs_json():
                raise
            log.critical("melodify failed", exc_info=True)
            sys.exit(1)


def _begin_logs() -> str:
    """Log as the environment says; the trace that it names, or nothing."""
    from melodify_lib import logs
    from melodify_lib.settings import Settings

    try:
        settings = Settings.load()
    except SettingsError:  # the command that needs them says it
        return ""
    logs.configure(settings)
    return logs.given(settings)


def _logs_json() -> bool:
    return log.isEnabledFor(logging.INFO)  # text is for warnings only


@app.command()
def compose(
    image: Picture,
    seconds: Seconds = 20,
    seed: OwnSeed = None,
    out_dir: Out = Path("melodify-out"),
    genre: GenreName = None,
    musician: MusicianName = None,
    describer_model: DescriberModel = None,
    loop: Loop = False,
    stems: Stems = False,
    takes: Takes = 1,
    formats: Formats = None,
    as_json: Json = False,
) -> None:
    """Make music for a picture: writes track.wav, track.mid and card.json."""
    genre = _genre(genre)
    with _status("Loading") as status:
        from melodify_lib.flow import Composer, Watcher
        from melodify_lib.settings import Settings

        class Spinner(Watcher):
            def begin(self, stage: str) -> None:
                status(_DOING[stage])

            def playing(self, share: float) -> None:
                status(f"{_DOING['play']}, {share:.0%}")

        composer = Composer(Settings.load(musician=musician, describer_model=describer_model))
        track = composer.compose(
            image, seconds=seconds, seed=seed, genre=genre, loop=loop, stems=stems, takes=takes, watcher=Spinner()
        )
        track.save(out_dir, [format.value for format in formats or ()])
    _print_track(track, out_dir, as_json)


@app.command()
def caption(images: Annotated[list[Path], typer.Argument(metavar="IMAGE…")], as_json: Json = False) -> None:
    """Say what pictures show and how they feel."""
    with _status("Loading"):
        from melodify_lib import stages
        from melodify_lib.image import open_image
        from melodify_lib.settings import Settings

        captioner = stages.captioner(Settings.load())
    for path in images:
        result = captioner.caption(open_image(path))
        if as_json:
            typer.echo(result.model_dump_json())
        else:
            typer.echo(f"{path}: {result.text}\n  valence {result.valence:+.2f}, arousal {result.arousal:+.2f}")


@app.command()
def describe(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…|-", help="Captions; - reads one a line.")],
    genre: GenreName = None,
    describer_model: DescriberModel = None,
    as_json: Json = False,
) -> None:
    """Turn captions into music descriptions, one for each, in order."""
    from melodify_lib import stages
    from melodify_lib.nouns import Caption
    from melodify_lib.settings import Settings

    genre = _genre(genre)
    with _status("Loading"):
        describer = stages.describer(Settings.load(describer_model=describer_model))
    for text in _lines() if texts == ["-"] else texts:
        result = describer.describe(Caption.from_text(text), genre)
        typer.echo(result.to_json() if as_json else result.to_prompt())


@app.command()
def play(
    description: Annotated[Path, typer.Argument(metavar="DESCRIPTION.json", help="A description, or - for stdin.")],
    seconds: Seconds = 20,
    seed: OwnSeed = None,
    out_dir: Out = Path("melodify-out"),
    musician: MusicianName = None,
    loop: Loop = False,
    stems: Stems = False,
    takes: Takes = 1,
    formats: Formats = None,
    as_json: Json = False,
) -> None:
    """Play a music description."""
    from melodify_lib import stages
    from melodify_lib.nouns import MusicDescription, own_seed
    from melodify_lib.settings import Settings

    text = sys.stdin.read() if str(description) == "-" else _read_text(description)
    with _status(_DOING["play"]) as status:
        from melodify_lib.music.takes import play_best

        player = stages.musician(Settings.load(musician=musician))
        extras = stages.extras(player, loop=loop, stems=stems)
        described = MusicDescription.parse(text)
        seed = own_seed(described.to_json().encode()) if seed is None else seed
        track = play_best(
            player, described, seconds, seed, takes,
            lambda share: status(f"{_DOING['play']}, {share:.0%}"), **extras,
        )  # fmt: skip
        track.save(out_dir, [format.value for format in formats or ()])
    _print_track(track, out_dir, as_json)


@app.command()
def replay(
    source: Annotated[
        Path, typer.Argument(metavar="CARD.json|TRACK", help="A card, or a .wav, .flac, .mp3 or .ogg with one inside.")
    ],
    out_dir: Out = Path("melodify-out"),
    as_json: Json = False,
) -> None:
    """Make a track again, to the same bytes, or say why that cannot be."""
    from melodify_lib import flow
    from melodify_lib.music.formats import FORMATS, read_card
    from melodify_lib.nouns import TrackCard

    with _status(_DOING["play"]):
        if source.suffix[1:].lower() in FORMATS:
            file = _read_bytes(source)
            track = flow.replay(read_card(file), file=file)
        else:
            track = flow.replay(TrackCard.from_json(_read_text(source)))
        track.save(out_dir)
    _print_track(track, out_dir, as_json)


@app.command()
def tune(
    train: Annotated[Path, typer.Argument(metavar="TRAIN.jsonl", help="The training split.")] = Path(
        "data/generate_jsonl/output/train.jsonl"
    ),
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tuned describer.")] = Path(
        "runs/describer"
    ),
    validation: Annotated[Path | None, typer.Option(help="A validation split, to report on.")] = None,
    tuner: Annotated[
        str | None, typer.Option(help="Who tunes: local (here, free) or vertex (Gemini, paid) (MELODIFY_TUNER).")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Dollars that tuning on Vertex may cost.")] = None,
    epochs: Annotated[int, typer.Option(help="Vertex: how often the file is gone through.")] = 3,
    learning_rate_multiplier: Annotated[float, typer.Option(help="Vertex: times the default learning rate.")] = 1.0,
    adapter_size: Annotated[int, typer.Option(help="Vertex: 1, 2, 4, 8, 16 or 32; larger learns more.")] = 4,
    as_json: Json = False,
) -> None:
    """Tune a describer on a JSONL dataset: the local one, or Gemini on Vertex AI.

    Vertex first says what it would cost, and refuses what passes the budget. Ctrl-C cancels its job. A job whose
    watching was cut off goes on: the same command takes it up again and pays for no second one. `melodify teardown`
    deletes what it made.
    """
    from melodify_lib.settings import Settings
    from melodify_lib.tuning import Plan
    from melodify_lib.tuning import tuner as tuner_of

    plan = Plan(
        epochs=epochs,
        learning_rate_multiplier=learning_rate_multiplier,
        adapter_size=adapter_size,
        budget=budget,
        on_event=_say,
    )
    with _progress("Tuning") as on_progress:
        chosen = tuner_of(Settings.load(tuner=tuner), plan)
        result = chosen.tune(train, out_dir, validation=validation, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps({"out": str(out_dir), "seconds": round(result.seconds, 1), **result.metrics}))
    else:
        _print_table({"tuned describer": out_dir, "seconds": f"{result.seconds:.1f}", **result.metrics})


@app.command()
def teardown(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that `tune --tuner vertex` wrote.")],
) -> None:
    """Delete what tuning on Vertex made: the endpoint, the model, the uploaded dataset."""
    from melodify_lib.settings import Settings
    from melodify_lib.tuning.teardown import teardown as tear_down

    with _status("Deleting"):
        deleted = tear_down(folder, Settings.load())
    for name in deleted:
        typer.echo(f"deleted {name}")
    if not deleted:
        typer.echo("everything was gone already")


@app.command()
def serve(
    musician: MusicianName = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for everybody's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, envvar="AIP_HTTP_PORT", help="Port to listen on.")] = 8080,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Requests at once; by default those that play or wait, and 16 to spare.")
    ] = None,
) -> None:
    """Serve music over HTTP, as on Vertex AI: POST /predict, GET /health, GET /metrics."""
    from importlib.util import find_spec

    from melodify_lib.settings import Settings
    from serving import command

    if not all(find_spec(name) for name in ("flask", "gunicorn", "prometheus_client")):
        raise MissingDependencyError(f"serving needs an extra: {install('serving')}")
    settings = Settings.load(musician=musician)
    if threads is not None and threads <= settings.songs + settings.waiting:
        raise InputError(
            f"{threads} threads are too few: {settings.songs} songs play and {settings.waiting} wait, each with a "
            "request; give more, or lower MELODIFY_SONGS or MELODIFY_WAITING"
        )
    started = command(host, port)
    if threads is not None:
        started += ["--threads", str(threads)]
    os.execve(started[0], started, {**os.environ, "MELODIFY_MUSICIAN": settings.musician})  # noqa: S606, no shell


@app.command()
def web(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, envvar="PORT", help="Port to listen on.")] = 8000,
) -> None:
    """Serve the web application: upload a picture, watch, listen. Ctrl-C ends it.

    WEB_… in the environment sets it up (see web/config.py); as it comes, all it keeps is in runs/.
    """
    try:
        from web import server
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("melodify_lib", "web"):
            raise
        raise MissingDependencyError(f"the web application needs an extra: {install('web')}") from error
    server.run(host, port, _say)


@app.command()
def doctor() -> None:
    """Say what is installed, what each stage would use, and what is missing."""
    from melodify_lib.doctor import examine

    findings = examine()
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row(Text(*_FOUND[finding.ok]), finding.what, Text(_printable(finding.found)))
    out.print(table)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


@dataset_app.command("build")
def dataset_build(
    source: Source = TABLES,
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the three splits.")] = Path("runs/dataset"),
    per_genre: Annotated[int | None, typer.Option(help="Examples a genre, all splits together.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another choice of scenes; offline, the same bytes.")] = 0,
    teacher: Annotated[
        str, typer.Option(help="Who writes: offline (tables and a grammar, free), openai or gemini (paid).")
    ] = "offline",
    budget: Annotated[
        float | None, typer.Option(help="Dollars that a paid teacher may spend in this folder, runs before included.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a minute to a paid teacher, at most.")] = 300,
) -> None:
    """Write train, validation and test splits.

    A paid teacher first says what it would cost, and stops before it passes the budget. Its answers are kept in
    answers.journal: the same command takes up where a run was stopped, and pays for nothing twice.
    """
    from melodify_lib import dataset

    options: dict[str, Any] = {} if per_genre is None else {"per_genre": per_genre}
    with _progress("Writing") as on_progress:
        summary = dataset.build(
            source,
            out_dir,
            seed=seed,
            teacher=teacher,
            budget=budget,
            rate=rate,
            on_estimate=lambda estimate: _say(str(estimate)),
            on_progress=on_progress,
            **options,
        )
    rows = _plain(summary)
    dropped = ", ".join(f"{count:,} for {why}" for why, count in rows.pop("dropped").items())
    spent = rows.pop("spent")
    _print_table(rows if teacher == "offline" else {**rows, "dropped": dropped or "none", "spent": f"${spent:.4f}"})


@dataset_app.command("check")
def dataset_check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="JSONL files; several are splits of one set.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--source", help="Folder with genres.yaml, for tempos and line-ups; data/generate_jsonl if it is here."
        ),
    ] = None,
    alike: Annotated[
        bool, typer.Option("--alike/--no-alike", help="Look for near-duplicates and leaked scenes (15 ms a caption).")
    ] = True,
    as_json: Json = False,
) -> None:
    """Check JSONL files: Gemini's tuning contract, balance, duplicates, leakage, names, secrets.

    Anybody's file; each problem is a line with its file, line, field and fix. Exit code 1 when there are problems.
    """
    from melodify_lib import dataset
    from melodify_lib.dataset.checks import distinct
    from melodify_lib.dataset.tables import load_genres

    files = distinct(files)
    if source is None and (TABLES / "genres.yaml").exists():
        source = TABLES
    genres = load_genres(source) if source is not None else None
    with _progress("Comparing") as on_progress:
        problems = dataset.check(*files, genres=genres, alike=alike, on_progress=on_progress)
    for problem in problems:
        if as_json:
            # Escaped, as fields and texts of anybody's file could steer the terminal.
            typer.echo(json.dumps({**_plain(problem), "file": str(problem.file)}, ensure_ascii=True))
        else:
            where = f"{problem.file}:{problem.line}" if problem.line else str(problem.file)
            typer.echo(_printable(f"{where}: {problem.field}: {problem.what}; {problem.fix}"))
    if problems:
        raise typer.Exit(1)
    if not as_json:
        typer.echo(f"{len(files)} file{'s' if len(files) > 1 else ''} checked: no problems")


@dataset_app.command("stats")
def dataset_stats(
    file: JsonlFile,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this file (.png, .svg or .pdf).")] = None,
    as_json: Json = False,
) -> None:
    """Count what a JSONL file holds, genre by genre, and draw it."""
    from melodify_lib import dataset

    stats = dataset.stats(file)
    if as_json:
        typer.echo(json.dumps(_plain(stats), ensure_ascii=False))
    else:
        _print_statistics(stats)
    if plot is not None:
        from melodify_lib.plots import plot_statistics, save

        save(plot_statistics(stats), plot)


@evaluate_app.command("describer")
def evaluate_describer(
    describer_model: DescriberModel = None,
    describer: Annotated[str | None, typer.Option(help="Who is evaluated (MELODIFY_DESCRIBER).")] = None,
    dataset_folder: Annotated[
        Path, typer.Option("--dataset", help="Folder with train.jsonl, which retrieval looks up, and test.jsonl.")
    ] = Path("data/generate_jsonl/output"),
    ood: Annotated[Path, typer.Option(help="Captions written by hand, with what is acceptable for each.")] = Path(
        "data/generate_jsonl/ood_captions.jsonl"
    ),
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for evaluation.json and the plots.")] = Path(
        "runs/evaluation"
    ),
    promote: Annotated[
        Path | None, typer.Option(help="Copy the model into this folder, from which it is served, if the gate agrees.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Zero-shot, retrieval and a tuned describer side by side, and the gate's verdict.

    The verdict is written beside the model (gate.json); a refused model is not served. Exit code 1 when it is refused.
    """
    from melodify_lib.describe.local import SHIPPED
    from melodify_lib.evaluate import gate
    from melodify_lib.evaluate.describer import METRICS
    from melodify_lib.evaluate.report import side_by_side, write
    from melodify_lib.settings import Settings

    if describer == "gemini" and describer_model is None:
        raise InputError("name the folder that `melodify tune --tuner vertex` wrote: --describer-model FOLDER")
    with _progress("Asking") as on_progress:
        settings = Settings.load(describer=describer, describer_model=describer_model)
        evaluation = side_by_side(settings, dataset_folder, ood, on_progress=on_progress)
    write(evaluation, out_dir)
    folder = settings.describer_model or SHIPPED
    verdict = gate.judge(evaluation, "tuned", folder)
    if settings.describer_model is not None:
        gate.label(folder, verdict, evaluation)
    if promote is not None and verdict.promoted:  # before anything is printed: a closed pipe must not undo it
        gate.promote(folder, promote)
    if as_json:
        typer.echo(json.dumps({**evaluation.to_dict(), "gate": verdict.model_dump()}, ensure_ascii=False))
    else:
        _print_evaluation(evaluation, METRICS)
        confused = (f"{one} → {other} {count}" for one, other, count in evaluation.confusions("tuned"))
        _print_table({"confused": ", ".join(confused), "gate": verdict.verdict, "written": out_dir})
    if not verdict.promoted:
        raise ModelError(f"the gate refuses the describer: {'; '.join(verdict.reasons)}")


@evaluate_app.command("tracks")
def evaluate_tracks(
    descriptions: Annotated[int, typer.Option(min=1, help="How many, over all genres.")] = 200,
    seconds: Seconds = 20,
    seed: Seed = 0,
    musician: MusicianName = None,
    file: Annotated[Path, typer.Option("--file", help="A JSONL file to draw the descriptions from.")] = Path(
        "data/generate_jsonl/output/test.jsonl"
    ),
    out_dir: EvaluationOut = Path("runs/evaluation"),
    as_json: Json = False,
) -> None:
    """Play many descriptions, and measure what was asked in the finished files, by an ear that is not ours.

    Tempo, key, loudness, true peak, silence and duration, as librosa and others hear them and as the cards say; whether
    genres are told apart, and whether five seeds are five pieces. Exit code 1 when a bar is missed.
    """
    from melodify_lib import stages
    from melodify_lib.dataset import read
    from melodify_lib.evaluate import report
    from melodify_lib.evaluate import tracks as of_tracks
    from melodify_lib.settings import Settings

    chosen = of_tracks.choose(read(file), descriptions, seed)
    with _progress("Playing") as on_progress:
        player = stages.musician(Settings.load(musician=musician))
        evaluation = of_tracks.evaluate(player, chosen, seconds=seconds, seed=seed, on_progress=on_progress)
    report.write_tracks(evaluation, out_dir)
    _print_evaluated(evaluation, _print_tracks, out_dir, as_json)


@evaluate_app.command("alignment")
def evaluate_alignment(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PICTURES…", help="Pictures; if none, photographs at hand and made ones."),
    ] = None,
    seconds: Seconds = 12,
    seed: Seed = 0,
    permutations: Annotated[int, typer.Option(min=99, max=100_000, help="How often the pairs are shuffled.")] = 10_000,
    changed: Annotated[int, typer.Option(min=0, help="How many pictures are warmed, brightened and so on.")] = 8,
    musician: MusicianName = None,
    out_dir: EvaluationOut = Path("runs/evaluation"),
    as_json: Json = False,
) -> None:
    """Does the music fit its picture better than another's? Affect as it is heard in the audio, against shuffled pairs.

    Then pictures are brightened, darkened, warmed and saturated in steps, and the music must go the published way or
    stay. Exit code 1 when a bar is missed.
    """
    from melodify_lib import stages
    from melodify_lib.evaluate import alignment as of_alignment
    from melodify_lib.evaluate import report
    from melodify_lib.evaluate.pictures import default_pictures
    from melodify_lib.image import open_image
    from melodify_lib.settings import Settings

    def opened(path: Path) -> Image:
        try:
            return open_image(path)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    with _progress("Playing") as on_progress:
        settings = Settings.load(musician=musician)
        images = default_pictures(seed=seed) if not pictures else {str(path): opened(path) for path in pictures}
        evaluation = of_alignment.evaluate(
            stages.captioner(settings),
            stages.describer(settings),
            stages.musician(settings),
            images,
            seconds=seconds,
            seed=seed,
            permutations=permutations,
            changed=changed,
            on_progress=on_progress,
        )
    report.write_alignment(evaluation, out_dir)
    _print_evaluated(evaluation, _print_alignment, out_dir, as_json)


@notebooks_app.command("run")
def notebooks_run(
    image: Annotated[str, typer.Option(help="Picture for the song; a sample photograph if not given.")] = "",
    only: Annotated[list[str] | None, typer.Option(help="Only notebooks whose names start so, such as 03.")] = None,
    profile: Annotated[str, typer.Option(help="Profile that the notebooks run in.")] = "local",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter; VALUE is JSON or text."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = Path("notebooks"),
    runs: Annotated[Path, typer.Option(help="Folder for the runs; the newest is runs/latest.")] = Path("runs"),
    timeout: Annotated[
        int | None, typer.Option(help="Time limit of a cell in seconds; by the profile if not given.")
    ] = None,
) -> None:
    """Run the notebooks with papermill, strictly, and write a report."""
    from dataclasses import replace

    from melodify_lib.notebooks import LIMITS, check_parameters, find_notebooks, new_run, point_latest, run_notebooks
    from melodify_lib.report import write_report
    from melodify_lib.settings import Settings

    Settings.load(profile=profile)
    parameters = {"profile": profile, **dict(_parse_parameter(text) for text in parameter or [])}
    if image:
        if not Path(image).is_file():
            raise InputError(f"no picture at {image}")
        parameters["image"] = str(Path(image).resolve())
    paths = find_notebooks(folder, only or ())
    check_parameters(paths, parameters)
    run = new_run(runs)
    results = run_notebooks(
        paths,
        run,
        parameters,
        limits=replace(LIMITS[profile], **({"cell_s": timeout} if timeout else {})),
        on_result=lambda result: err.print(
            Text.assemble(_PASSED[result.passed], f" {result.notebook} {result.seconds:.1f} s")
        ),
    )
    with _status("Writing the report"):
        report = write_report(run, results)
    latest = point_latest(run)
    made = {"song": "song/track.wav", "card": "song/card.json", "notebooks": "", "report": report.name}
    _print_table({what: latest / name for what, name in made.items() if (latest / name).exists()})
    failed = [result for result in results if not result.passed]
    if failed:
        raise NotebookError("; ".join(f"{result.notebook}: {result.error}" for result in failed))


@notebooks_app.command("keep")
def notebooks_keep(
    address: Annotated[str, typer.Argument(metavar="FOLDER|gs://…", help="Where to.")],
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Put the newest run's executed notebooks, results and report into a folder or bucket, however it ended."""
    from melodify_lib.notebooks import keep
    from melodify_lib.settings import Settings
    from melodify_lib.store import open_store

    for one in keep(runs, open_store(Settings.load(store=address))):
        typer.echo(one)


@pipeline_app.command("compile")
def pipeline_compile(
    out_file: Annotated[Path, typer.Option("--out", "-o", help="The spec, .yaml or .json.")] = Path(
        "runs/pipeline.yaml"
    ),
    image: Annotated[str | None, typer.Option(help="Container image of the components (MELODIFY_IMAGE).")] = None,
) -> None:
    """Write the pipeline's spec, with the resources that the musician of the settings needs."""
    from melodify_lib.settings import Settings

    graph = _pipelines("graph")
    settings = Settings.load(image=image)
    typer.echo(graph.compile_pipeline(out_file, settings.image or graph.IMAGE, graph.resources_for(settings)))


@pipeline_app.command("upload")
def pipeline_upload(
    template: Annotated[Path, typer.Argument(metavar="FILE", help="What `pipeline compile` wrote.")] = Path(
        "runs/pipeline.yaml"
    ),
    tag: Annotated[list[str] | None, typer.Option(help="A name for this version; may be repeated.")] = None,
) -> None:
    """Put a compiled pipeline into Artifact Registry; what is there already is not uploaded again."""
    from melodify_lib.settings import Settings

    with _status("Uploading"):
        address = _pipelines("template").upload(template, Settings.load(), tags=tag or [])
    typer.echo(address)


@pipeline_app.command("run")
def pipeline_run(
    image: Picture,
    seconds: Seconds = 20,
    seed: OwnSeed = None,
    genre: GenreName = None,
    musician: MusicianName = None,
    describer_model: DescriberModel = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Take what was made before.")] = True,
    runner: Runner = None,
    request: Annotated[
        str, typer.Option(help="Vertex AI: the same picture and options are one job, unless this differs.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Run the pipeline for a picture, step by step, on this machine or on Vertex AI.

    On Vertex AI, Ctrl-C cancels the job. One whose watching was cut off goes on: the same command takes it up again.
    """
    from melodify_lib.settings import Settings

    pipeline = _pipelines("run")
    settings = Settings.load(musician=musician, describer_model=describer_model, runner=runner)
    with _status("Captioning") as status:
        parameters = pipeline.arguments(image, settings, seconds=seconds, seed=seed, genre=_genre(genre))
        status("Running the pipeline")
        run = pipeline.run(
            parameters,
            settings,
            caching=cache,
            request=request,
            on_event=_say,
        )
    if as_json:
        typer.echo(json.dumps({"tasks": run.tasks, "song": run.song, "card": run.card_address}))
    else:
        _print_table({**run.tasks, "song": run.song, "card": run.card_address, "seconds": f"{run.seconds:.1f}"})


@cloud_app.command("deploy")
def cloud_deploy(
    image: Annotated[str | None, typer.Option(help="Container image of the endpoint (MELODIFY_IMAGE).")] = None,
    musician: Annotated[str, typer.Option(help="Who plays there: arranger or musicgen.")] = "arranger",
    artifacts: Annotated[str, typer.Option(help="gs:// folder of MusicGen's checkpoint.")] = "",
    machine_type: Annotated[str, typer.Option(help="Machine, such as g2-standard-4.")] = "n2-standard-4",
    accelerator_type: Annotated[str, typer.Option(help="Its accelerator, such as NVIDIA_L4.")] = "",
    share: Annotated[int, typer.Option(help="Percent of the traffic while it is tried.")] = 10,
    answers: Annotated[int, typer.Option(min=1, help="Songs that it must make.")] = 3,
    within: Annotated[float, typer.Option(help="Seconds that each may take.")] = 60,
    seconds: Annotated[float, typer.Option(help="Length of these songs.")] = 8,
    as_json: Json = False,
) -> None:
    """Let a new version of the musician serve, if it passes: paid by the hour from then on.

    It is registered and deployed beside the version that serves, with a share of the traffic, and asked for songs. One
    that answers, in time, gets all the traffic and the older version is undeployed; else it is itself. Nothing serves
    twice in the end, an error, Ctrl-C or SIGTERM between included; after SIGKILL, `melodify cloud settle` sees to it.
    """
    from melodify_lib.cloud import endpoints, rollout
    from melodify_lib.settings import Settings

    settings = Settings.load(image=image)
    if not settings.image:
        raise SettingsError("no image to deploy: set MELODIFY_IMAGE, best by digest")
    environment = endpoints.container_environment(settings, musician)
    if musician == "musicgen" and not artifacts:
        environment["MELODIFY_CHECKPOINT"] = settings.checkpoint
    with _interrupted_by_sigterm():
        model = endpoints.register(
            settings, settings.image, artifacts=artifacts, environment=environment, aliases=["candidate"], on_event=_say
        )
        gate = rollout.Gate(share=share, answers=answers, within_s=within, seconds=seconds)
        done = rollout.roll_out(
            settings, model, gate, machine_type=machine_type, accelerator_type=accelerator_type, on_event=_say
        )
    if as_json:
        typer.echo(json.dumps(_plain(done)))
    else:
        heard = {"its answers": done.canary_s, "the older version's": done.older_s}
        slowest = {who: f"{max(took):.1f} s at most, of {len(took)}" for who, took in heard.items() if took}
        _print_table({"serves": done.model, "endpoint": done.endpoint, **slowest})


@cloud_app.command("settle")
def cloud_settle() -> None:
    """End what a `cloud deploy` that was killed left: the version with the most traffic serves alone."""
    from melodify_lib.cloud import rollout
    from melodify_lib.settings import Settings

    settings = Settings.load()
    with _status("Looking"):
        keep = rollout.settle(settings, on_event=_say)
    typer.echo(f"{keep} serves alone" if keep else "nothing is served")


@cloud_app.command("list")
def cloud_list(
    as_json: Json = False,
    none: Annotated[bool, typer.Option("--none", help="Exit code 1 where there is anything.")] = False,
) -> None:
    """List endpoints, models, pipeline jobs and tuning jobs with our labels, and what they cost an hour."""
    from melodify_lib.cloud import resources
    from melodify_lib.settings import Settings

    with _status("Looking"):
        found = resources.find(Settings.load())
    _print_resources(found, as_json)
    if none and found:
        raise typer.Exit(1)


@cloud_app.command("clean")
def cloud_clean(
    run: Annotated[str, typer.Option(help="What this run made, expired or not.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything with our labels.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete what has expired. What is without our labels is never touched. Exit code 1 when something is left."""
    from melodify_lib.cloud import resources
    from melodify_lib.settings import Settings

    settings = Settings.load()
    with _status("Looking"):
        chosen = resources.choose(resources.find(settings), run=run, everything=everything)
    if not chosen:
        typer.echo("nothing to clean")
        return
    if dry_run or not yes:
        for one in chosen:
            typer.echo(f"{one.kind} {one.name} ({one.state}) would be deleted")
    if dry_run or not (yes or typer.confirm(f"Delete {len(chosen)}?")):
        return
    left = resources.clean(settings, chosen, lambda one, what: typer.echo(_printable(f"{one.kind} {one.name}: {what}")))
    if left:
        raise typer.Exit(1)


@pipeline_app.command("batch")
def pipeline_batch(
    pictures: Annotated[str, typer.Argument(metavar="FOLDER|gs://…", help="Where the pictures are.")],
    seconds: Seconds = 20,
    seed: Seed = 0,
    musician: MusicianName = None,
    parallel: Annotated[int, typer.Option(min=1, help="Tasks at the same time.")] = 2,
    per_task: Annotated[int, typer.Option(min=1, help="Pictures in a task.")] = 8,
    runner: Runner = None,
    budget: Annotated[float | None, typer.Option(help="Dollars that OpenAI, Gemini and Lyria may cost.")] = None,
    as_json: Json = False,
) -> None:
    """Make a song for every picture, as a pipeline; what was made before is found again.

    On Vertex AI pictures and store are gs:// addresses, and Ctrl-C cancels the job. Where models are paid it first says
    what that would cost, and refuses what passes the budget. Exit code 1 when pictures failed; the others are made.
    """
    from melodify_lib.settings import Settings

    batch = _pipelines("batch")
    with _status("Running the pipeline"):
        results = batch.run_batch(
            pictures,
            Settings.load(musician=musician, runner=runner),
            seconds=seconds,
            seed=seed,
            parallel=parallel,
            per_task=per_task,
            budget=budget,
            on_event=_say,
        )
    if as_json:
        typer.echo(json.dumps([_plain(one) for one in results], ensure_ascii=False))
    else:
        for one in results:
            typer.echo(_printable(f"{one.state} {one.picture}: {one.song or one.error}"))
    if any(one.state == "failed" for one in results):
        raise typer.Exit(1)


_FELL_BACK = "{0.name}, as {1.name} failed"
_FOUND = {True: ("ok", "green"), False: ("no", "red"), None: ("?", "yellow")}
_PASSED = {True: ("passed", "green"), False: ("failed", "red")}
_DOING = {"caption": "Looking at the picture", "describe": "Describing the music", "play": "Playing"}


@contextmanager
def _status(text: str) -> Iterator[Any]:
    """A spinner on standard error where there is a terminal; yields a function that changes its text."""
    with err.status(f"{text} …") as status:
        yield lambda text: status.update(f"{text} …")


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM, by which whoever runs a build ends it, is Ctrl-C: what was begun is tidied up."""
    import signal

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(text: str) -> Iterator[Any]:
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _say(text: str) -> None:
    if _logs_json():
        log.info("%s", text)
    else:
        err.print(Text(_printable(text)))


def _genre(name: str | None) -> str | None:
    if name is not None and name not in GENRES:
        raise InputError(f"no genre {name!r}; choose one of: {', '.join(GENRES)}")
    return name


def _lines() -> Iterator[str]:
    """Captions on standard input, one a line; an empty line is an error that names it."""
    for number, data in enumerate(sys.stdin.buffer, start=1):
        try:
            line = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"line {number} of standard input is not UTF-8 ({error.reason})") from None
        if not line.strip():
            raise InputError(f"line {number} of standard input is empty; give one caption a line")
        yield line


_LARGEST = 2**26
"""Bytes of a file that is read whole: five minutes of WAV are 53 MB."""


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if len(data) > _LARGEST:
        raise InputError(f"{path} has more than {_LARGEST / 2**20:.0f} MiB: it is none of Melodify's files")
    return data


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _parse_parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"parameter {text!r} has no value; write NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _pipelines(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"pipelines.{module}")
    except ModuleNotFoundError as error:
        if error.name != "kfp":
            raise
        raise MissingDependencyError(f"the pipeline needs an extra: {install('pipelines')}") from error


def _plain(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def _print_track(track: Track, folder: Path, as_json: bool) -> None:
    card = track.card
    if as_json:
        typer.echo(card.to_json(), nl=False)
        return
    described: MusicDescription = card.description
    _print_table(
        {
            **({"picture": card.caption.text} if card.caption else {}),
            "music": described.description,
            "": f"{described.genre}, {described.bpm} bpm, {described.key}; {', '.join(described.instruments)}",
            **({"describer": _FELL_BACK.format(card.describer, card.fallback_from)} if card.fallback_from else {}),
            "asked": _measures(card.requested),
            "measured": _measures(card.measured),
            **(
                {f"take of {len(card.takes)}": f"seed {card.seed}: {'; '.join(card.takes[0].reasons)}"}
                if card.takes
                else {}
            ),
            **{Path(name).stem if name == "card.json" else name: folder / name for name in [*track.files, "card.json"]},
        }
    )


def _measures(measures: Measures) -> str:
    return (
        f"{measures.bpm or '–'} bpm, {measures.key or 'no key'}, {measures.duration_s} s, "
        f"{measures.loudness_lufs} LUFS, {measures.true_peak_dbtp} dBTP"
    )


def _print_resources(found: list[Resource], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([{**_plain(one), "expires": one.expires and str(one.expires)} for one in found]))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("what", "name", "run", "expires", "state", "price"):
        table.add_column(column)
    for one in found:
        price = "unknown" if one.dollars_an_hour is None else f"${one.dollars_an_hour:.3f} an hour"
        name = "/".join(one.name.split("/")[-2:])
        table.add_row(one.kind, name, one.run, str(one.expires or "never"), one.state, price)
    Console(width=max(out.width, 160)).print(table)
    total = sum(one.dollars_an_hour or 0 for one in found)
    unknown = " and what is unknown" if any(one.dollars_an_hour is None for one in found) else ""
    prices = "by list prices (melodify_lib/cloud/machines.yaml)"
    typer.echo(f"{len(found)} in all, ${total:.3f}{unknown} an hour {prices}")


def _print_statistics(stats: Statistics) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("genre", "examples", "", "bpm from", "mean", "to", "minor"):
        table.add_column(name, justify="left" if name in ("genre", "") else "right")
    most = max(stats.genres.values())
    for genre, count in stats.genres.items():
        slowest, mean, fastest = stats.bpm[genre]
        bar = "█" * round(20 * count / most)
        minor = f"{stats.minor_share[genre]:.0%}"
        table.add_row(genre, f"{count:,}", bar, f"{slowest}", f"{mean:.0f}", f"{fastest}", minor)
    out.print(table)
    words = sorted(stats.caption_words)
    _print_table(
        {
            "examples": f"{stats.examples:,}",
            "words in a caption": f"{words[0]} to {words[-1]}, median {words[len(words) // 2]}",
            **{
                name: ", ".join(f"{word} {count:,}" for word, count in list(counts.items())[:12])
                for name, counts in (
                    ("moods", stats.moods),
                    ("instruments", stats.instruments),
                    ("keywords", stats.keywords),
                )
            },
        }
    )


def _print_evaluation(evaluation: Evaluation, metrics: dict[str, str]) -> None:
    table = Table(box=None, pad_edge=False)
    wide = out.width >= 160
    for name in ("", *evaluation.scores, *(["what it is"] if wide else [])):
        table.add_column(name, no_wrap=True)
    for metric, meaning in metrics.items():
        digits = 1 if metric == "bpm error" else 2
        figures = [evaluation.figure(name, metric) for name in evaluation.scores]
        cells = [f"{one.value:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]" for one in figures]
        table.add_row(metric, *cells, *([meaning] if wide else []))
    out.print(table)
    table = Table(box=None, pad_edge=False)
    for name in ("acceptable of answers", *evaluation.genres):
        table.add_column(name)
    for genre in GENRES:
        counts = [evaluation.genres[name][genre] for name in evaluation.genres]
        table.add_row(genre, *(f"{good} of {given}" for given, good in counts))
    out.print(table)


def _print_evaluated(evaluation: Any, show: Callable[[Any], None], folder: Path, as_json: bool) -> None:
    """Print what music was heard to be. Exit with 1, and say why, when a bar is missed."""
    if as_json:
        typer.echo(json.dumps(evaluation.to_dict(), ensure_ascii=False))
    else:
        show(evaluation)
        _print_table({"written": folder})
    missed: list[Bar] = [bar for bar in evaluation.bars() if not bar.passed]
    for bar in missed:
        _say(f"bar missed: {bar}")
    if missed:
        raise typer.Exit(1)


def _print_tracks(evaluation: tracks.Evaluation) -> None:
    rest = {"loudness": "LUFS", "peak": "peak", "silence": "silence", "duration": "length"}
    table = Table(box=None, pad_edge=False)
    for name in ("genre", "pulse", "tempo", "card", "key", "card", *rest.values()):
        table.add_column(name, justify="left" if name == "genre" else "right", no_wrap=True)
    for genre in (*evaluation.genres, None):
        heard, card = evaluation.shares("heard", genre), evaluation.shares("card", genre)
        count = sum(genre in (None, one.description.genre) for one in evaluation.played)
        shares = [heard["tempo"], card["tempo"], heard["key"], card["key"], *(heard[name] for name in rest)]
        table.add_row(genre or "all", f"{evaluation.pulses(genre)} of {count}", *map(_share, shares))
    out.print(table)
    typer.echo("Shares of tracks as heard, and by their cards; of the tempo, of tracks with a pulse.")
    if evaluation.told_apart is not None:
        apart = evaluation.told_apart
        hardest = sorted(apart.genres, key=apart.recall)[:5]
        _print_table(
            {
                "genres told apart": f"{apart.accuracy:.2f} of held-out tracks",
                "hardest": ", ".join(f"{genre} {apart.recall(genre):.1f}" for genre in hardest),
            }
        )
    if evaluation.overlaps:
        table = Table(box=None, pad_edge=False)
        for name in ("melodies of five seeds", "alike", "at most", "in shape", "within one"):
            table.add_column(name, justify="left" if name.startswith("mel") else "right", no_wrap=True)
        for genre, one in evaluation.overlaps.items():
            figures = (one.mean, one.largest, one.shapes, one.within)
            table.add_row(genre, *(f"{figure:.3f}" for figure in figures))
        out.print(table)
    for line in evaluation.worst():
        typer.echo(_printable(f"missed: {line}"))


def _print_alignment(evaluation: alignment.Evaluation) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("audio against", "distance", "shuffled", "p", "Cohen's d", "r valence", "r arousal"):
        table.add_column(name, justify="left" if name == "audio against" else "right", no_wrap=True)
    for who, one in evaluation.comparisons.items():
        correlations = [f"{r:+.2f}" for r in one.r]
        figures = (f"{one.distance:.3f}", f"{one.shuffled.mean():.3f}", f"{one.p:.4f}", f"{one.effect:.2f}")
        table.add_row(who, *figures, *correlations)
    out.print(table)
    typer.echo(f"{len(evaluation.names)} pictures; distances in standard deviations of the set.")
    table = Table(box=None, pad_edge=False)
    columns = ("change", "genre", "right or stayed", "not back", "reversed", "captions", "descriptions", "way, SD")
    for name in columns:
        table.add_column(name, justify="left" if name in columns[:2] else "right", no_wrap=True)
    figures_of = evaluation.to_dict()["steps"]
    for genre, changes in figures_of.items():
        for change, shares in changes.items():
            table.add_row(change, genre, *(f"{value:.2f}" for value in shares.values()))
        right, strictly = evaluation.share(genre), evaluation.share(genre, by="strictly")
        other_way = evaluation.share(genre, by="reversed")
        table.add_row("all", genre, *(f"{share:.2f}" for share in (right, strictly, other_way)), "", "", "")
    out.print(table)
    stays = ", ".join(f"{axis} {value:.2f}" for axis, value in evaluation.stays.items())
    typer.echo(f"What another seed alone moves, and so counts as staying, in standard deviations: {stays}.")
    typer.echo("Reversed: the share that would be right if the other way were; what is above it is no allowance.")


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"  # noqa: PLR0124, NaN is not itself


def _printable(value: object) -> str:
    """Text in one line and without control characters: what comes from a file must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def _print_table(rows: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(_printable(value)))
    out.print(table)
