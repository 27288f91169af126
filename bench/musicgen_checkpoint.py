"""A checkpoint with the exact architecture of musicgen-small and random weights, for `bench/musicgen.py`.

Speed and memory do not depend on what the weights are; how much an 8-bit weight loses does, a little.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CAPTIONS = Path(__file__).parent.parent / "data" / "generate_jsonl" / "output" / "train.jsonl"
TEXT = {
    "vocab_size": 32128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "relu",
    "n_positions": 512,
}
CODEC = {
    "target_bandwidths": [2.2],
    "sampling_rate": 32000,
    "audio_channels": 1,
    "normalize": False,
    "num_filters": 64,
    "upsampling_ratios": [8, 5, 4, 4],
    "codebook_size": 2048,
    "codebook_dim": 128,
    "hidden_size": 128,
    "use_causal_conv": False,
    "use_conv_shortcut": False,
    "num_lstm_layers": 2,
}
DECODER = {
    "vocab_size": 2048,
    "max_position_embeddings": 2048,
    "num_hidden_layers": 24,
    "ffn_dim": 4096,
    "num_attention_heads": 16,
    "hidden_size": 1024,
    "num_codebooks": 4,
    "audio_channels": 1,
    "activation_function": "gelu",
    "pad_token_id": 2048,
    "bos_token_id": 2048,
}
GENERATION = {
    "bos_token_id": 2048,
    "pad_token_id": 2048,
    "decoder_start_token_id": 2048,
    "do_sample": True,
    "guidance_scale": 3.0,
    "max_length": 1500,
}


def write_checkpoint(folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json`` into `folder`."""
    import torch
    from transformers import (
        EncodecConfig,
        GenerationConfig,
        MusicgenConfig,
        MusicgenForConditionalGeneration,
        T5Config,
    )
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = MusicgenConfig(
        text_encoder=T5Config(**TEXT).to_dict(),
        audio_encoder=EncodecConfig(**CODEC).to_dict(),
        decoder=MusicgenDecoderConfig(**DECODER).to_dict(),
    )
    model = MusicgenForConditionalGeneration(config).eval()
    with torch.no_grad():
        for layer in model.audio_encoder.quantizer.layers:  # transformers leaves them at zero: all codes alike
            layer.codebook.embed.normal_()
    model.generation_config = GenerationConfig(**GENERATION)
    model.save_pretrained(folder)
    _tokenizer().save(str(folder / "tokenizer.json"))


def _tokenizer() -> Any:
    """A Unigram tokenizer of T5's form over the shipped captions: ``<pad>`` 0, ``</s>`` 1, which ends each prompt."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    lines = CAPTIONS.read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=8000, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator((str(json.loads(line)) for line in lines), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer
