"""Plays notes with a SoundFont: one part in, stereo audio out.

midirenderer (a Rust synthesiser with the whole of SoundFont 2: envelopes, filters, loops, velocity)
takes a MIDI file and gives a WAV file, so a part is written as the one and read as the other. Of the
other players that come with pip, symusic 0.5.9 and 0.6.0 ignore velocity, envelopes, filters and most
root keys (they play TimGM6mb's middle C of "Piano 1" at 831 Hz), and tinysoundfont needs PortAudio.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from melodify_lib.errors import SettingsError
from melodify_lib.music.arranger.soundfont import SoundFont

if TYPE_CHECKING:
    import numpy.typing as npt

SAMPLE_RATE = 48_000
"""Hz; midirenderer's own."""
_TICKS_PER_SECOND = 4_000
_VOLUME, _REVERB, _CHORUS, _MODULATION = 7, 91, 93, 1  # MIDI controllers


@dataclass(frozen=True)
class Voice:
    """How a part plays the font: its preset, and its vibrato in cents (0 to 50)."""

    program: int
    is_drum: bool = False
    vibrato: float = 0.0


@dataclass(frozen=True)
class Hit:
    """A note, its times in seconds."""

    start: float
    duration: float
    pitch: int
    velocity: int


class Sampler:
    """A SoundFont, ready to play."""

    def __init__(self, font: SoundFont) -> None:
        self.font = font

    def play(self, hits: Iterable[Hit], voice: Voice, samples: int) -> npt.NDArray[np.float32]:
        """Audio float32 ``[2, samples]`` of a part; what rings past the end is cut.

        Raises `SettingsError` when the font cannot be played.
        """
        hits = list(hits)
        # midirenderer clips at full scale: where a part reaches it, it is rendered again more quietly.
        for volume in (127, 64, 32, 16):
            audio = self._render(hits, voice, volume, samples)
            if np.abs(audio).max(initial=0.0) < 0.999:
                break
        # A controller's loudness goes with its square (SoundFont 2.04, section 8.4.5).
        return audio * np.float32((127 / volume) ** 2)

    def _render(self, hits: list[Hit], voice: Voice, volume: int, samples: int) -> npt.NDArray[np.float32]:
        import midirenderer
        import soundfile

        try:
            wave = midirenderer.render_wave_from(self.font.data, _midi(hits, voice, volume, samples))
        except RuntimeError as error:
            raise SettingsError(f"the SoundFont {self.font.name} cannot be played: {error}") from None
        audio, _ = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
        played = np.zeros((2, samples), np.float32)
        length = min(samples, len(audio))
        played[:, :length] = audio[:length].T
        return played


def _midi(hits: list[Hit], voice: Voice, volume: int, samples: int) -> bytes:
    """A MIDI file of one track that lasts as long as the audio is to last."""
    import mido

    channel = 9 if voice.is_drum else 0
    settings = {
        _VOLUME: volume,
        _REVERB: 0,
        _CHORUS: 0,
        # The modulation wheel's whole way is 50 cents (SoundFont 2.04, section 8.4.6).
        _MODULATION: round(min(voice.vibrato, 50) / 50 * 127),
    }
    events: list[tuple[int, int, mido.Message]] = []
    following: dict[int, int] = {}
    for hit in sorted((hit for hit in hits if hit.velocity > 0), key=lambda hit: hit.start, reverse=True):
        start, end = round(hit.start * _TICKS_PER_SECOND), round((hit.start + hit.duration) * _TICKS_PER_SECOND)
        # MIDI cannot sound a key twice at once: the end of a note would silence the next of its pitch.
        end = min(max(end, start + 1), following.get(hit.pitch, end + 1))
        following[hit.pitch] = start
        note = {"channel": channel, "note": hit.pitch}
        events.append((start, 1, mido.Message("note_on", velocity=hit.velocity, **note)))
        events.append((end, 0, mido.Message("note_off", **note)))
    events.sort(key=lambda event: event[:2])
    track = mido.MidiTrack(
        [
            mido.MetaMessage("set_tempo", tempo=1_000_000),
            mido.Message("program_change", channel=channel, program=voice.program),
            *(mido.Message("control_change", channel=channel, control=c, value=v) for c, v in settings.items()),
        ]
    )
    now = 0
    for tick, _, message in events:
        track.append(message.copy(time=max(tick - now, 0)))
        now = max(tick, now)
    last = round(samples / SAMPLE_RATE * _TICKS_PER_SECOND) + 1
    track.append(mido.MetaMessage("end_of_track", time=max(last - now, 0)))
    buffer = io.BytesIO()
    mido.MidiFile(ticks_per_beat=_TICKS_PER_SECOND, tracks=[track]).save(file=buffer)
    return buffer.getvalue()
