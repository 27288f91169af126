"""What the notebooks draw. Every function returns a matplotlib figure that says in words what it shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from melodify_lib.errors import InputError
from melodify_lib.moods import MOODS, nearest

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from melodify_lib.dataset import Statistics
    from melodify_lib.evaluate import alignment, tracks
    from melodify_lib.evaluate.describer import Evaluation
    from melodify_lib.nouns import Caption, Track


_UNITS = {
    "bpm error": "bpm off (less is better)",
    "moods F1": "F1, 0 to 1",
    "instruments F1": "F1, 0 to 1",
}
"""What a figure of a describer is counted in; the others are shares."""
_SHARE = "share, 0 to 1"


class Drawing(Figure):
    """A figure with `alt`, what it shows in words: for who does not see it, and where no picture can be shown."""

    def __init__(self, alt: str, size: tuple[float, float]) -> None:
        super().__init__(figsize=size, layout="constrained")
        self.alt = alt

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        shown = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": self.alt}
        return shown, {"image/png": {"alt": self.alt}}


def plot_caption(image: Image, caption: Caption) -> Figure:
    """The picture, its palette, and where it lies between unpleasant and pleasant, calm and excited."""
    valence, arousal = caption.valence or 0.0, caption.arousal or 0.0
    figure, (left, right) = _subplots(
        f"The picture over its palette; beside it moods on a plane, where it lies at valence {valence:+.2f} and "
        f"arousal {arousal:+.2f}, nearest to {' and '.join(nearest(valence, arousal))}.",
        1,
        2,
        (11, 4.2),
        width_ratios=(1.3, 1),
    )
    left.imshow(image)
    left.set_axis_off()
    for index, colour in enumerate(caption.palette):
        left.add_patch(_rectangle((index / len(caption.palette), -0.08), 1 / len(caption.palette), 0.06, colour, left))
    right.axhline(0, color="0.8", lw=1)
    right.axvline(0, color="0.8", lw=1)
    right.plot(*zip(*MOODS.values(), strict=True), ".", ms=3, color="0.7")
    named: list[tuple[float, float]] = []
    for mood in nearest(valence, arousal, len(MOODS)):  # those that would be written over another's name are only dots
        x, y = MOODS[mood]
        if all(abs(x - other_x) > 0.5 or abs(y - other_y) > 0.09 for other_x, other_y in named):
            right.annotate(mood, (x, y), (0, 3), textcoords="offset points", ha="center", fontsize=8, color="0.35")
            named.append((x, y))
    right.plot(valence, arousal, "o", ms=13, mew=2.5, fillstyle="none", color="C3", label="the picture")
    right.set(
        xlim=(-1.15, 1.15),
        ylim=(-1.1, 1.1),
        xlabel="valence (unpleasant → pleasant)",
        ylabel="arousal (calm → excited)",
    )
    right.legend(loc="lower left", frameon=False)
    return figure


def plot_track(track: Track) -> Figure:
    """Waveform and spectrogram."""
    figure, (top, bottom) = _subplots(
        f"Waveform and spectrogram of {track.audio.shape[1] / track.sample_rate:.1f} s of music.",
        2,
        1,
        (11, 4.6),
        sharex=True,
        height_ratios=(1, 2),
    )
    mono = track.audio.mean(axis=0)
    step = max(mono.size // 4000, 1)
    frames = mono[: mono.size // step * step].reshape(-1, step)
    time = np.arange(len(frames)) * step / track.sample_rate
    top.fill_between(time, frames.min(axis=1), frames.max(axis=1), lw=0)
    top.set(ylabel="amplitude\n(full scale is 1)", ylim=(-1, 1))
    *_, shades = bottom.specgram(mono + 1e-9, NFFT=2048, Fs=track.sample_rate, noverlap=1024, vmin=-140, cmap="magma")
    figure.colorbar(shades, ax=bottom, label="level (dB/Hz)", pad=0.01)
    bottom.set(xlabel="time (s)", ylabel="frequency (Hz)", yscale="symlog", xlim=(0, time[-1]), ylim=(40, 16_000))
    return figure


def plot_score(midi: bytes) -> Figure:
    """Piano roll of a MIDI file: a colour a part; drums have no pitch and are left out."""
    import mido

    parts = _notes(mido.MidiFile(file=io.BytesIO(midi)))
    figure, axes = _subplots(f"Piano roll of the score, a colour a part: {', '.join(parts)}.", 1, 1, (11, 4.2))
    for index, (name, notes) in enumerate(parts.items()):
        starts, lengths, pitches = np.array(notes).T
        axes.barh(pitches, lengths, left=starts, height=0.8, color=f"C{index % 10}", label=name)
    octaves = range(24, 109, 12)
    axes.set(
        xlabel="time (s)", ylabel="pitch", yticks=octaves, yticklabels=[f"C{pitch // 12 - 1}" for pitch in octaves]
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _notes(file: Any) -> dict[str, list[tuple[float, float, int]]]:
    """(start in seconds, length in seconds, pitch) of every note, by track name; drums are left out."""
    notes: dict[str, list[tuple[float, float, int]]] = {}
    tempo = next((message.tempo for track in file.tracks for message in track if message.type == "set_tempo"), 500_000)
    second = tempo / 1e6 / file.ticks_per_beat
    for track in file.tracks:
        now, sounding = 0, {}
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity and message.channel != 9:
                sounding[message.note] = now
            elif message.type in ("note_on", "note_off") and message.note in sounding:
                start = sounding.pop(message.note)
                notes.setdefault(track.name, []).append((start * second, (now - start) * second, message.note))
    return notes


def plot_counts(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Stacked bars: for each split, how many examples each genre has."""
    genres = list(dict.fromkeys(genre for split in counts.values() for genre in split))
    sums = ", ".join(f"{name} {sum(split.values())}" for name, split in counts.items())
    figure, axes = _subplots(f"Examples of each of {len(genres)} genres, stacked by split: {sums}.", 1, 1, (11, 3.6))
    below = np.zeros(len(genres))
    for name, split in counts.items():
        heights = np.array([split.get(genre, 0) for genre in genres])
        axes.bar(genres, heights, bottom=below, label=name)
        below += heights
    axes.set(ylabel="examples")
    axes.tick_params(axis="x", rotation=60)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=len(counts))
    return figure


