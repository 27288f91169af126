"""The engine against transformers' own MusicGen, on checkpoints of its real classes with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from melodify_lib.music.musicgen import open_backend
from melodify_lib.music.musicgen.checkpoint import Checkpoint
from melodify_lib.music.musicgen.codec import CodecStream, margin_frames
from melodify_lib.music.musicgen.engine import Backend, Engine, SongRequest
from melodify_lib.music.musicgen.sampling import Sampling
from melodify_lib.music.musicgen.torch_backend import encode_audio
from melodify_lib.music.musicgen.untrained import write_untrained
from melodify_lib.settings import Settings

PROMPT = "A calm solo piano piece. bpm: 90. key: D minor. genre: jazz. moods: calm, warm. instrument: piano"
SECONDS = 2


@pytest.fixture(scope="module", params=["mono", "stereo"])
def checkpoint(request: pytest.FixtureRequest, untrained: dict[str, Path]) -> Checkpoint:
    folder = untrained[request.param]
    return Checkpoint(str(folder), folder)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Any:
    from transformers import MusicgenForConditionalGeneration

    return MusicgenForConditionalGeneration.from_pretrained(checkpoint.folder).eval()


def backend_of(checkpoint: Checkpoint, precision: str) -> Backend:
    return open_backend(checkpoint, Settings(checkpoint=str(checkpoint.folder), precision=precision))


def transformers_song(
    reference: Any, monkeypatch: pytest.MonkeyPatch, prompt: Any, *, seed: int | None = None, **options: Any
) -> tuple[Any, Any]:
    """Codes and audio of `generate`, greedy without a seed, else with numpy's exponential noise in its multinomial."""
    noise = np.random.default_rng(seed)

    def multinomial(probabilities: torch.Tensor, num_samples: int, **_: Any) -> torch.Tensor:
        draw = torch.from_numpy(noise.standard_exponential(tuple(probabilities.shape), dtype=np.float32))
        return (probabilities / draw).argmax(-1, keepdim=True)

    heard: list[torch.Tensor] = []
    decode = reference.audio_encoder.decode

    def listen(codes: torch.Tensor, **more: Any) -> Any:
        heard.append(codes)
        return decode(codes, **more)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "multinomial", multinomial)
        patch.setattr(
            reference.audio_encoder, "decode", lambda codes, **more: (heard.append(codes), decode(codes, **more))[1]
        )
        audio = reference.generate(
            input_ids=torch.from_numpy(prompt)[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=seed is not None,
            guidance_scale=options.pop("guidance", 3.0),
            **options,
        )
    codes = torch.stack([channel[0, 0] for channel in heard], 1).flatten(0, 1).numpy()
    return codes, audio[0].numpy()


def our_song(backend: Backend, request: SongRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Codes and audio of the engine."""
    codes: list[Any] = [[] for _ in range(backend.shape.channels)]
    push = CodecStream.push
    streams: list[CodecStream] = []

    def spy(self: CodecStream, new: Any, **more: Any) -> Any:
        if self not in streams:
            streams.append(self)
        codes[streams.index(self)].append(new)
        return push(self, new, **more)

    with monkeypatch.context() as patch, Engine(backend) as engine:
        patch.setattr(CodecStream, "push", spy)
        audio = engine.generate(request)
    return np.stack([np.concatenate(channel, 1) for channel in codes], 1).reshape(backend.shape.codebooks, -1), audio


SAMPLINGS = {
    "greedy": (Sampling(temperature=0), {}),
    "sampled": (Sampling(), {"top_k": 250}),
    "cold, few": (Sampling(temperature=0.7, top_k=20), {"temperature": 0.7, "top_k": 20}),
    "nucleus": (Sampling(top_k=0, top_p=0.8), {"top_k": 0, "top_p": 0.8}),
    "strong prompt": (Sampling(guidance=7.5), {"top_k": 250, "guidance": 7.5}),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_float32_gives_the_codes_of_transformers(
    checkpoint: Checkpoint, reference: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sampling, options = SAMPLINGS[name]
    backend = backend_of(checkpoint, "float32")
    seed = None if sampling.temperature == 0 else 7
    tokens = backend.tokens(PROMPT)
    steps = SECONDS * 50 + int(backend.shape.delays.max())
    theirs, their_audio = transformers_song(reference, monkeypatch, tokens, seed=seed, max_new_tokens=steps, **options)
    ours, our_audio = our_song(backend, SongRequest(PROMPT, SECONDS, 7, sampling), monkeypatch)
    assert ours.shape == (backend.shape.codebooks, SECONDS * 50)
    assert len(np.unique(theirs)) > (20 if seed is None else 100)  # a song that says something about each step
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(our_audio - their_audio).max() < 1e-5 * np.abs(their_audio).max()


def test_float32_goes_on_from_audio_as_transformers_does(
    checkpoint: Checkpoint, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(checkpoint, "float32")
    shape = backend.shape
    audio = np.random.default_rng(3).normal(0, 0.1, (shape.channels, 32000)).astype(np.float32)
    given = encode_audio(checkpoint, audio, 32000)
    assert given.shape == (shape.codebooks, 50)
    tokens = backend.tokens(PROMPT)
    # transformers counts what it adds to the given frames and the column before them
    steps = SECONDS * 50 + int(shape.delays.max()) - 50
    theirs, _ = transformers_song(
        reference,
        monkeypatch,
        tokens,
        seed=5,
        max_new_tokens=steps,
        top_k=250,
        input_values=torch.from_numpy(audio)[None],
    )
    ours, _ = our_song(backend, SongRequest(PROMPT, SECONDS, 5, given=given), monkeypatch)
    np.testing.assert_array_equal(ours[:, :50], given)
    np.testing.assert_array_equal(ours, theirs)


LOGIT_BOUNDS = {"float16": (1e-3, 0.99), "int8": (0.05, 0.90)}
"""Relative rms error of logits at most, and how often the likeliest code after guidance is the same."""


def logits_of(backend: Backend, columns: Any) -> Any:
    text = backend.encode(backend.tokens(PROMPT))
    backend.reserve(1, len(columns), text.shape[1])
    backend.place(0, text)
    return np.stack([backend.step(tokens[None], np.array([at])).copy()[0] for at, tokens in enumerate(columns)])


@pytest.mark.parametrize("precision", LOGIT_BOUNDS)
def test_lower_precisions_stay_within_their_bounds(checkpoint: Checkpoint, precision: str) -> None:
    shape = checkpoint.architecture
    columns = np.random.default_rng(0).integers(
        0, shape.vocabulary, (400, shape.codebooks)
    )  # of 64, int8 has .88 to .97
    exact, rounded = (logits_of(backend_of(checkpoint, name), columns) for name in ("float32", precision))
    check_bounds(exact, rounded, precision)


def check_bounds(exact: Any, rounded: Any, precision: str) -> None:
    error, agreement = LOGIT_BOUNDS[precision]
    assert np.sqrt(np.mean((rounded - exact) ** 2)) / exact.std() <= error
    best = [(each[:, 1] + 3 * (each[:, 0] - each[:, 1])).argmax(-1) for each in (exact, rounded)]
    assert np.mean(best[0] == best[1]) >= agreement


def test_the_static_form_that_a_gpu_needs_gives_the_same_logits(checkpoint: Checkpoint) -> None:
    """On a GPU each step reads the whole cache under a mask, so that it can be compiled; here without compiling."""
    shape = checkpoint.architecture
    columns = np.random.default_rng(0).integers(0, shape.vocabulary, (20, shape.codebooks))
    exact = logits_of(backend_of(checkpoint, "float32"), columns)
    static = backend_of(checkpoint, "float32")
    static._is_compiled = True  # type: ignore[attr-defined]
    static._require = lambda *_: None  # type: ignore[attr-defined]
    assert np.abs(logits_of(static, columns) - exact).max() < 1e-4 * exact.std()


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("frames", [8, 120])
def test_encodec_in_pieces_sounds_as_transformers_whole(
    checkpoint: Checkpoint, reference: Any, precision: str, frames: int
) -> None:
    backend = backend_of(checkpoint, precision)
    shape = backend.shape
    codes = np.random.default_rng(1).integers(0, shape.vocabulary, (shape.codebooks // shape.channels, frames))
    with torch.no_grad():
        whole = reference.audio_encoder.decode(torch.from_numpy(codes)[None, None], [None]).audio_values[0, 0].numpy()
    for sizes in ([frames], [1] * frames, [2, 40, 41, 200]):
        stream, start, pieces = CodecStream(backend, shape), 0, []
        for size in sizes:
            if start < frames:
                pieces.append(stream.push(codes[:, start : start + size], is_last=start + size >= frames))
                start += size
        audio = np.concatenate(pieces)
        assert audio.shape == whole.shape
        assert np.abs(audio - whole).max() < 1e-5 * np.abs(whole).max()


def test_the_margin_is_as_wide_as_it_must_be(checkpoint: Checkpoint, reference: Any) -> None:
    """One frame of features that changes must not be heard further away than the margin."""
    shape = checkpoint.architecture
    features = torch.randn(1, shape.codec_width, 40, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[..., 20] += 1
    with torch.no_grad():
        upsample = torch.nn.Sequential(*reference.audio_encoder.decoder.layers[2:])
        outputs = [upsample(x)[0, 0].numpy() for x in (features, changed)]
    heard = np.flatnonzero(outputs[0] != outputs[1]) // shape.hop
    margin = margin_frames(shape)
    assert 20 - margin <= heard.min() and heard.max() <= 20 + margin
    assert margin <= 4


def test_all_of_it_at_musicgen_smalls_own_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute, 3 GB of disk and 5 GB of memory: blocks, heads and widths as in facebook/musicgen-small."""
    from transformers import MusicgenForConditionalGeneration

    folder = write_untrained(tmp_path / "small", "small")
    small = Checkpoint(str(folder), folder)
    backend = backend_of(small, "float32")
    reference = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    steps = 50 + int(backend.shape.delays.max())
    theirs, their_audio = transformers_song(
        reference, monkeypatch, backend.tokens(PROMPT), seed=7, max_new_tokens=steps, top_k=250
    )
    del reference
    ours, our_audio = our_song(backend, SongRequest(PROMPT, 1, 7), monkeypatch)
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(our_audio - their_audio).max() < 1e-5 * np.abs(their_audio).max()
    columns = np.random.default_rng(0).integers(0, 2048, (24, 4))
    exact = logits_of(backend, columns)
    del backend
    for precision in LOGIT_BOUNDS:
        check_bounds(exact, logits_of(backend_of(small, precision), columns), precision)
