"""Rows from `transformers`: small configurations with random weights, no library code patched.

A wrapper names the arguments and returns some fields of the output as tensors; the model itself is
unchanged. The library is imported when a row is built, so that rows can be listed without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.models import Row

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 200,
}
LENGTH = 16


class Named(nn.Module):
    """Call a model with one or two named arguments and return some fields of its answer."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], fields: str, **fixed: Any) -> None:
        super().__init__()
        self.model, self.names, self.fields, self.fixed = model, names, fields.split(), fixed

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.names, (first, second), strict=False))
        answer = self.model(**given, **self.fixed)
        return tuple(getattr(answer, field) for field in self.fields)


def words(vocabulary: int = 200) -> Callable[[int], tuple[torch.Tensor, ...]]:
    return lambda n: (torch.randint(3, vocabulary, (n, LENGTH)),)


def pixels(size: int = 64) -> Callable[[int], tuple[torch.Tensor, ...]]:
    return lambda n: (torch.randn(n, 3, size, size),)


def transformers_rows() -> dict[str, Row]:
    """Name -> row, in the order of the table."""
    ids, image = ("input_ids",), ("pixel_values",)

    def row(model: str, config: str, options: dict[str, Any], names: Any, inputs: Any, fields: str = "logits",
            **fixed: Any) -> Row:  # fmt: skip
        def build() -> nn.Module:
            import transformers

            def configured(name: str, values: dict[str, Any]) -> Any:
                inner = {k: configured(*v) if isinstance(v, tuple) else v for k, v in values.items()}
                return getattr(transformers, name)(**inner)

            network = getattr(transformers, model)(configured(config, options))
            return Named(network.eval(), names, fields, **fixed)

        return Row(build, inputs)

    plain = {"use_cache": False}
    vision = {**SMALL, "image_size": 64, "patch_size": 16}
    vision.pop("vocab_size")
    return {
        "hf_bert": row("BertForSequenceClassification", "BertConfig", SMALL, ids, words()),
        "hf_distilbert": row(
            "DistilBertForSequenceClassification", "DistilBertConfig",
            {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 200}, ids, words(),
        ),
        "hf_albert": row(
            "AlbertForSequenceClassification", "AlbertConfig", {**SMALL, "embedding_size": 32}, ids, words()
        ),
        "hf_gpt2": row(
            "GPT2LMHeadModel", "GPT2Config",
            {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200, "n_positions": 64},
            ids, words(), **plain,
        ),
        "hf_t5": row(
            "T5ForConditionalGeneration", "T5Config",
            {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 200,
             "decoder_start_token_id": 0},
            ("input_ids", "decoder_input_ids"), lambda n: (*words()(n), *words()(n)), **plain,
        ),
        "hf_llama": row(
            "LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 2}, ids, words(), **plain
        ),
        "hf_whisper": row(
            "WhisperForConditionalGeneration", "WhisperConfig",
            {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 200,
             "max_source_positions": 32, "max_target_positions": 32, "num_mel_bins": 16, "pad_token_id": 0,
             "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
            ("input_features", "decoder_input_ids"), lambda n: (torch.randn(n, 16, 64), *words()(n)), **plain,
        ),
        "hf_vit": row("ViTForImageClassification", "ViTConfig", vision, image, pixels()),
        "hf_swin": row(
            "SwinForImageClassification", "SwinConfig",
            {"image_size": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4],
             "window_size": 4}, image, pixels(),
        ),
        "hf_mobilevit": row(
            "MobileViTForImageClassification", "MobileViTConfig",
            {"image_size": 64, "hidden_sizes": [32, 48, 64],
             "neck_hidden_sizes": [16, 24, 32, 48, 64, 80, 128]},
            image, pixels(),
        ),
        "hf_segformer": row(
            "SegformerForSemanticSegmentation", "SegformerConfig",
            {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32,
             "num_attention_heads": [1, 2, 3, 4]}, image, pixels(),
        ),
        "hf_convnext": row(
            "ConvNextForImageClassification", "ConvNextConfig",
            {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}, image, pixels(),
        ),
        "hf_detr": row(
            "DetrForObjectDetection", "DetrConfig",
            {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_queries": 10,
             "num_labels": 5, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
             "backbone_config": ("ResNetConfig", {
                 "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic",
                 "out_features": ["stage2"]})},
            image, pixels(), "logits pred_boxes",
        ),
        "hf_yolos": row(
            "YolosForObjectDetection", "YolosConfig",
            {**vision, "image_size": [64, 64], "num_detection_tokens": 10}, image, pixels(),
            "logits pred_boxes",
        ),
    }  # fmt: skip
