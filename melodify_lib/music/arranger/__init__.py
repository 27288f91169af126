"""The arranger: a musician who writes a score in the genre's style and plays it with a SoundFont.

description ──`writer`──▶ `Score` ──`render`──▶ audio, and ──`midi`──▶ a MIDI file. What a genre sounds
like is data: one file a genre in ``styles/``, one table of instruments; see `styles` to add one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from melodify_lib.fingerprint import fingerprint
from melodify_lib.music.arranger.score import Score
from melodify_lib.music.arranger.soundfont import SoundFont, load_soundfont
from melodify_lib.music.arranger.writer import write_score
from melodify_lib.nouns import MusicDescription, PermittedUse, StageVersion, Track

if TYPE_CHECKING:
    from melodify_lib.settings import Settings
    from melodify_lib.stages import OnProgress

__all__ = ["Arranger", "Score", "from_settings", "write_score"]


class Arranger:
    """A `Musician`. Keeps the SoundFont open."""

    permitted_use: PermittedUse = "any"

    def __init__(self, soundfont: Path | None = None) -> None:
        """`soundfont` is a .sf2 or .sf3 file; None takes the best that is found, at least pretty-midi's.

        Raises `SettingsError` when it is missing or cannot be read.
        """
        from melodify_lib.music.arranger.sampler import Sampler

        self._font: SoundFont = load_soundfont(soundfont)
        # Those that are found let their sounds be used for anything; what another's licence says is not known here.
        self.licence = "CC0-1.0" if soundfont is None else f"CC0-1.0; the sounds by the licence of {self._font.name}"
        self._sampler = Sampler(self._font)

    @cached_property
    def version(self) -> StageVersion:
        """The arranger, FluidSynth and the SoundFont: all decide the bytes."""
        from melodify_lib.music.arranger import fluidsynth
        from melodify_lib.music.finish import SOURCES

        sources = fingerprint("music/arranger", *SOURCES, "moods.py")
        font = f"{self._font.name}@{self._font.sha256[:12]}"
        return StageVersion(name="arranger", version=f"{sources}+fluidsynth@{fluidsynth.version()}+{font}")

    def play(
        self,
        description: MusicDescription,
        seconds: float,
        seed: int,
        on_progress: OnProgress = lambda share: None,
        *,
        loop: bool = False,
        stems: bool = False,
    ) -> Track:
        """Compose, play and master `seconds` of music. The same arguments give the same bytes.

        `loop` gives as many whole bars as come nearest to `seconds`, which join on to themselves without a seam;
        `stems` adds a file a part, ``stems/01-drum-kit.wav``, and together they are the mix.
        """
        from melodify_lib.music.arranger.fluidsynth import SAMPLE_RATE
        from melodify_lib.music.arranger.midi import to_midi
        from melodify_lib.music.arranger.render import render
        from melodify_lib.music.finish import check_request, finish_track

        check_request(seconds, seed)
        score = write_score(description, seconds, seed, loop=loop)
        rendered = render(score, self._sampler, on_progress, stems=stems)
        return finish_track(
            rendered.mix,
            SAMPLE_RATE,
            description=description,
            seconds=seconds,
            seed=seed,
            musician=self.version,
            licence=self.licence,
            permitted_use=self.permitted_use,
            midi=to_midi(score),
            stems=rendered.stems,
            players=[part.name for part in score.parts],
            is_loop=loop,
        )


def from_settings(settings: Settings) -> Arranger:
    """The arranger that the settings ask for."""
    return Arranger(settings.soundfont)
