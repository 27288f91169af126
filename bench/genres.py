"""One track a genre, asked against measured, as a table: `python bench/genres.py [--seconds 30] [--out DIR]`.

Tempo and key are measured twice: by the library, as on every card, and by librosa's estimators,
which the library does not use. An octave of the tempo counts as the tempo.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import librosa
import numpy as np

from melodify_lib import GENRES, Caption, Settings, stages
from melodify_lib.nouns import TONICS, Track

# Krumhansl & Kessler (1982): the library's own estimator uses other profiles.
KRUMHANSL_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
KRUMHANSL_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
CAPTION = "A street corner in the late afternoon, people passing by."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--out", type=Path, help="keep the tracks here")
    arguments = parser.parse_args()
    settings = Settings.load()
    describer, musician = stages.describer(settings), stages.musician(settings)
    print("| genre | bpm asked | card | librosa | key asked | card | librosa | s | LUFS | dBTP | longest silence, s |")
    print("| --- " * 11 + "|")
    right = {"tempo, card": 0, "tempo, librosa": 0, "key, card": 0, "key, librosa": 0}
    for genre in GENRES:
        description = describer.describe(Caption.from_text(CAPTION), genre)
        track = musician.play(description, arguments.seconds, seed=1)
        if arguments.out:
            track.save(arguments.out / genre.replace("&", "n"))
        got = track.card.measured
        tempo, key = _tempo(track), _key(track)
        right["tempo, card"] += _same_tempo(description.bpm, got.bpm)
        right["tempo, librosa"] += _same_tempo(description.bpm, tempo)
        right["key, card"] += got.key == description.key
        right["key, librosa"] += key == description.key
        cells = [genre, description.bpm, got.bpm or "–", f"{tempo:.1f}", description.key, got.key, key,
                 got.duration_s, got.loudness_lufs, got.true_peak_dbtp, got.longest_silence_s]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("\nRight, of 20: " + "; ".join(f"{what} {count}" for what, count in right.items()))


def _same_tempo(asked: float, got: float | None) -> bool:
    return got is not None and any(abs(got * octave / asked - 1) <= 0.02 for octave in (0.5, 1, 2))


def _tempo(track: Track) -> float:
    mono = librosa.resample(track.audio.mean(axis=0), orig_sr=track.sample_rate, target_sr=22_050)
    return float(np.atleast_1d(librosa.beat.beat_track(y=mono, sr=22_050)[0])[0])


def _key(track: Track) -> str:
    mono = librosa.resample(track.audio.mean(axis=0), orig_sr=track.sample_rate, target_sr=22_050)
    profile = librosa.feature.chroma_cqt(y=mono, sr=22_050).mean(axis=1)
    scores = {
        f"{TONICS[tonic]} {mode}": np.corrcoef(profile, np.roll(shape, tonic))[0, 1]
        for mode, shape in (("major", KRUMHANSL_MAJOR), ("minor", KRUMHANSL_MINOR))
        for tonic in range(12)
    }
    return max(scores, key=lambda name: float(scores[name]))


if __name__ == "__main__":
    main()
