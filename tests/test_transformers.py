"""Real transformers as ensembles: tiny ones of Hugging Face, timm and torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from benchmarks.zoo.sources import declare_operators
from cerewrite.runtime.untie import untie
from tests.rewriting.test_attention import planned

declare_operators()

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT = {"vocab_size": 97, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64,
       "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
CODER = {
    "vocab_size": 97, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip

CAUSAL: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": GPT,
    "GPTNeoXForCausalLM": SIZES,
    "OPTForCausalLM": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "Qwen2ForCausalLM": GROUPED,
    "Qwen3ForCausalLM": {**GROUPED, "head_dim": 8},
    "GemmaForCausalLM": {**GROUPED, "head_dim": 8},
    "Phi3ForCausalLM": GROUPED,
}
OTHERS: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": SIZES,
    "RobertaForMaskedLM": SIZES,
    "ElectraForMaskedLM": {**SIZES, "embedding_size": 16},
    "T5ForConditionalGeneration": {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 64,
                                   "num_layers": 1, "num_heads": 4},
    "WhisperForConditionalGeneration": {**CODER, "num_mel_bins": 16, "max_source_positions": 20,
                                        "max_target_positions": 20},
    "ViTForImageClassification": VISION,
    "DeiTForImageClassification": VISION,
    "Dinov2ForImageClassification": {**VISION, "mlp_ratio": 2},
    "BeitForImageClassification": VISION,
    "CLIPVisionModelWithProjection": {**VISION, "projection_dim": 16},
    "CLIPTextModelWithProjection": {**SIZES, "projection_dim": 16},
    "SwinForImageClassification": {"image_size": 16, "patch_size": 2, "embed_dim": 16,
                                   "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
}  # fmt: skip


class Tower(nn.Module):
    """One output of a model that returns its stream too."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model(x), self.output)


def build(name: str) -> tuple[nn.Module, Any]:
    """A tiny model with nothing tied and no cache among its outputs, and inputs."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    config = kind.config_class(**(CAUSAL | OTHERS)[name])
    model, _ = untie(kind(config).eval())
    ids, pixels = torch.randint(5, 97, (2, 8)), torch.randn(2, 3, 16, 16)
    if "Projection" in name:
        vision = "Vision" in name
        tower = Tower(model, "image_embeds" if vision else "text_embeds")
        return tower, (pixels if vision else ids,)
    if "Image" in name:
        return model, {"pixel_values": pixels}
    if name in CAUSAL:
        return model, {"input_ids": ids, "use_cache": False}
    if "Whisper" in name:
        audio = torch.randn(2, 16, 40)
        return model, {"input_features": audio, "decoder_input_ids": ids, "use_cache": False}
    if "T5" in name:
        return model, {"input_ids": ids, "decoder_input_ids": ids, "use_cache": False}
    return model, {"input_ids": ids}


def check(model: nn.Module, inputs: Any) -> nn.Module:
    """Convert at network scope, verify everything, take a step; the rewritten model."""
    plan = planned(model, inputs)
    new = cerewrite.apply(plan, model)
    verification = cerewrite.verify(model, new, plan, inputs)
    assert verification.passed, [c for c in verification.checks if not c.passed]
    membership = next(c for c in verification.checks if c.name == "membership")
    assert membership.value is not None and membership.value < 1e-10
    out = new(**inputs) if isinstance(inputs, dict) else new(*inputs)
    logits = out if isinstance(out, Tensor) else out.logits
    logits.square().mean().backward()
    with torch.no_grad():
        for parameter in new.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    new.load_state_dict(new.state_dict())
    return new


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CAUSAL, *OTHERS])
def test_hugging_face_models_are_rewritten(name: str) -> None:
    model, inputs = build(name)
    check(model, inputs)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_generation_with_a_cache_is_that_without(name: str) -> None:
    model, inputs = build(name)
    new = check(model, inputs).eval()
    ids = inputs["input_ids"][:1]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached = new.generate(ids, use_cache=True, **options)
    whole = ids
    for _ in range(6):
        logits = new(whole, use_cache=False).logits[:, -1:]
        whole = torch.cat([whole, logits.argmax(-1)], 1)
    assert torch.equal(cached, whole)
    keys = new(ids, use_cache=True).past_key_values.layers[0].keys
    own = model(ids, use_cache=True).past_key_values.layers[0].keys
    assert keys.shape == own.shape  # two members of half the heads


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "BertForMaskedLM"])
def test_rewritten_models_are_exported(name: str, tmp_path: Any) -> None:
    model, inputs = build(name)
    new = check(model, inputs)
    cerewrite.export_onnx(new, tmp_path / "model.onnx", example_inputs=inputs)


TIMM = (
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit3_small_patch16_224",
    "vit_small_patch14_dinov2", "cait_xxs24_224",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm_s_vision_transformers_are_rewritten(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 4}
    check(timm.create_model(name, num_classes=3, **sizes).eval(), (torch.randn(2, 3, 16, 16),))


@pytest.mark.slow
def test_torchvision_s_vision_transformer_is_rewritten() -> None:
    from benchmarks.zoo.sources import torchvision_models

    try:
        models = torchvision_models()
    except ImportError:
        pytest.skip("torchvision is not installed")
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    net = models.VisionTransformer(image_size=16, patch_size=8, num_classes=3, **sizes)
    nn.init.normal_(net.heads.head.weight)
    check(net.eval(), (torch.randn(2, 3, 16, 16),))
