"""A score as a Standard MIDI File: named tracks, tempo, metre, key signature and section markers."""

from __future__ import annotations

import io
from typing import Any

from melodify_lib.music.arranger.score import Part, Score

TICKS = 960
"""Per quarter note."""
_DRUM_CHANNEL = 9
_VOLUME, _PAN, _REVERB = 7, 10, 91  # controllers


def to_midi(score: Score) -> bytes:
    """The bytes of a format 1 file: a conductor track, then one track a part."""
    import mido

    file = mido.MidiFile(type=1, ticks_per_beat=TICKS)
    file.tracks.append(_track(_conductor(score), score.title))
    channels = [channel for channel in range(16) if channel != _DRUM_CHANNEL]
    pitched = 0
    for part in score.parts:
        channel = _DRUM_CHANNEL
        if not part.is_drum:
            channel = channels[pitched % len(channels)]
            pitched += 1
        file.tracks.append(_track(_events(part, channel, score), part.name))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def _conductor(score: Score) -> list[tuple[int, int, Any]]:
    import mido

    tonic, mode = score.key.split()
    events = [
        (0, 0, mido.MetaMessage("set_tempo", tempo=round(60_000_000 / score.bpm))),
        (0, 0, mido.MetaMessage("key_signature", key=tonic + ("m" if mode == "minor" else ""))),
    ]
    beat, before = 0, 0
    for beats in score.bars:
        if beats != before:
            signature = mido.MetaMessage("time_signature", numerator=beats, denominator=4)
            events.append((beat * TICKS, 1, signature))
        beat, before = beat + beats, beats
    return events + [
        (round(section.start * TICKS), 2, mido.MetaMessage("marker", text=section.name)) for section in score.sections
    ]


def _events(part: Part, channel: int, score: Score) -> list[tuple[int, int, Any]]:
    import mido

    # Volume goes with the square of its controller: half the decibels, on a scale of amplitude.
    volume = min(max(round(100 * 10 ** (part.mix.level_db / 40)), 1), 127)
    controls = {_VOLUME: volume, _PAN: round(63.5 + 63.5 * part.mix.pan), _REVERB: round(127 * part.mix.reverb)}
    events: list[tuple[int, int, Any]] = [
        (0, 0, mido.Message("program_change", channel=channel, program=part.program)),
        *((0, 1, mido.Message("control_change", channel=channel, control=c, value=v)) for c, v in controls.items()),
    ]
    end = round(score.seconds / score.beat_seconds * TICKS)
    for start, stop, note in _untangled(part, end):
        events.append((start, 3, mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)))
        events.append((stop, 2, mido.Message("note_off", channel=channel, note=note.pitch)))
    return events


def _untangled(part: Part, end: int) -> list[tuple[int, int, Any]]:
    """Notes in ticks. MIDI cannot sound a key twice at once: a note ends where the next of its pitch begins."""
    by_pitch: dict[int, list[Any]] = {}
    for note in part.notes:
        by_pitch.setdefault(note.pitch, []).append(note)
    out = []
    for notes in by_pitch.values():
        starts = [round(note.start * TICKS) for note in notes]
        for note, start, following in zip(notes, starts, [*starts[1:], end], strict=True):
            stop = min(round((note.start + note.duration) * TICKS), following)
            if stop > start:
                out.append((start, stop, note))
    return out


def _track(events: list[tuple[int, int, Any]], name: str) -> Any:
    import mido

    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name, time=0)])
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    return track
