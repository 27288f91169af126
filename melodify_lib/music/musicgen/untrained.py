"""MusicGen checkpoints with random weights, as transformers writes them: to test and to time without the weights.

What they play is noise. Speed does not depend on the values of weights, so ``small`` takes exactly the time
and the memory of facebook/musicgen-small.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from melodify_lib.music.musicgen.checkpoint import quiet_transformers

if TYPE_CHECKING:
    from pathlib import Path

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "text": {"vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
        "codec": {"num_filters": 64, "codebook_dim": 128, "hidden_size": 128},
        "decoder": {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "ffn_dim": 4096},
    },
    "tiny": {
        "text": {"vocab_size": 600, "d_model": 48, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 3},
        "codec": {"num_filters": 4, "codebook_dim": 16, "hidden_size": 16},
        "decoder": {"num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 16, "ffn_dim": 256},
    },
}
"""``small`` is config.json of facebook/musicgen-small."""
WORDS = (
    "A calm solo piano piece with soft, sparse chords. Fast punk rock with distorted guitars and pounding drums. "
    "bpm: 90. key: D minor. genre: jazz. moods: calm, warm. instrument: piano, strings. keywords: rain, night"
)


def write_untrained(folder: Path, shape: str = "tiny", *, channels: int = 1, seed: int = 0) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json`` of one of `SHAPES`; return `folder`."""
    import torch
    from transformers import EncodecConfig, MusicgenConfig, MusicgenForConditionalGeneration, T5Config
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    sizes = SHAPES[shape]
    text = T5Config(**sizes["text"], feed_forward_proj="relu")
    codec = EncodecConfig(
        **sizes["codec"],
        target_bandwidths=[2.2],
        sampling_rate=32000,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=2048,
        normalize=False,
        use_causal_conv=False,
        use_conv_shortcut=False,
    )
    decoder = MusicgenDecoderConfig(
        **sizes["decoder"],
        vocab_size=2048,
        num_codebooks=4 * channels,
        audio_channels=channels,
        activation_function="gelu",
        pad_token_id=2048,
        bos_token_id=2048,
    )
    configs = {"text_encoder": text.to_dict(), "audio_encoder": codec.to_dict(), "decoder": decoder.to_dict()}
    with quiet_transformers(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model: Any = MusicgenForConditionalGeneration(MusicgenConfig.from_dict(configs))
        for layer in model.audio_encoder.quantizer.layers:  # transformers leaves zeros: all codes would sound alike
            layer.codebook.embed.normal_()
        if shape == "tiny":  # so narrow a decoder would find all codes alike
            for parameter in model.decoder.parameters():
                parameter.mul_(4 if parameter.ndim > 1 else 1)
        generation = model.generation_config
        generation.bos_token_id = generation.pad_token_id = generation.decoder_start_token_id = 2048
        generation.do_sample, generation.guidance_scale, generation.max_length = True, 3.0, 1500
        model.save_pretrained(folder)
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Any:
    """A Unigram tokenizer of T5's form: ``<pad>`` is 0, ``</s>`` is 1 and ends each prompt.

    Its pieces are the words of `WORDS` as they stand there, and letters for all others. The trainer of `tokenizers`
    would give other pieces each time.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pad, end, unknown = "<pad>", "</s>", "<unk>"
    words = dict.fromkeys(f"▁{word}" for word in WORDS.split())
    pieces = [(pad, 0.0), (end, 0.0), (unknown, 0.0), *((word, -4.0) for word in words)]
    pieces += [(letter, -8.0) for letter in "▁" + string.ascii_letters + string.digits + string.punctuation]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens([pad, end, unknown])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    return tokenizer
