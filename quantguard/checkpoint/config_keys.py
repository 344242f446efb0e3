"""Keys in config.json and generation_config.json that no configuration of transformers knows.

transformers keeps such a key as an attribute and ignores it; other loaders, and later versions, may obey it. So may a
reader who mistakes `tie_word_embedding` for the key that decides. The gate lets only known words through.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.known_words import config_words, generation_words, quantization_words
from quantguard.checkpoint.orders import ORDERED_BY_KEY

# Maps whose keys are of a user's choice: labels, tasks, languages, modules of the model, sizes.
KEYED_BY_USERS: Final = frozenset(
    {
        "backbone_kwargs",
        "block_configs",
        "char_to_id",
        "config_for_layers",
        "config_groups",
        "detectron2_config_args",
        "device_map",
        "dtype",
        "dynamic",
        "dynamic_config",
        "extra_config",
        "group_dict",
        "id2label",
        "id_to_text",
        "init_config",
        "kv_cache_scheme",
        "label2id",
        "lang_to_id",
        "max_memory",
        "meta",
        "module_config_overrides",
        "module_quant_configs",
        "modules_in_block_to_quantize",
        "per_layer_config",
        "projector_patch_to_query_dict",
        "pruned_heads",
        "quant_config",
        "quant_type",
        "quantization",  # MLX: settings by name of module
        "shared_layer_config",
        "sparsity_config",
        "task_specific_params",
        "task_to_id",
        "t2u_lang_code_to_id",
        "text_decoder_lang_to_code_id",
        "torch_dtype",
        "transform_config",
        "transformers.js_config",
        "vocoder_lang_code_to_id",
    }
    | ORDERED_BY_KEY  # their values have a rule of their own
)
_QUANTIZATION: Final = frozenset({"quantization_config", "compression_config"})
_SHOWN: Final = 3  # keys named in a message
_LONGEST_WORD: Final = 64  # characters; what is longer is no misspelling


def unknown_config_keys(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the keys of a parsed config.json, as a sentence; None where all are known."""
    return _complaint(config, config_words())


def unknown_generation_keys(config: Mapping[str, Any]) -> str | None:
    """The same for generation_config.json."""
    return _complaint(config, generation_words())


def _complaint(document: Mapping[str, Any], words: frozenset[str]) -> str | None:
    unknown = tuple(dict.fromkeys(_unknown(document, words)))
    if not unknown:
        return None
    shown = ", ".join(_with_neighbour(key, words) for key in unknown[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return f"has keys that no configuration of transformers knows: {shown}{more}; remove them, or correct them"


def _unknown(document: Mapping[str, Any], words: frozenset[str]) -> Iterator[str]:
    pending: list[tuple[Any, frozenset[str]]] = [(document, words)]
    while pending:
        value, known = pending.pop()
        if isinstance(value, list):
            pending.extend((item, known) for item in value if isinstance(item, dict | list))
        if not isinstance(value, dict):
            continue
        for key, below in value.items():
            if key not in known:
                yield key
            elif isinstance(below, dict | list) and key not in KEYED_BY_USERS:
                pending.append((below, quantization_words() if key in _QUANTIZATION else known))


def _with_neighbour(key: str, words: frozenset[str]) -> str:
    near = difflib.get_close_matches(key, sorted(words), n=1, cutoff=0.85) if len(key) <= _LONGEST_WORD else []
    return quote(key) + (f" (is {near[0]} meant?)" if near else "")
