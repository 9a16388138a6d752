"""Tiny models of Hugging Face's architectures: random weights by configurations, no downloads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.sources import declare_operators
from cerewrite.runtime.untie import untie

Sizes = dict[str, Any]

WORDS = 97
POSITIONS = 10
"""As many as no width has: a size that is met tells what it is."""

MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BLOCK = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
TEXT = {**BLOCK, **MARKS, "vocab_size": WORDS, "max_position_embeddings": 64}
GROUPED = {**TEXT, "num_key_value_heads": 2}
HEADED = {**GROUPED, "head_dim": 8}
GPT = {**MARKS, "vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BLOOM = {**MARKS, "vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}
ROTARY = {**GPT, "rotary_dim": 4}
STATE = {**MARKS, "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
EXPERTS = {**GROUPED, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
CODER = {
    **MARKS, "vocab_size": WORDS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "decoder_start_token_id": 1, "max_position_embeddings": 64,
}  # fmt: skip
T5 = {**MARKS, "vocab_size": WORDS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
      "num_heads": 4, "decoder_start_token_id": 1}  # fmt: skip
IMAGE = {**BLOCK, "image_size": 16, "patch_size": 8}
WINDOWS = {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [1, 1],
           "num_heads": [2, 4], "window_size": 4}  # fmt: skip
CONVNEXT = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "patch_size": 4}
SPEECH = {
    **BLOCK, **MARKS, "vocab_size": WORDS, "conv_dim": (32, 32), "conv_kernel": (10, 3),
    "conv_stride": (5, 2), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "apply_spec_augment": False, "hidden_dropout": 0.0,
}  # fmt: skip

CAUSAL: dict[str, Sizes] = {
    "GPT2LMHeadModel": GPT,
    "GPTNeoForCausalLM": {**TEXT, "num_layers": 2, "num_heads": 4, "window_size": 4,
                          "attention_types": [[["global", "local"], 1]]},
    "GPTNeoXForCausalLM": TEXT,
    "GPTJForCausalLM": ROTARY,
    "OPTForCausalLM": {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "BloomForCausalLM": BLOOM,
    "FalconForCausalLM": TEXT,
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "MixtralForCausalLM": {**GROUPED, "num_local_experts": 4},
    "Qwen2ForCausalLM": GROUPED,
    "Qwen3ForCausalLM": HEADED,
    "Qwen2MoeForCausalLM": {**EXPERTS, "shared_expert_intermediate_size": 32},
    "GemmaForCausalLM": HEADED,
    "Gemma2ForCausalLM": {**HEADED, "query_pre_attn_scalar": 8, "sliding_window": 4},
    "Gemma3ForCausalLM": {**HEADED, "query_pre_attn_scalar": 8, "sliding_window": 4},
    "PhiForCausalLM": TEXT,
    "Phi3ForCausalLM": GROUPED,
    "StableLmForCausalLM": GROUPED,
    "OlmoForCausalLM": GROUPED,
    "Olmo2ForCausalLM": GROUPED,
    "CohereForCausalLM": GROUPED,
    "Starcoder2ForCausalLM": GROUPED,
    "SmolLM3ForCausalLM": GROUPED,
    "MptForCausalLM": {**MARKS, "vocab_size": WORDS, "d_model": 32, "n_layers": 2, "n_heads": 4,
                       "expansion_ratio": 2, "max_seq_len": 64},
    "CodeGenForCausalLM": ROTARY,
    "XGLMForCausalLM": {**MARKS, "vocab_size": WORDS, "d_model": 32, "num_layers": 2,
                        "attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": 64},
    "GraniteForCausalLM": GROUPED,
    "MambaForCausalLM": {**STATE, "time_step_rank": 4},
    "Mamba2ForCausalLM": {**STATE, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4},
    "RwkvForCausalLM": {**STATE, "attention_hidden_size": 32, "intermediate_size": 64,
                        "context_length": 64},
}  # fmt: skip
MASKED: dict[str, Sizes] = {
    "BertForMaskedLM": TEXT,
    "RobertaForMaskedLM": TEXT,
    "XLMRobertaForMaskedLM": TEXT,
    "ElectraForMaskedLM": {**TEXT, "embedding_size": 16},
    "AlbertForMaskedLM": {**TEXT, "embedding_size": 16},
    "DistilBertForMaskedLM": {"vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 4,
                              "hidden_dim": 64, "max_position_embeddings": 64},
    "DebertaForMaskedLM": {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DebertaV2ForMaskedLM": {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                             "position_buckets": 8, "share_att_key": True},
    "MPNetForMaskedLM": TEXT,
    "ModernBertForMaskedLM": {**TEXT, "cls_token_id": 1, "sep_token_id": 2,
                              "local_attention": 4},
    "NomicBertForMaskedLM": TEXT,
    "FunnelForMaskedLM": {"vocab_size": WORDS, "block_sizes": [1, 1], "num_decoder_layers": 1,
                          "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    "ConvBertForMaskedLM": {**TEXT, "embedding_size": 32, "conv_kernel_size": 3, "head_ratio": 2},
    "SqueezeBertForMaskedLM": {**TEXT, "embedding_size": 32},
    "NystromformerForMaskedLM": {**TEXT, "num_landmarks": 5, "segment_means_seq_len": POSITIONS},
    "FNetForMaskedLM": TEXT,
}  # fmt: skip
SEQUENCE: dict[str, Sizes] = {
    "T5ForConditionalGeneration": T5,
    "BartForConditionalGeneration": CODER,
    "PegasusForConditionalGeneration": CODER,
    "MarianMTModel": CODER,
    "MBartForConditionalGeneration": CODER,
    "BlenderbotForConditionalGeneration": CODER,
    "LEDForConditionalGeneration": {
        **CODER, "attention_window": POSITIONS, "max_encoder_position_embeddings": 64,
        "max_decoder_position_embeddings": 64},
    "WhisperForConditionalGeneration": {**CODER, "num_mel_bins": 16, "max_source_positions": 20,
                                        "max_target_positions": 20},
}  # fmt: skip
VISION: dict[str, Sizes] = {
    "ViTForImageClassification": IMAGE,
    "DeiTForImageClassification": IMAGE,
    "BeitForImageClassification": IMAGE,
    "Dinov2ForImageClassification": {**IMAGE, "mlp_ratio": 2},
    "SwinForImageClassification": WINDOWS,
    "Swinv2ForImageClassification": WINDOWS,
    "ConvNextForImageClassification": CONVNEXT,
    "ConvNextV2ForImageClassification": CONVNEXT,
    "MobileViTForImageClassification": {
        "hidden_sizes": [32, 32, 32], "neck_hidden_sizes": [8, 16, 16, 16, 16, 16, 32],
        "num_attention_heads": 4, "image_size": 64},
    "SegformerForImageClassification": {
        "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
        "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4],
        "mlp_ratios": [2, 2]},
    "PvtForImageClassification": {
        "image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1],
        "sequence_reduction_ratios": [2, 1], "hidden_sizes": [16, 32], "patch_sizes": [4, 2],
        "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]},
    "PoolFormerForImageClassification": {
        "num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [16, 32],
        "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]},
    "LevitForImageClassification": {
        "image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4],
        "depths": [1, 1, 1], "key_dim": [8, 8, 8], "attention_ratio": [2, 2, 2],
        "mlp_ratio": [2, 2, 2]},
    "CvtForImageClassification": {"embed_dim": [16, 32, 48], "num_heads": [2, 4, 6],
                                  "depth": [1, 2, 3], "mlp_ratio": [2.0, 2.0, 2.0]},
    "DPTForSemanticSegmentation": {  # at 0.02 no signal would pass its narrow convolutions
        **IMAGE, "image_size": 32, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 16, 32, 32], "fusion_hidden_size": 16,
        "initializer_range": 0.1},
    "ResNetForImageClassification": {"embedding_size": 16, "hidden_sizes": [32, 64],
                                     "depths": [1, 1]},
    "RegNetForImageClassification": {"embedding_size": 16, "hidden_sizes": [32, 64],
                                     "depths": [1, 1], "groups_width": 16},
}  # fmt: skip
TOWERS: dict[str, Sizes] = {
    "CLIPVisionModelWithProjection": {**IMAGE, "projection_dim": 16},
    "CLIPTextModelWithProjection": {**TEXT, "projection_dim": 16},
    "SiglipVisionModel": IMAGE,
    "SiglipTextModel": {**TEXT, "projection_size": 16},
    "CLIPModel": {"text_config": {**TEXT, "eos_token_id": 3}, "vision_config": IMAGE,
                  "projection_dim": 16},
}  # fmt: skip
AUDIO: dict[str, Sizes] = {
    "Wav2Vec2ForCTC": SPEECH,
    "HubertForCTC": SPEECH,
    "ASTForAudioClassification": {**BLOCK, "patch_size": 8, "frequency_stride": 4,
                                  "time_stride": 4, "max_length": 16, "num_mel_bins": 16},
}  # fmt: skip

KINDS = {"causal": CAUSAL, "masked": MASKED, "encoder-decoder": SEQUENCE, "vision": VISION,
         "tower": TOWERS, "audio": AUDIO}  # fmt: skip
"""Configurations by kind and by the class of the model."""


class Tower(nn.Module):
    """One output of a model that returns its stream too."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, x: Tensor) -> Tensor:
        """The output, of token ids or pixels."""
        found: Tensor = getattr(self.model(x), self.output)
        return found