def plot_statistics(statistics: Statistics) -> Figure:
    """What a dataset holds: examples, tempos and minor keys of each genre, commonest words, lengths of captions."""
    genres = list(statistics.genres)[::-1]
    figure, axes = _subplots(
        f"Six panels about {sum(statistics.genres.values())} examples in {len(genres)} genres: how many, their tempos "
        "and share in minor by genre; the commonest moods and instruments; the length of captions.",
        2,
        3,
        (14, 9),
    )
    slowest, _, fastest = np.array([statistics.bpm[genre] for genre in genres], float).T
    axes[0, 0].barh(genres, [statistics.genres[genre] for genre in genres])
    axes[0, 1].barh(genres, fastest - slowest, left=slowest)
    axes[0, 2].barh(genres, [statistics.minor_share[genre] for genre in genres])
    for panel, words in ((axes[1, 0], statistics.moods), (axes[1, 1], statistics.instruments)):
        commonest = list(words)[:20][::-1]
        panel.barh(commonest, [words[word] for word in commonest])
    axes[1, 2].hist(statistics.caption_words, bins=30)
    axes[1, 2].set_ylabel("captions")
    titles = {
        "genres": "examples",
        "tempo, slowest to fastest": "bpm",
        "minor keys": "share of examples",
        "commonest moods": "examples",
        "commonest instruments": "examples",
        "length of captions": "words",
    }
    for panel, (title, unit) in zip(axes.flat, titles.items(), strict=True):
        panel.set(title=title, xlabel=unit)
    return figure


