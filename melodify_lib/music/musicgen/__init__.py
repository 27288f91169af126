"""MusicGen: any checkpoint that transformers can name, played by an engine of our own.

prompt ──`Backend.encode`──▶ text ──`Engine`, a step a frame──▶ codes ──`CodecStream`──▶ audio. A backend runs
the weights: `OnnxBackend` in 8-bit integers on a CPU, `TorchBackend` in floats on a CPU or a GPU. What is about
songs (delay pattern, sampling, windows, who is in the batch) is in `engine`, once for all of them.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from melodify_lib.errors import MissingDependencyError, SettingsError, install
from melodify_lib.fingerprint import fingerprint
from melodify_lib.nouns import MusicDescription, PermittedUse, StageVersion, Track

if TYPE_CHECKING:
    from collections.abc import Callable

    from melodify_lib.music.musicgen.checkpoint import Checkpoint
    from melodify_lib.music.musicgen.engine import Backend, Engine, Floats, Song
    from melodify_lib.settings import Settings
    from melodify_lib.stages import OnProgress

PRECISIONS = {"cpu": ("int8", "float16", "float32"), "cuda": ("float16", "bfloat16", "float32")}
"""What each kind of device can do, the fastest first."""
_LOOK_S = 0.25
"""How often a song's progress is told."""
OPEN_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense"}
"""Of weights, as the hub names them, whose music may be sold. All others are taken for non-commercial."""


class MusicGen:
    """A `Musician`. Keeps its engine running; may be called from several threads, whose songs share the batch."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine, precision: str) -> None:
        self._checkpoint, self._engine, self._precision = checkpoint, engine, precision

    @cached_property
    def version(self) -> StageVersion:
        """The engine, its precision and the checkpoint's weights: all three decide the bytes."""
        from melodify_lib.music.finish import SOURCES

        sources = fingerprint("music/musicgen", *SOURCES)
        weights = f"{self._checkpoint.label}@{self._checkpoint.digest[:12]}"
        return StageVersion(name="musicgen", version=f"{sources}+{self._precision}+{weights}")

    @property
    def sample_rate(self) -> int:
        return self._engine.shape.sample_rate

    @property
    def licence(self) -> str:
        return self._checkpoint.licence

    @property
    def permitted_use(self) -> PermittedUse:
        return "any" if self.licence.lower() in OPEN_LICENCES else "non-commercial"

    def check(self, prompt: str, seconds: float, seed: int) -> None:
        """Raise `InputError` for what `start` could not make."""
        from melodify_lib.music.finish import check_request

        check_request(seconds, seed)
        self._engine.backend.tokens(prompt)

    def start(self, prompt: str, seconds: float, seed: int) -> Song:
        """Begin a song, which can be watched and cancelled; `finish` makes a track of what it gives."""
        from melodify_lib.music.musicgen.engine import SongRequest

        return self._engine.start(SongRequest(prompt, seconds, seed))

    def finish(self, audio: Floats, description: MusicDescription, seconds: float, seed: int) -> Track:
        """The track of a song's audio, float32 ``[channels, samples]``."""
        from melodify_lib.music.finish import finish_track

        return finish_track(
            audio,
            self.sample_rate,
            description=description,
            seconds=seconds,
            seed=seed,
            musician=self.version,
            licence=self.licence,
            permitted_use=self.permitted_use,
        )

    def play(
        self, description: MusicDescription, seconds: float, seed: int, on_progress: OnProgress = lambda share: None
    ) -> Track:
        """Make `seconds` of music from the description's prompt.

        In ``int8``, the same arguments give the same bytes, whoever else is playing.
        """
        from melodify_lib.music.finish import check_request

        check_request(seconds, seed)
        song = self.start(description.to_prompt(), seconds, seed)
        try:
            while not song.is_done:
                on_progress(song.progress)
                with suppress(TimeoutError):
                    song.result(_LOOK_S)
        finally:
            song.cancel()  # where `on_progress` raised
        return self.finish(song.result(), description, seconds, seed)

    def close(self) -> None:
        """Stop the engine; songs that are not done are cancelled."""
        self._engine.close()


def open_backend(
    checkpoint: Checkpoint, settings: Settings, on_progress: Callable[[str], None] = lambda _: None
) -> Backend:
    """The backend for the settings' device and precision; prepares the checkpoint where that was not done yet.

    Raises `SettingsError` for a precision that the device has not, `ModelError` for weights that cannot be loaded.
    """
    precisions = PRECISIONS.get(settings.device.split(":")[0])
    if precisions is None or settings.precision not in precisions:
        known = "; ".join(f"{device}: {', '.join(names)}" for device, names in PRECISIONS.items())
        raise SettingsError(f"no precision {settings.precision!r} on device {settings.device!r}; there are: {known}")
    try:
        if settings.precision == "int8":
            from melodify_lib.music.musicgen.onnx import OnnxBackend, prepare

            return OnnxBackend(prepare(checkpoint, on_progress=on_progress))
        from melodify_lib.music.musicgen.torch_backend import TorchBackend

        return TorchBackend(checkpoint, device=settings.device, precision=settings.precision)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"MusicGen needs an extra: {install('musicgen')}") from error


def from_settings(settings: Settings) -> MusicGen:
    from melodify_lib.music.musicgen.checkpoint import Checkpoint
    from melodify_lib.music.musicgen.engine import Engine

    checkpoint = Checkpoint.find(settings.checkpoint, settings)
    return MusicGen(checkpoint, Engine(open_backend(checkpoint, settings), songs=settings.songs), settings.precision)
