"""Keys that no configuration of transformers knows keep a directory out; what published models have does not."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.config_keys import unknown_config_keys, unknown_generation_keys
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import UnsafeCheckpointError
from quantguard.core.finding import Severity
from tests.checkpoint.build import CONFIG, write_model
from tests.checkpoint.known_words import known_words_text

WORDS = Path(__file__).parents[2] / "quantguard" / "checkpoint" / "known_words.json"


def test_the_known_words_are_those_of_the_installed_transformers() -> None:
    assert WORDS.read_text(encoding="utf-8") == known_words_text(), "run make schemas"


WITHOUT_DEFAULT = {"gemma4_assistant", "nougat"}  # in transformers 5.23, cannot be made without arguments


def test_every_key_that_a_configuration_writes_is_known() -> None:
    wrong = {}
    for model_type in set(CONFIG_MAPPING) - WITHOUT_DEFAULT:
        written = json.loads(CONFIG_MAPPING[model_type]().to_json_string(use_diff=False))
        if found := unknown_config_keys(written):
            wrong[model_type] = found
    assert wrong == {}


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "a typing error": ({"tie_word_embedding": True}, "'tie_word_embedding' (is tie_word_embeddings meant?)"),
    "an order of another loader": ({"load_plugin": "x"}, "'load_plugin'"),
    "in a part": ({"text_config": {"run_at_load": "x"}}, "'run_at_load'"),
    "in a list of parts": ({"text_config": [[{"vision_config": {"hook": 1}}]]}, "'hook'"),
    "in the rope": ({"rope_scaling": {"rope_type": "yarn", "on_load": 1}}, "'on_load'"),
    "in a quantizer": ({"quantization_config": {"quant_method": "gptq", "exec": "x"}}, "'exec'"),
    "four": ({f"unheard_{i}": 1 for i in range(4)}, "'unheard_2' and 1 more"),
    "escaped": ({"\x1b[31m": 1}, r"'\x1b[31m'"),
    "long": ({"x" * 10_000: 1}, "xxx…"),
    "a quantizer's word elsewhere": ({"quant_algo": 1}, "'quant_algo'"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_key_is_refused_with_what_may_be_meant(tmp_path: Path, case: str) -> None:
    keys, said = UNKNOWN[case]
    model = write_model(tmp_path / "m", config={**CONFIG, **keys})
    (finding,) = unsafe_files(model)
    assert (finding.rule, finding.where, finding.severity) == ("checkpoint.config_key", "config.json", Severity.HIGH)
    assert said in finding.message
    assert finding.message.isprintable()
    assert len(finding.message) < 700
    with pytest.raises(UnsafeCheckpointError, match=r"checkpoint\.config_key"):
        admit(model)


KNOWN: dict[str, dict[str, Any]] = {
    "llama of transformers 4": {
        "_name_or_path": "meta-llama/Llama-3.1-8B",
        "pretraining_tp": 1,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"},
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.0",
        "unsloth_fixed": True,
        "unsloth_version": "2025.1",
        "use_mrope": False,
    },
    "gpt2": {
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "n_ctx": 1024,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "anything": 50}},
    },
    "smollm": {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": {"x.onnx": 1}}},
    "cohere 2": {"layer_switch": 4, "order_of_interleaved_layers": "local_attn_first", "use_parallel_block": True},
    "bloom": {"masked_softmax_fusion": True, "offset_alibi": 100, "skip_bias_add": True, "unk_token_id": 0},
    "starcoder": {"inference_runner": 0, "pad_key_length": True, "validate_runner_input": True},
    "llama 4": {"text_config": {"for_llm_compressor": False, "attn_scale": 0.1, "no_rope_layers": [1]}},
    "yarn": {"rope_scaling": {"factor": 16.0, "finetuned": True, "type": "yarn", "attn_factor": 1.0}},
    "gpt-oss": {"initial_context_length": 4096, "experts_per_token": 4, "swiglu_limit": 7.0},
    "labels": {"id2label": {str(i): f"label {i}" for i in range(20_000)}, "label2id": {"of a user's choice": 0}},
    "layers that differ": {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {}}},
    "bitsandbytes": {
        "quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "_load_in_8bit": False}
    },
    "gptq": {"quantization_config": {"bits": 4, "desc_act": True, "lm_head": False, "dynamic": {"-:.*": {"x": 1}}}},
    "compressed tensors": {
        "quantization_config": {"config_groups": {"group_0": {"targets": ["Linear"]}}, "ignore": []}
    },
    "infinity": {"time_step_limit": [0.0, {"__float__": "Infinity"}]},
    "dtypes by part": {"dtype": {"": "float32", "text_config": "float32"}},
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_published_models_have_is_known(case: str) -> None:
    begun = monotonic()
    assert unknown_config_keys({**CONFIG, **KNOWN[case]}) is None
    assert monotonic() - begun < 1


def test_generation_settings_are_judged_by_their_own_words(tmp_path: Path) -> None:
    whisper = {"lang_to_id": {"<|en|>": 1}, "alignment_heads": [[1, 2]], "temperature": 0.6, "_from_model_config": True}
    assert unknown_generation_keys(whisper) is None
    model = write_model(tmp_path / "m")
    (model / "generation_config.json").write_text(json.dumps({**whisper, "temprature": 1.0}))
    (finding,) = unsafe_files(model)
    assert (finding.rule, finding.where) == ("checkpoint.config_key", "generation_config.json")
    assert "'temprature' (is temperature meant?)" in finding.message


def test_generation_settings_that_name_a_key_twice_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "generation_config.json").write_text('{"top_k": 1, "top_k": 2}')
    (finding,) = unsafe_files(model)
    assert (finding.rule, finding.severity) == ("checkpoint.unreadable", Severity.HIGH)


def test_another_programs_config_is_not_judged(tmp_path: Path) -> None:
    """sentence-transformers keeps the settings of its pooling in 1_Pooling/config.json."""
    model = write_model(tmp_path / "m")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": false}')
    assert unsafe_files(model) == ()


def test_thousands_of_unknown_keys_cost_no_time() -> None:
    begun = monotonic()
    said = unknown_config_keys({f"unheard_{i}": {} for i in range(100_000)})
    assert said is not None
    assert "and 99997 more" in said
    assert monotonic() - begun < 5
