"""Real transformers as ensembles: tiny ones of Hugging Face, timm and torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from benchmarks.zoo import hugging_face
from benchmarks.zoo.sources import declare_operators
from tests.rewriting.test_attention import planned

declare_operators()

HUGGING_FACE = (
    "GPT2LMHeadModel", "GPTNeoXForCausalLM", "OPTForCausalLM", "LlamaForCausalLM",
    "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM",
    "Phi3ForCausalLM", "BertForMaskedLM", "RobertaForMaskedLM", "ElectraForMaskedLM",
    "T5ForConditionalGeneration", "WhisperForConditionalGeneration", "ViTForImageClassification",
    "DeiTForImageClassification", "Dinov2ForImageClassification", "BeitForImageClassification",
    "CLIPVisionModelWithProjection", "CLIPTextModelWithProjection", "SwinForImageClassification",
)  # fmt: skip


def build(name: str) -> tuple[nn.Module, Any]:
    """One of the zoo's, with nothing tied."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    return hugging_face.build(name)


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
@pytest.mark.parametrize("name", HUGGING_FACE)
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
