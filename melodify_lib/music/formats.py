"""The forms of a finished track: WAV, FLAC, MP3, Ogg Vorbis, each with the card inside; and peaks to draw.

Players show title, genre, tempo, key and licence from the tags; the whole card is in one of its own, ``MELODIFY_CARD``.
There it has no `files`, as their hashes cannot be inside what they are of.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from melodify_lib.errors import CardError
from melodify_lib.nouns import Track, TrackCard

if TYPE_CHECKING:
    import numpy.typing as npt

Format = Literal["wav", "flac", "mp3", "ogg"]
FORMATS: tuple[Format, ...] = get_args(Format)
CARD_TAG = "MELODIFY_CARD"

_ENCODINGS: dict[str, dict[str, Any]] = {
    "wav": {"subtype": "PCM_16"},
    "flac": {"subtype": "PCM_16"},
    # About 190 kbit/s each.
    "mp3": {"subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.25},
    "ogg": {"subtype": "VORBIS", "compression_level": 0.4},
}


def encode(audio: npt.NDArray[np.float32], sample_rate: int, format: Format, card: TrackCard) -> bytes:
    """A file of float32 ``[channels, samples]`` with the card in its tags.

    A lossy encoder lets peaks rise by some tenths of a decibel: what it encodes is turned down by as much, so that the
    true peak of what is heard is no higher than was asked for.
    """
    import soundfile

    from melodify_lib.music.measure import true_peak

    highest = card.requested.true_peak_dbtp
    while True:
        buffer = _encoded(audio, sample_rate, format)
        if format in ("wav", "flac") or highest is None:
            break
        heard, _ = soundfile.read(buffer, dtype="float32", always_2d=True)
        over = true_peak(heard.T) - highest
        if over <= 0:
            break
        audio = audio * np.float32(10 ** (-(over + 0.02) / 20))
    return _tagged(buffer, format, card)


def _encoded(audio: npt.NDArray[np.float32], sample_rate: int, format: Format) -> io.BytesIO:
    import soundfile

    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", sample_rate, audio.shape[0], format=format.upper(), **_ENCODINGS[format]
    ) as file:
        # In pieces: libsndfile's Vorbis encoder keeps all that it is given at once on its stack.
        for start in range(0, audio.shape[1], sample_rate):
            file.write(audio[:, start : start + sample_rate].T)
    buffer.seek(0)
    return buffer


def _tagged(buffer: io.BytesIO, format: Format, card: TrackCard) -> bytes:
    from mutagen.flac import FLAC
    from mutagen.mp3 import MP3
    from mutagen.oggvorbis import OggVorbis
    from mutagen.wave import WAVE

    kinds: dict[str, Any] = {"wav": WAVE, "flac": FLAC, "mp3": MP3, "ogg": OggVorbis}
    buffer.seek(0)
    file = kinds[format](buffer)
    if file.tags is None:
        file.add_tags()
    described = card.description
    tonic, mode = described.key.split()
    texts = {
        "TITLE": f"{described.genre} in {described.key}",
        "ARTIST": f"Melodify ({card.musician.name})",
        "GENRE": described.genre,
        "BPM": str(described.bpm),
        "INITIALKEY": tonic + ("m" if mode == "minor" else ""),
        "COPYRIGHT": f"{card.licence}; permitted use: {card.permitted_use}",
        "COMMENT": described.description,
        CARD_TAG: card.model_copy(update={"files": {}}).model_dump_json(),
    }
    for name, text in texts.items():
        if format in ("wav", "mp3"):
            file.tags.add(_id3(name, text))
        else:
            file.tags[name] = text
    buffer.seek(0)
    file.save(buffer)
    return buffer.getvalue()


def read_card(data: bytes) -> TrackCard:
    """The card inside a file that `encode` made. Raises `CardError` where there is none."""
    import mutagen

    try:
        file = mutagen.File(io.BytesIO(data))
        tags = file.tags if file is not None else None
    except Exception as error:  # whatever it meets in a file that somebody made: IndexError, struct.error
        raise CardError(f"not an audio file with a track card: {error}") from None
    found = (tags or {}).get(f"TXXX:{CARD_TAG}") or (tags or {}).get(CARD_TAG)
    if not found:
        raise CardError(f"no track card inside: no tag {CARD_TAG}")
    return TrackCard.from_json(str(found[0]))


def same_sound(data: bytes, track: Track) -> bool:
    """Whether a file sounds as `track` does when it is encoded in the same format: sample for sample.

    Raises `CardError` for what is no file of `FORMATS`.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            format = next((format for format in FORMATS if format.upper() == file.format), None)
            if format is None:
                raise CardError(f"not a file of {', '.join(FORMATS)}, but {file.format}")
            if (file.frames, file.samplerate) != (track.audio.shape[1], track.sample_rate):
                return False
            heard = file.read(dtype="float32")
    except soundfile.LibsndfileError as error:
        raise CardError(f"not an audio file: {error}") from None
    meant, _ = soundfile.read(io.BytesIO(encode(track.audio, track.sample_rate, format, track.card)), dtype="float32")
    return np.array_equal(heard, meant)


def _id3(name: str, text: str) -> Any:
    from mutagen import id3 as untyped

    id3: Any = untyped
    frames = {"TITLE": id3.TIT2, "ARTIST": id3.TPE1, "GENRE": id3.TCON, "BPM": id3.TBPM, "INITIALKEY": id3.TKEY,
              "COPYRIGHT": id3.TCOP}  # fmt: skip
    if name == "COMMENT":
        return id3.COMM(encoding=3, lang="eng", desc="", text=text)
    return frames[name](encoding=3, text=text) if name in frames else id3.TXXX(encoding=3, desc=name, text=text)


def peaks(audio: npt.NDArray[np.float32], count: int) -> list[float]:
    """The largest magnitude, from 0 to 1, in each of `count` equal stretches of ``[channels, samples]``."""
    magnitude = np.abs(audio).max(axis=0)
    return [round(float(stretch.max(initial=0)), 3) for stretch in np.array_split(magnitude, count)]