def kind_of(name: str) -> str:
    """The kind under which an architecture stands."""
    return next(kind for kind, models in KINDS.items() if name in models)


def tiny(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model as its configuration makes it, in evaluation mode, and two examples by name.

    Raises:
        ImportError: if transformers is not installed.
    """
    declare_operators()  # transformers imports torchvision
    import transformers

    torch.manual_seed(0)
    kind = kind_of(name)
    architecture = getattr(transformers, name)
    config = architecture.config_class(**KINDS[kind][name])
    return architecture(config).eval(), _inputs(name, kind, config)


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The same with nothing tied, no cache among the outputs and no stream beside them.

    Raises:
        ImportError: if transformers is not installed.
    """
    model, inputs = tiny(name)
    model, _ = untie(model)
    if name in CAUSAL or name in SEQUENCE:
        inputs["use_cache"] = False
    if name in TOWERS and name != "CLIPModel":
        embeds = "text_embeds" if "Text" in name else "image_embeds"
        output = embeds if "Projection" in name else "pooler_output"
        return Tower(model, output), {"x": next(iter(inputs.values()))}
    return model, inputs


def _inputs(name: str, kind: str, config: Any) -> dict[str, Any]:
    ids = torch.randint(5, WORDS, (2, POSITIONS))
    if name == "ASTForAudioClassification":
        return {"input_values": torch.randn(2, 16, 16)}
    if kind == "audio":
        return {"input_values": torch.randn(2, 400)}
    if name == "WhisperForConditionalGeneration":
        return {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": ids}
    if kind == "encoder-decoder":
        return {"input_ids": ids, "decoder_input_ids": ids}
    inputs: dict[str, Any] = {}
    if kind in ("causal", "masked") or "Text" in name or name == "CLIPModel":
        inputs["input_ids"] = ids
    if kind == "vision" or "Vision" in name or name == "CLIPModel":
        pixels = getattr(config, "image_size", IMAGE["image_size"] if kind == "tower" else 32)
        inputs["pixel_values"] = torch.randn(2, 3, pixels, pixels)
    return inputs
