"""From a checkpoint to the graphs that `OnnxBackend` runs: made once, kept beside the checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melodify_lib.errors import ModelError
from melodify_lib.fingerprint import fingerprint
from melodify_lib.music.musicgen.checkpoint import Checkpoint, Weights, cache_folder, short_hash
from melodify_lib.music.musicgen.memory import require
from melodify_lib.music.musicgen.onnx.backend import OnnxBackend
from melodify_lib.music.musicgen.onnx.decoder import CACHES, decoder_graph
from melodify_lib.music.musicgen.onnx.encodec import features_graph, samples_graph
from melodify_lib.music.musicgen.onnx.text import text_graph
from melodify_lib.music.musicgen.pattern import TO_SAMPLE, delayed
from melodify_lib.music.musicgen.sampling import Sampling, choose, guided

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

CARD = "prepared.json"
"""Of which files the graphs were made; it is there when they are whole."""
RECIPE = tuple(
    f"music/musicgen/{part}" for part in ("onnx", "architecture.py", "checkpoint.py", "pattern.py", "sampling.py")
)
"""The sources that decide what is written."""
BITS = 8
CALIBRATION_PROMPTS = (
    "A calm solo piano piece with soft, sparse chords. bpm: 64. key: D minor. genre: ambient. moods: calm, sad",
    "Fast punk rock with distorted guitars and pounding drums. bpm: 180. key: E major. genre: rock. moods: angry",
    "An upbeat house track with a deep bass, claps and bright synths",
    "Orchestral film music: strings swell over timpani and brass. bpm: 90. key: C minor. moods: tense, epic",
    "Acoustic folk with fingerpicked guitar, fiddle and a warm double bass. moods: warm, hopeful",
    "Lo-fi hip hop beat, dusty drums, Rhodes chords, vinyl crackle",
    "Brass-heavy funk with slap bass and a tight backbeat. bpm: 108. genre: funk. instrument: bass, trumpet, drums",
    "Waltz for accordion and violin. key: G major",
)
"""Over whose songs the ranges of the cache are taken: far apart on purpose."""
CALIBRATION_FRAMES = 96
HEADROOM = 1.25
"""Ranges are so much wider than what was seen; what still falls outside is clipped."""


def prepare(checkpoint: Checkpoint, *, on_progress: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with the graphs of `checkpoint`, made if it is not there or no longer fits. Safe to call at once.

    It lies beside the weights, or in the user's cache where that cannot be written. Takes half a minute and 4 GB
    for musicgen-small. `on_progress` hears what is being done. Raises `ModelError`.
    """
    from filelock import FileLock

    homes = [checkpoint.folder, cache_folder() / f"{checkpoint.folder.name}-{short_hash(str(checkpoint.folder))}"]
    stamp = {"files": checkpoint.stamp, "recipe": fingerprint(*RECIPE)}
    if (made := _made(homes, stamp)) is not None:
        return made
    home = next(filter(_is_writable, homes), None)
    if home is None:
        raise ModelError(f"nowhere to keep the prepared weights: neither {' nor '.join(map(str, homes))}")
    try:
        with FileLock(home / ".preparing.lock"):  # who comes second finds it made
            if (made := _made(homes, stamp)) is not None:
                return made
            on_progress("reading the checkpoint")
            folder = home / f"onnx-{checkpoint.digest[:12]}-{stamp['recipe']}"
            for left in home.glob(".preparing-*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=".preparing-", dir=home))
            try:
                is_made = (folder / CARD).exists()  # of the same bytes at another time
                if not is_made:
                    _write(checkpoint, partial, on_progress)
                (partial / CARD).write_text(json.dumps({"checkpoint": checkpoint.label, "stamp": stamp}))
                for path in (partial, *partial.iterdir()):
                    path.chmod(0o755 if path.is_dir() else 0o644)  # for servers that run as somebody else
                if is_made:
                    (partial / CARD).replace(folder / CARD)
                else:
                    shutil.rmtree(folder, ignore_errors=True)  # without its card it is not whole
                    partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            for card in home.glob(f"onnx-*/{CARD}"):
                if (
                    card.parent != folder and _stamp(card).get("files") != stamp["files"]
                ):  # made of weights that are gone
                    shutil.rmtree(card.parent, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"{home} cannot be written: {error}") from None
    return folder


def _made(homes: list[Path], stamp: dict[str, Any]) -> Path | None:
    """The folder that was made by this recipe of these very files."""
    for home in homes:
        for card in home.glob(f"onnx-*/{CARD}"):
            if _stamp(card) == stamp:
                return card.parent
    return None


def _stamp(card: Path) -> dict[str, Any]:
    """What a card says that it was made of; nothing where it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return dict(json.loads(card.read_bytes())["stamp"])
    return {}


def _is_writable(home: Path) -> bool:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(home, os.W_OK)


def _write(checkpoint: Checkpoint, folder: Path, on_progress: Callable[[str], None]) -> None:
    weights, config, shape = Weights(checkpoint.folder), checkpoint.config, checkpoint.architecture
    weights.check(shape)
    require(7 * weights.parameters, f"preparing {checkpoint.name}")  # 1.7 times its weights in float32
    (folder / "architecture.json").write_text(shape.to_json())
    shutil.copyfile(checkpoint.folder / "tokenizer.json", folder / "tokenizer.json")
    on_progress("writing EnCodec")
    features_graph(weights, config["audio_encoder"]).save(folder / "features.onnx")
    samples_graph(weights, config["audio_encoder"]).save(folder / "samples.onnx")
    on_progress("writing the text encoder")
    text_graph(weights, config["text_encoder"], config["decoder"], BITS).save(folder / "text.onnx")
    on_progress("writing the decoder")
    decoder_graph(weights, config["decoder"], BITS, None).save(folder / "decoder.onnx")
    on_progress("measuring the ranges of its cache")
    scales = _cache_scales(OnnxBackend(folder))
    np.savez(folder / "scales.npz", **scales)  # type: ignore[arg-type]
    on_progress("writing the decoder with an 8-bit cache")
    decoder_graph(weights, config["decoder"], BITS, scales).save(folder / "decoder.onnx")


def _cache_scales(backend: OnnxBackend) -> dict[str, npt.NDArray[np.float32]]:
    """Scale of each channel of each cache, ``[layers, heads, head_dim]``, over songs for `CALIBRATION_PROMPTS`."""
    shape, songs, sampling = backend.shape, len(CALIBRATION_PROMPTS), Sampling()
    texts = [backend.encode(backend.tokens(prompt)) for prompt in CALIBRATION_PROMPTS]
    frames = min(CALIBRATION_FRAMES, shape.positions - shape.codebooks)
    columns = np.stack([delayed(np.zeros((shape.codebooks, 0), np.int64), frames, shape.delays, shape.pad)] * songs)
    backend.reserve(songs, columns.shape[2], max(text.shape[1] for text in texts))
    for slot, text in enumerate(texts):
        backend.place(slot, text)
    noise = np.random.default_rng(0)
    for column in range(columns.shape[2] - 1):
        logits = backend.step(columns[:, :, column], np.full(songs, column))
        for song in range(songs):
            draw = noise.standard_exponential(logits.shape[2:], dtype=np.float32)
            codes = choose(guided(logits[song], sampling.guidance), sampling, draw)
            following = columns[song, :, column + 1]
            following[following == TO_SAMPLE] = codes[following == TO_SAMPLE]
    ranges = backend.cache_ranges()
    if not all(np.isfinite(values).all() for values in ranges.values()):
        raise ModelError("the checkpoint's weights give no numbers: they are damaged")
    return {cache: np.maximum(ranges[cache], 1e-6) * np.float32(HEADROOM / 127) for cache in CACHES}
