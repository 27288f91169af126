"""MusicGen checkpoints of real classes and tiny shapes, with random weights, as transformers writes them."""

from __future__ import annotations

from pathlib import Path

PROMPT = "A calm piano piece. bpm: 90. key: D minor. genre: jazz. moods: calm, warm. instrument: piano"


def write_checkpoint(folder: Path, *, channels: int = 1, seed: int = 0, width: int = 64, layers: int = 2) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json`` into `folder`; return it."""
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
    torch.manual_seed(seed)
    text = T5Config(vocab_size=600, d_model=48, d_kv=16, d_ff=96, num_layers=2, num_heads=3, feed_forward_proj="relu")
    codec = EncodecConfig(
        target_bandwidths=[2.2],
        sampling_rate=32000,
        normalize=False,
        num_filters=4,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=2048,
        codebook_dim=16,
        hidden_size=16,
        use_causal_conv=False,
        use_conv_shortcut=False,
        num_lstm_layers=2,
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=2048,
        max_position_embeddings=2048,
        num_hidden_layers=layers,
        ffn_dim=2 * width,
        num_attention_heads=width // 16,
        hidden_size=width,
        num_codebooks=4 * channels,
        audio_channels=channels,
        activation_function="gelu",
        pad_token_id=2048,
        bos_token_id=2048,
    )
    config = MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    model = MusicgenForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():  # logits as peaked as a trained model's
            parameter.mul_(4 if parameter.ndim > 1 else 1)
        for layer in model.audio_encoder.quantizer.layers:  # transformers leaves them at zero: all codes alike
            layer.codebook.embed.normal_()
    model.generation_config = GenerationConfig(
        bos_token_id=2048, pad_token_id=2048, decoder_start_token_id=2048, do_sample=True, guidance_scale=3.0, max_length=1500
    )
    model.save_pretrained(folder)
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> object:
    """A Unigram tokenizer of T5's form: ``<pad>`` 0, ``</s>`` 1, which ends each prompt."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([PROMPT, "Fast punk rock with distorted guitars and pounding drums."] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer
