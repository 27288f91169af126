"""A score as a Standard MIDI File: named tracks, tempo, metre, key signature and section markers."""

from __future__ import annotations

from melodify_lib.music.arranger.score import Part, Score

TICKS = 960
"""Per quarter note."""
_DRUM_CHANNEL = 9
# Sharps (positive) or flats of each major key in the spelling of `nouns.TONICS`; a minor key has those of its relative.
_SHARPS = {0: 0, 1: 7, 2: 2, 3: -3, 4: 4, 5: -1, 6: 6, 7: 1, 8: -4, 9: 3, 10: -2, 11: 5}
_MINOR_SHARPS = {0: -3, 1: 4, 2: -1, 3: -6, 4: 1, 5: -4, 6: 3, 7: -2, 8: -7, 9: 0, 10: -5, 11: 2}


def to_midi(score: Score, tonic: int) -> bytes:
    """The bytes of a format 1 file. `tonic` is the pitch class of the score's key."""
    from symusic import KeySignature, Tempo, TextMeta, TimeSignature
    from symusic import Score as MidiScore

    file = MidiScore(TICKS)
    file.tempos.append(Tempo(time=0, qpm=score.bpm))
    is_minor = score.key.endswith("minor")
    file.key_signatures.append(
        KeySignature(time=0, key=(_MINOR_SHARPS if is_minor else _SHARPS)[tonic], tonality=int(is_minor))
    )
    beat, before = 0, 0
    for beats in score.bars:
        if beats != before:
            file.time_signatures.append(TimeSignature(time=beat * TICKS, numerator=beats, denominator=4))
        beat, before = beat + beats, beats
    for section in score.sections:
        file.markers.append(TextMeta(time=round(section.start * TICKS), text=section.name))
    for part in score.parts:
        file.tracks.append(_track(part, score))
    return bytes(file.dumps_midi())


def _track(part: Part, score: Score) -> object:
    from symusic import ControlChange, Note, Track

    track = Track(name=part.name, program=part.program, is_drum=part.is_drum)
    level = min(max(round(100 * 10 ** (part.mix.level_db / 40)), 1), 127)
    for number, value in ((7, level), (10, round(63.5 + 63.5 * part.mix.pan)), (91, round(127 * part.mix.reverb))):
        track.controls.append(ControlChange(time=0, number=number, value=value))
    end = score.seconds / score.beat_seconds
    for note in part.notes:
        start = round(note.start * TICKS)
        duration = max(round(min(note.duration, end - note.start) * TICKS), 1)
        track.notes.append(Note(start, duration, note.pitch, note.velocity))
    return track
