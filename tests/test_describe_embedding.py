"""The embedder gives the published network's vectors, whatever shares the batch."""

from __future__ import annotations

import numpy as np
import pytest

from melodify_lib.describe.embedding import MAX_TOKENS, WIDTH, _folder, _load, embed

TEXTS = ["A cat.", "A crowd dances under a mirror ball while confetti falls.", "Fog.", "雨", "word " * 600]


def test_vectors_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file
    from transformers.models.bert import BertConfig, BertModel

    network = BertModel(BertConfig.from_json_file(_folder() / "config.json"), add_pooling_layer=False).eval()
    weights = load_file(_folder() / "model.safetensors")
    network.load_state_dict({name: value for name, value in weights.items() if "pooler" not in name}, strict=False)
    ids = torch.tensor([_load()[0].encode(TEXTS[1]).ids])
    with torch.inference_mode():
        mean = network(input_ids=ids).last_hidden_state.mean(1)
    expected = torch.nn.functional.normalize(mean, dim=-1).numpy()
    np.testing.assert_allclose(embed([TEXTS[1]]), expected, atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch_or_place() -> None:
    alone = np.vstack([embed([text]) for text in TEXTS])
    np.testing.assert_allclose(embed(TEXTS), alone, atol=1e-6)
    np.testing.assert_allclose(embed(TEXTS[::-1])[::-1], alone, atol=1e-6)


def test_vectors_have_unit_length_and_nothing_gives_nothing() -> None:
    vectors = embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert embed([]).shape == (0, WIDTH)


def test_what_is_past_the_longest_input_is_not_read() -> None:
    np.testing.assert_allclose(embed(["word " * MAX_TOKENS]), embed(["word " * 3 * MAX_TOKENS]), atol=1e-6)


def test_like_texts_lie_close() -> None:
    rain, wet, party = embed(
        ["Rain falls on a street.", "A wet road in a shower.", "Friends laugh at a birthday party."]
    )
    assert rain @ wet > rain @ party + 0.2
