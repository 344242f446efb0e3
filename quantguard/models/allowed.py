"""Which keys of a hostile JSON may reach transformers, and which values.

What is not listed is dropped. A string that could name a file, a repository or code (a slash, a colon, a leading dot or
underscore) is dropped wherever it stands.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from quantguard.core.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    ConfigClass = type[PreTrainedConfig]

_MAX_DEPTH: Final = 6
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+\- ]{0,127}\Z")

# transformers reads these although they are fields of few configuration classes: older names of rope and MoE settings.
_LEGACY_CONFIG_KEYS: Final = frozenset(
    {
        "model_type",
        "dtype",
        "torch_dtype",
        "rope_scaling",
        "rope_theta",
        "rope_local_base_freq",
        "partial_rotary_factor",
        "rotary_pct",
        "rotary_emb_base",
        "rotary_dim",
        "local_rope_theta",
        "global_rope_theta",
        "swa_rope_theta",
        "sliding_window_pattern",
        "full_attention_interval",
        "first_k_dense_replace",
        "moe_layer_freq",
        "num_experts",
        "no_rope_layer_interval",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "mtp_hybrid_override_pattern",
        "qk_rope_head_dim",
    }
)
# Fields of configuration classes that choose code, not arithmetic, or that mean a checkpoint is quantized already.
_DENIED_CONFIG_KEYS: Final = frozenset(
    {
        "auto_map",
        "trust_remote_code",
        "quantization_config",
        "_name_or_path",
        "name_or_path",
        "custom_pipelines",
        "attn_implementation",
        "experts_implementation",
        "backbone",
        "backbone_kwargs",
        "use_timm_backbone",
        "use_kernels",
        "transformers_version",
    }
)
# Token texts are data, compared and concatenated, and may hold any character.
_TEXT_KEYS: Final = frozenset(
    {
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "additional_special_tokens",
        "extra_special_tokens",
        "added_tokens_decoder",
    }
)
_TOKENIZER_KEYS: Final = _TEXT_KEYS | {
    "tokenizer_class",
    "model_max_length",
    "padding_side",
    "truncation_side",
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "clean_up_tokenization_spaces",
    "legacy",
    "spaces_between_special_tokens",
    "split_special_tokens",
    "do_lower_case",
    "errors",
    "strip_accents",
    "tokenize_chinese_chars",
    "add_dummy_prefix_space",
    "remove_space",
    "keep_accents",
    "model_input_names",
    "use_default_system_prompt",
}
_INFINITY_KEY: Final = "__float__"  # how transformers writes an infinite number: {"__float__": "Infinity"}
_DTYPE_KEYS: Final = frozenset({"dtype", "torch_dtype"})  # transformers looks the name up in the torch module
DTYPES: Final = frozenset({"float32", "float16", "bfloat16"})
_TOKEN_ID_KEYS: Final = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})


def allowed_config(raw: dict[str, Any], config_class: ConfigClass) -> dict[str, Any]:
    """`raw` reduced to what the configuration class knows; nested configurations by their own class."""
    known = {f.name for f in fields(config_class)} | set(config_class.attribute_map) | _LEGACY_CONFIG_KEYS
    known |= _written_by_default(config_class)
    kept: dict[str, Any] = {}
    for key in sorted((known - _DENIED_CONFIG_KEYS) & raw.keys()):
        value = raw[key]
        nested = config_class.sub_configs.get(key)
        if key in _DTYPE_KEYS and value is not None and value not in DTYPES:
            continue
        if nested is not None and isinstance(value, dict):
            kept[key] = allowed_config(value, _nested_class(nested, value))
        elif (plain := _plain(value, 0)) is not None or value is None:
            kept[key] = plain
    return kept


def allowed_tokenizer_config(raw: dict[str, Any]) -> dict[str, Any]:
    """Behaviour flags and special tokens, and the chat template that is applied when none is named."""
    kept: dict[str, Any] = {}
    for key in sorted(_TOKENIZER_KEYS & raw.keys()):
        value = _texts(raw[key], 0) if key in _TEXT_KEYS else _plain(raw[key], 0)
        if value is not None or raw[key] is None:
            kept[key] = value
    template = raw.get("chat_template")
    if isinstance(template, list):  # several by name: transformers applies the one called default
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default", template)
    if isinstance(template, str):
        kept["chat_template"] = template
    elif template is not None:  # probing without it would not be probing what is deployed
        raise ModelLoadError(
            "its chat_template is neither text nor a list with a default", remedy="give it one template"
        )
    return kept


def allowed_special_tokens(raw: dict[str, Any]) -> dict[str, Any]:
    """The special tokens of special_tokens_map.json."""
    return {key: value for key in sorted(_TEXT_KEYS & raw.keys()) if (value := _texts(raw[key], 0)) is not None}


def allowed_generation_config(raw: dict[str, Any]) -> dict[str, Any]:
    """Only the token ids: they end the answers of the deployed model. Decoding settings are the verifier's own."""
    return {key: raw[key] for key in sorted(_TOKEN_ID_KEYS & raw.keys()) if _is_ids(raw[key])}


def _written_by_default(config_class: ConfigClass) -> set[str]:
    """Attributes that a configuration sets and writes although they are no fields, e.g. gemma3's sliding window."""
    try:
        return set(config_class().to_dict())
    except Exception:  # noqa: BLE001  a few classes have no valid default; their fields are known all the same
        return set()


def _nested_class(declared: Any, value: dict[str, Any]) -> ConfigClass:
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if isinstance(declared, type) and issubclass(declared, PreTrainedConfig):
        return declared
    name = value.get("model_type")
    if isinstance(name, str) and name in CONFIG_MAPPING:
        return CONFIG_MAPPING[name]  # AutoConfig resolves by the same name
    return PreTrainedConfig


def _plain(value: Any, depth: int) -> Any:
    """`value` without strings that name things; None where nothing is left or it is too deep."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if not value or _PLAIN.match(value) else None
    if isinstance(value, list):
        items = [_plain(item, depth + 1) for item in value]
        return None if any(new is None and old is not None for new, old in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        pairs = {k: (_plain(v, depth + 1), v) for k, v in value.items() if _PLAIN.match(k) or k == _INFINITY_KEY}
        return {
            k: new for k, (new, old) in pairs.items() if k not in _DENIED_CONFIG_KEYS and (new is not None or not old)
        }
    return None


def _texts(value: Any, depth: int) -> Any:
    """Token texts: strings, numbers and flags, nested as AddedToken dictionaries are."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_texts(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {k: _texts(v, depth + 1) for k, v in value.items() if k not in _DENIED_CONFIG_KEYS}
    return None


def _is_ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return bool(ids) and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids)
