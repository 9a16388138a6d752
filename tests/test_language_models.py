"""Tiny configurations of Hugging Face's models: every one is analysed, whatever it calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import cerewrite
from benchmarks.zoo.sources import declare_operators

declare_operators()
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip
OTHER = {"vocab_size": 97, "d_model": 32}
CODER = {
    **OTHER, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip
GPT = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DISTIL = {"vocab_size": 97, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
OPT = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "ffn_dim": 64, "word_embed_proj_dim": 32,
}  # fmt: skip
FALCON = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WHISPER = {
    **CODER, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
BLOCK = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 4}  # fmt: skip
CLIP = {
    "text_config": {**BLOCK, "vocab_size": 97, "max_position_embeddings": 16, "eos_token_id": 3},
    "vision_config": {**BLOCK, "image_size": 32, "patch_size": 8},
    "projection_dim": 16,
}

MODELS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {**SIZES, "num_key_value_heads": 2},
    "MistralForCausalLM": {**SIZES, "num_key_value_heads": 2},
    "Qwen2ForCausalLM": {**SIZES, "num_key_value_heads": 2},
    "GemmaForCausalLM": {**SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "PhiForCausalLM": SIZES,
    "GPTNeoXForCausalLM": SIZES,
    "BertForMaskedLM": SIZES,
    "RobertaForMaskedLM": {**SIZES, "max_position_embeddings": 64},
    "FalconForCausalLM": FALCON,
    "BloomForCausalLM": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "OPTForCausalLM": OPT,
    "GPT2LMHeadModel": GPT,
    "DistilBertForMaskedLM": DISTIL,
    "T5ForConditionalGeneration": {**OTHER, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
    "BartForConditionalGeneration": {**CODER, "max_position_embeddings": 64},
    "WhisperForConditionalGeneration": WHISPER,
    "CLIPModel": CLIP,
}


def build(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**MODELS[name])).eval()
    ids = torch.randint(5, 97, (2, 8))
    inputs = {"input_ids": ids}
    if name in ("T5ForConditionalGeneration", "BartForConditionalGeneration"):
        inputs["decoder_input_ids"] = ids
    if name == "CLIPModel":
        inputs["pixel_values"] = torch.randn(2, 3, 32, 32)
    if name == "WhisperForConditionalGeneration":
        inputs = {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": ids}
    return model, inputs


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_closed_form_near_its_draws(name: str) -> None:
    model, inputs = build(name)
    found = cerewrite.analyze(model, inputs)
    drawn = cerewrite.analyze(model, inputs, estimator="monte-carlo", draws=48)
    assert 0.2 < found.log_variance.value / drawn.log_variance.value < 5
    sampled = {layer.name.partition("@")[0] for layer in found.layers}
    wanted = {n for n, m in model.named_modules() if type(m) is nn.Linear}
    assert wanted - sampled <= set(), wanted - sampled


PLAIN: list[str] = ["GPT2LMHeadModel", "FalconForCausalLM", "T5ForConditionalGeneration"]


@pytest.mark.parametrize("name", PLAIN)
def test_the_jackknife_gates_their_layers(name: str) -> None:
    model, inputs = build(name)
    found = cerewrite.analyze(model, inputs, estimator="jackknife", draws=3)
    drawn = cerewrite.analyze(model, inputs, estimator="monte-carlo", draws=48)
    assert 0.3 < found.log_variance.value / drawn.log_variance.value < 3
