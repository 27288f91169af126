"""Figures can be read: axes say what they count, text stands out from its ground, and words say what is shown."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from melodify_lib import plots
from melodify_lib.dataset import stats
from melodify_lib.evaluate import tracks
from melodify_lib.evaluate.describer import METRICS, Evaluation
from melodify_lib.flow import Composer
from melodify_lib.genres import GENRES
from melodify_lib.image import open_image
from melodify_lib.nouns import Caption, Measures, MusicDescription
from melodify_lib.samples import sample_picture


@pytest.fixture(scope="module")
def drawn(composer: Composer) -> dict[str, Figure]:
    """One of each that the notebooks draw, but for those of alignment (test_evaluate_music.py)."""
    photograph = open_image(sample_picture("coffee"))
    caption = composer.captioner.caption(photograph)
    track = composer.musician.play(composer.describer.describe(caption).description, 5, 0)
    rows = np.ones(8)
    evaluation = Evaluation({"tuned": "1"}, {"tuned": dict.fromkeys(METRICS, rows)}, {}, {})
    example = ROOT / "data/generate_jsonl/output" / "train.jsonl"
    return {
        "caption": plots.plot_caption(photograph, caption),
        "track": plots.plot_track(track),
        "score": plots.plot_score(track.files["track.mid"]),
        "counts": plots.plot_counts({"train": {"pop": 3, "rock": 2}, "test": {"pop": 1}}),
        "statistics": plots.plot_statistics(stats(example)),
        "figures": plots.plot_figures(evaluation, list(METRICS)),
        "confusion": plots.plot_confusion({"one": np.eye(20, dtype=int), "other": np.eye(20, dtype=int)}, GENRES),
        "requested": plots.plot_requested(heard()),
        "curves": plots.plot_curves({"genre": [0.1, 0.3], "mode": [0.5, 0.6]}, [10, 20], over="examples"),
    }


def heard() -> tracks.Evaluation:
    """Tracks of which some keep what was asked, in one genre half of them."""
    good = Measures(bpm=120, key="C major", loudness_lufs=-14, true_peak_dbtp=-1, duration_s=8, longest_silence_s=0)
    bad = good.model_copy(update={"bpm": 90, "key": "F# minor", "loudness_lufs": -9})
    asked = {"description": "A tune.", "bpm": 120, "key": "C major", "moods": ("calm",), "instruments": ("piano",)}
    return tracks.Evaluation(
        "none 1",
        [
            tracks.Played(MusicDescription(genre=genre, **asked), 0, 8, good, one, np.zeros(1))  # type: ignore[arg-type]
            for genre, played in {"pop": [good], "rock": [bad], "jazz": [good, bad]}.items()
            for one in played
        ],
    )


def test_every_axis_says_what_it_counts(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        panels = [one for one in figure.axes if one.axison and one.get_label() != "<colorbar>"]
        assert all(one.get_ylabel() for one in figure.axes if one.get_label() == "<colorbar>"), name
        for panel in panels:
            for axis, below in ((panel.xaxis, panel.get_shared_x_axes()), (panel.yaxis, panel.get_shared_y_axes())):
                beside = [getattr(other, f"{axis.axis_name}axis") for other in below.get_siblings(panel)]
                ticks = [tick.get_text() for one in beside for tick in one.get_ticklabels()]
                named = any(tick.strip("−-.0123456789") for tick in ticks)
                said = any(one.get_label().get_text() for one in beside)
                assert named or said, f"{name}: {panel.get_title()!r}, {axis.axis_name}"


def test_figures_say_in_words_what_they_show_wherever_they_are_shown(drawn: dict[str, Figure]) -> None:
    for inline in (False, True):
        formatter = DisplayFormatter()
        if inline:  # as `%matplotlib inline` registers it
            formatter.formatters["image/png"].for_type(Figure, lambda figure: "…")
        for figure in drawn.values():
            data, metadata = formatter.format(figure)
            assert metadata["image/png"]["alt"] == data["text/plain"]
            assert len(data["text/plain"]) > 40 and data["text/plain"].endswith(".")
            json.dumps(data)


def luminance(colour: Any) -> float:
    """As WCAG 2 has it."""
    rgb = np.array(colour[:3])
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def test_figures_in_a_heat_map_stand_out_from_their_ground(drawn: dict[str, Figure]) -> None:
    panel = drawn["requested"].axes[1]
    (image,) = panel.images
    for text in panel.texts:
        column, row = (int(place) for place in text.get_position())
        ground = luminance(image.cmap(image.norm(image.get_array()[row, column])))
        ink = luminance((0, 0, 0) if text.get_color() == "black" else (1, 1, 1))
        dark, light = sorted((ground, ink))
        assert (light + 0.05) / (dark + 0.05) > 4.5


@pytest.mark.parametrize("place", [(0, 0), (0.5, -0.5), (-0.7, -0.4), (0.8, 0.8), (-0.1, 0.8)])
def test_mood_words_are_not_written_over_each_other(place: tuple[float, float]) -> None:
    caption = Caption(text="A picture.", valence=place[0], arousal=place[1])
    figure = plots.plot_caption(open_image(sample_picture("coffee")), caption)
    figure.canvas.draw()
    words = [text.get_window_extent() for text in figure.axes[1].texts if isinstance(text, Annotation)]
    assert len(words) > 12
    assert not any(one.overlaps(other) for one, other in itertools.combinations(words, 2))