def plot_figures(evaluation: Evaluation, metrics: Sequence[str]) -> Figure:
    """One panel a metric: each describer's figure with its 95 % interval."""
    columns = 4
    rows = -(-len(metrics) // columns)
    names = list(evaluation.scores)[::-1]
    figure, axes = _subplots(
        f"Figures of {', '.join(names[::-1])} with their 95 % intervals, a panel each: {', '.join(metrics)}.",
        rows,
        columns,
        (13, 1.9 * rows),
        sharey=True,
    )
    for panel, metric in zip(np.ravel(axes), metrics, strict=False):
        for row, name in enumerate(names):
            one = evaluation.figure(name, metric)
            panel.plot([one.low, one.high], [row, row], lw=2, color=f"C{row}")
            panel.plot(one.value, row, "o", color=f"C{row}")
        panel.set(
            title=metric,
            xlabel=_UNITS.get(metric, _SHARE),
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(-0.6, len(names) - 0.4),
        )
    for panel in np.ravel(axes)[len(metrics) :]:
        panel.set_axis_off()
    return figure


def plot_confusion(matrices: Mapping[str, npt.NDArray[np.int64]], names: Sequence[str]) -> Figure:
    """For each describer, which genre (column) it answered to examples of which genre (row)."""
    right = ", ".join(f"{title} {matrix.trace()} of {matrix.sum()}" for title, matrix in matrices.items())
    figure, axes = _subplots(
        f"Which genre was answered to examples of which, as squares of shades. On the diagonal lie, by describer: "
        f"{right}.",
        1,
        len(matrices),
        (5.2 * len(matrices) + 0.8, 5.4),
        sharey=True,
        squeeze=False,
    )
    most = max(matrix.max() for matrix in matrices.values())
    for panel, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        shades = panel.imshow(matrix, cmap="magma", vmin=0, vmax=most)
        panel.set(title=title, xlabel="genre answered", xticks=range(len(names)), yticks=range(len(names)))
        panel.set_xticklabels(names, rotation=90)
        panel.set_yticklabels(names)
    axes[0, 0].set_ylabel("genre of the example")
    figure.colorbar(shades, ax=axes, label="examples", pad=0.01)
    return figure


def plot_requested(evaluation: tracks.Evaluation) -> Figure:
    """Tempo asked against tempo heard, with the octaves that count as the same; and the shares that keep a promise."""
    asked = np.array([one.description.bpm for one in evaluation.played if one.heard.bpm is not None], float)
    heard = np.array([one.heard.bpm for one in evaluation.played if one.heard.bpm is not None], float)
    good = np.array([one.credit("heard")["tempo"] == 1 for one in evaluation.played if one.heard.bpm is not None])
    figure, (left, right) = _subplots(
        f"Tempo heard over tempo asked, {good.sum():g} of {good.size} right; beside it a table of shares of tracks, by "
        "genre, that keep what was asked of them.",
        1,
        2,
        (13, 5.2),
        width_ratios=(1, 1.1),
    )
    ends = np.array([asked.min(initial=60), asked.max(initial=180)])
    for octave, label in ((0.5, "half"), (1, "as asked"), (2, "double")):
        left.plot(ends, octave * ends, color="0.8", lw=1, zorder=0)
        at = min(ends[1], 245 / octave)
        left.annotate(label, (at, octave * at), color="0.4", ha="right", va="bottom")
    left.plot(asked[good], heard[good], "o", ms=4, alpha=0.6, label="right")
    left.plot(asked[~good], heard[~good], "x", ms=6, color="C3", label="wrong")
    left.set(xlabel="tempo asked (bpm)", ylabel="tempo heard (bpm)", ylim=(30, 270))
    left.legend(frameon=False)
    shares = np.array([list(evaluation.shares("heard", genre).values()) for genre in evaluation.genres])
    names = list(evaluation.shares("heard"))
    colours = matplotlib.colormaps["Reds_r"].with_extremes(bad="0.9")  # misses are what is to be seen
    right.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = "–" if np.isnan(share) else f"{share:.2f}"
        right.text(column, row, text, color=_ink(colours(share)), ha="center", va="center", fontsize=8)
    right.set(
        title="share of tracks that keep it, as heard",
        xticks=range(len(names)),
        xticklabels=names,
        yticks=range(len(evaluation.genres)),
        yticklabels=evaluation.genres,
    )
    return figure


def plot_alignment(evaluation: alignment.Evaluation) -> Figure:
    """A dot a picture: how it feels against how its music sounds, on both axes, by each reading of the picture."""
    rows = evaluation.comparisons
    figure, axes = _subplots(
        f"How {len(evaluation.names)} pictures feel against how their music sounds, a dot each. Correlations: "
        + "; ".join(f"by {who}, valence {one.r[0]:+.2f}, arousal {one.r[1]:+.2f}" for who, one in rows.items())
        + ".",
        len(rows),
        2,
        (9, 4.2 * len(rows)),
        squeeze=False,
    )
    for panels, (who, one) in zip(axes, rows.items(), strict=True):
        for column, (panel, axis) in enumerate(zip(panels, ("valence", "arousal"), strict=True)):
            panel.axline((0, 0), slope=1, color="0.8", lw=1)
            panel.plot(one.picture[:, column], one.audio[:, column], "o", ms=5, alpha=0.6)
            panel.set(
                title=f"{axis}: r {one.r[column]:+.2f}, p {one.r_p[column]:.4f}",
                xlabel=f"picture, by {who} (SD)",
                ylabel="its audio (SD)",
            )
    return figure


def plot_shuffled(evaluation: alignment.Evaluation) -> Figure:
    """Mean distance between pictures and audio over all shuffles, and where the true pairs lie."""
    figure, axes = _subplots(
        "Histograms of the mean distance between pictures and audio over all shuffles, and the true pairs': "
        + "; ".join(
            f"by {who} {one.distance:.2f} against {one.shuffled.mean():.2f}, p {one.p:.4f}"
            for who, one in evaluation.comparisons.items()
        )
        + ".",
        1,
        len(evaluation.comparisons),
        (5.5 * len(evaluation.comparisons), 3.6),
        squeeze=False,
    )
    for panel, (who, one) in zip(axes[0], evaluation.comparisons.items(), strict=True):
        panel.hist(one.shuffled, bins=60, color="0.75", label="shuffled pairs")
        panel.axvline(one.distance, color="C3", lw=2, label="true pairs")
        panel.set(
            title=f"against {who}: p {one.p:.4f}, d {one.effect:.2f}",
            xlabel="mean distance of picture and audio (SD)",
            ylabel="shuffles",
        )
        panel.legend(frameon=False)
    return figure


def plot_steps(evaluation: alignment.Evaluation) -> Figure:
    """For each change (a row a genre: free or held), how far each picture's music went the right way, and the mean."""
    names = list(dict.fromkeys(step.change for steps in evaluation.steps.values() for step in steps))
    shares = (f"{one}, genre {genre} {evaluation.share(genre, one):.0%}" for genre in evaluation.steps for one in names)
    figure, axes = _subplots(
        f"How far music went the right way, step by step; steps right or stayed: {'; '.join(shares)}.",
        len(evaluation.steps),
        len(names),
        (3.4 * len(names), 3 * len(evaluation.steps)),
        sharey=True,
        squeeze=False,
    )
    for panels, (genre, steps) in zip(axes, evaluation.steps.items(), strict=True):
        for panel, change in zip(panels, names, strict=True):
            pictures = list(dict.fromkeys(step.picture for step in steps))
            moves = [
                [0.0, *(step.audio for step in steps if step.picture == picture and step.change == change)]
                for picture in pictures
            ]
            ways = np.cumsum(moves, axis=1)
            panel.axhline(0, color="0.8", lw=1)
            panel.plot(ways.T, color="C0", alpha=0.3, lw=1)
            panel.plot(ways.mean(axis=0), color="C3", lw=2.5)
            panel.set(
                title=f"{change}, genre {genre}: {evaluation.share(genre, change):.0%}",
                xlabel="step",
                xticks=range(ways.shape[1]),
            )
        panels[0].set_ylabel("moved the right way (SD)")
    return figure


def plot_curves(
    curves: Mapping[str, Sequence[float]], steps: Sequence[float], *, over: str, unit: str = _SHARE
) -> Figure:
    """One small plot a curve; its values are counted in `unit`, and lie at `steps`, which are counted in `over`."""
    ends = "; ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, values in curves.items())
    figure, axes = _subplots(f"Curves over {over}: {ends}.", 1, len(curves), (11, 3), squeeze=False)
    for panel, (name, values) in zip(axes[0], curves.items(), strict=True):
        panel.plot(steps, values, marker="o", ms=4)
        panel.set(title=name, xlabel=over, ylabel=unit)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the kind of file follows from the name. Raises `InputError` when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot draw into {path}: {error}") from error


def _subplots(alt: str, rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Drawing, Any]:
    # The figure is returned, not shown twice: no pyplot, so no global state.
    ratios: dict[str, Any] = {name: options.pop(name) for name in ("width_ratios", "height_ratios") if name in options}
    figure = Drawing(alt, size)
    return figure, figure.subplots(rows, columns, gridspec_kw=ratios or None, **options)


def _ink(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever has more contrast (WCAG 2) on `colour`."""
    luminance = np.power(colour[:3], 2.2) @ (0.2126, 0.7152, 0.0722)
    return "black" if luminance > 0.18 else "white"


def _rectangle(corner: tuple[float, float], width: float, height: float, colour: str, axes: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, color=colour, transform=axes.transAxes, clip_on=False)
