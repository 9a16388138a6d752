"""Tiny configurations of Hugging Face's models: every one is analysed, whatever it calls."""

from __future__ import annotations

import pytest
from torch import nn

import cerewrite
from benchmarks.zoo.hugging_face import tiny
from benchmarks.zoo.sources import declare_operators

declare_operators()
pytest.importorskip("transformers", reason="transformers is not installed")

MODELS = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "GemmaForCausalLM",
    "PhiForCausalLM", "GPTNeoXForCausalLM", "BertForMaskedLM", "RobertaForMaskedLM",
    "FalconForCausalLM", "BloomForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel",
    "DistilBertForMaskedLM", "T5ForConditionalGeneration", "BartForConditionalGeneration",
    "WhisperForConditionalGeneration", "CLIPModel",
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_closed_form_near_its_draws(name: str) -> None:
    model, inputs = tiny(name)
    found = cerewrite.analyze(model, inputs, estimator="analytic")
    drawn = cerewrite.analyze(model, inputs, estimator="monte-carlo", draws=48)
    assert 0.2 < found.log_variance.value / drawn.log_variance.value < 5
    sampled = {layer.name.partition("@")[0] for layer in found.layers}
    wanted = {n for n, m in model.named_modules() if type(m) is nn.Linear}
    assert wanted - sampled <= set(), wanted - sampled


PLAIN: list[str] = ["GPT2LMHeadModel", "FalconForCausalLM", "T5ForConditionalGeneration"]


@pytest.mark.parametrize("name", PLAIN)
def test_the_jackknife_gates_their_layers(name: str) -> None:
    model, inputs = tiny(name)
    found = cerewrite.analyze(model, inputs, estimator="jackknife", draws=3)
    drawn = cerewrite.analyze(model, inputs, estimator="monte-carlo", draws=48)
    assert 0.3 < found.log_variance.value / drawn.log_variance.value < 3
