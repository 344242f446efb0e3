"""Changes to bytes, text and JSON. Each is decided by a `Random`, which hypothesis may be behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Literal:
    """JSON text that stands for itself: numbers that Python would not write, and text that is no JSON."""

    text: str


class Members(list[tuple[str, Any]]):
    """A JSON object that may name a member twice."""


NUMBERS: Final[tuple[Any, ...]] = (
    *(0, 1, 2, 3, 8, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 0.5, 1.0),
    *(Literal(t) for t in ("-0", "-0.0", "1e999", "-1e999", "1E400", "1e-400", "NaN", "Infinity", "-Infinity", "01")),
    *(Literal("9" * digits) for digits in (20, 309, 4301)),
)
TEXTS: Final = (
    *("", ".", "..", "/", "\0", "\n", "\x1b[2J", "\u202e", "\ud800", "\udfff\ud800", "\U0001f512", "é", "a" * 1025),
    *("../m.safetensors", "../../etc/passwd", "/etc/passwd", "/dev/zero", "model.safetensors", "sub/model.safetensors"),
    *("MODEL.SAFETENSORS", "a.safetensors\0", "\ud800.safetensors", "a" * 300 + ".safetensors", "config.json"),
    *("__metadata__", "weight", "a.weight", "lm_head.weight", "F32", "BF16", "F16", "F64", "F4", "U8", "BOOL", "f32"),
    *("llama", "gpt2", "float32", "bfloat16", "evil/kernel", "evil.Class", "%s%n", "{{ 7*7 }}", "{% for x in y %}"),
    *("{% include '/etc/passwd' %}", "{{ ''.__class__.__mro__ }}", "null", "true", "\ufeff"),
)
KEYS: Final = (
    *("dtype", "shape", "data_offsets", "weight_map", "metadata", "total_size", "model_type", "architectures"),
    *(
        "torch_dtype",
        "vocab_size",
        "hidden_size",
        "tie_word_embeddings",
        "num_hidden_layers",
        "text_config",
        "auto_map",
    ),
    *("quantization_config", "_attn_implementation", "attn_implementation", "trust_remote_code", "custom_pipelines"),
    *("transformers_weights", "sequence_bias", "eos_token_id", "chat_template", "added_tokens_decoder", "model"),
    *(
        "vocab",
        "merges",
        "added_tokens",
        "post_processor",
        "extra_special_tokens",
        "id2label",
        "default",
        "rope_scaling",
    ),
)
DEEP: Final = tuple(
    Literal(opened * depth + middle + closed * depth)
    for depth in (60, 330, 500, 985, 5000)
    for opened, middle, closed in (("[", "", "]"), ('{"a":', "1", "}"), ('{"auto_map":[', "1", "]}"))
)
TOKENS: Final = (  # what bytes are made of somewhere in one of the formats
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"\0",
        b"\xff",
        b"\xc3\x28",
        b"\xef\xbb\xbf",
    ),
    *(b"\n", b"\r", b"\t", b" ", b"-", b"- ", b"? ", b": ", b"#", b"&a ", b"*a", b"!!python/object/apply:os.system "),
    *(
        b"|\n",
        b">\n",
        b"%YAML 1.1\n---\n",
        b"%TAG ! x\n",
        b"---\n",
        b"...\n",
        b"<<: *a",
        b"'",
        b'"\\UFFFFFFFF"',
        b'"\\x"',
    ),
    *(b"!<%ff>", b"\xe2\x80\xa8", b"\xfe\xff", b"\xff\xfe", b"\x80\x04", b"PK\x03\x04", b"GGUF", b"\x93NUMPY", b"MZ\0"),
    *(b"\x7fELF", b"#!", b"\x1f\x8b", b"e9", b"NaN", b"1" * 400, b"loader_module: evil", b"code: x", b"auto_map"),
)


def scalar(chance: Random) -> Any:
    """Any value without members, odd more often than not."""
    kind = chance.randrange(8)
    if kind < 3:
        return chance.choice(NUMBERS)
    if kind < 6:
        return chance.choice(TEXTS)
    return chance.choice((None, True, False, chance.randrange(64)))


def value(chance: Random) -> Any:
    """Any JSON value: mostly a scalar, else something small around some, or something deep."""
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice(DEEP)
    if kind == 1:
        return [scalar(chance) for _ in range(chance.randrange(4))]
    if kind == 2:
        return Members((chance.choice(KEYS), scalar(chance)) for _ in range(chance.randrange(4)))
    return scalar(chance)


def dumps(node: Any, *, ascii_only: bool = True) -> str:
    """JSON text, duplicates and literals as they are; deep values come as literals, so this need not be clever."""
    match node:
        case Literal():
            return node.text
        case Members():
            return (
                "{"
                + ", ".join(f"{dumps(k, ascii_only=ascii_only)}: {dumps(v, ascii_only=ascii_only)}" for k, v in node)
                + "}"
            )
        case list():
            return "[" + ", ".join(dumps(item, ascii_only=ascii_only) for item in node) + "]"
        case _:
            return json.dumps(node, ensure_ascii=ascii_only)


def parsed(text: bytes | str) -> Any:
    """A JSON document in the form that is changed here."""
    return json.loads(text, object_pairs_hook=Members)


_Place = tuple[Any, int]  # a list or members, and which of its items


def _places(document: Any) -> list[_Place]:
    found: list[_Place] = []
    pending = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            found.extend((node, index) for index in range(len(node)))
            pending.extend(item[1] for item in node) if isinstance(node, Members) else pending.extend(node)
    return found


def _replace(chance: Random, place: _Place) -> None:
    node, index = place
    new = value(chance)
    node[index] = (node[index][0], new) if isinstance(node, Members) else new


def _rename(chance: Random, place: _Place) -> None:
    node, index = place
    if isinstance(node, Members):
        node[index] = (chance.choice((*KEYS, *TEXTS)), node[index][1])


def _drop(_: Random, place: _Place) -> None:
    del place[0][place[1]]


def _twice(chance: Random, place: _Place) -> None:
    node, index = place
    node.insert(chance.randrange(len(node) + 1), node[index])


def _insert(chance: Random, place: _Place) -> None:
    node, index = place
    new = value(chance)
    node.insert(index, (chance.choice(KEYS), new) if isinstance(node, Members) else new)


def _swap(chance: Random, place: _Place) -> None:
    node, index = place
    other = chance.randrange(len(node))
    node[index], node[other] = node[other], node[index]


def _wrap(chance: Random, place: _Place) -> None:
    node, index = place
    inner = node[index][1] if isinstance(node, Members) else node[index]
    new = [inner] if chance.randrange(2) else Members([(chance.choice(KEYS), inner)])
    node[index] = (node[index][0], new) if isinstance(node, Members) else new


_JSON_CHANGES: Final = (_replace, _replace, _replace, _rename, _drop, _twice, _insert, _swap, _wrap)


def change_json(chance: Random, document: Any) -> Any:
    """`document` (as `parsed`, changed in place) with one to three changes; now and then, another altogether."""
    if chance.randrange(60) == 0:
        return value(chance)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = _places(document)
        if places:
            chance.choice(_JSON_CHANGES)(chance, chance.choice(places))
    return document


def encoded(chance: Random, document: Any) -> bytes:
    """The document's bytes: escaped, or as UTF-8 with what UTF-8 forbids, or in an encoding that JSON is not in."""
    ascii_only = chance.randrange(4) > 0
    raw = dumps(document, ascii_only=ascii_only).encode("utf-8", "surrogatepass")
    odd = chance.randrange(80)
    if odd == 0:
        return raw.decode("utf-8", "replace").encode("utf-16")
    return b"\xef\xbb\xbf" + raw if odd == 1 else raw


def _flip(chance: Random, data: bytearray, at: int) -> None:
    if at < len(data):
        data[at] ^= 1 << chance.randrange(8)


def _put(chance: Random, data: bytearray, at: int) -> None:
    token = chance.choice(TOKENS)
    data[at : at + (len(token) if chance.randrange(2) else 0)] = token


def _cut(chance: Random, data: bytearray, at: int) -> None:
    del data[at : at + chance.choice((1, 1, 2, 8, 64))]


def _end(_: Random, data: bytearray, at: int) -> None:
    del data[at:]


def _again(chance: Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + chance.choice((1, 4, 40))] * chance.choice((1, 1, 2, 30))


def _move(chance: Random, data: bytearray, at: int) -> None:
    piece = data[at : at + chance.choice((1, 4, 40))]
    data[(to := chance.randrange(len(data) + 1)) : to + len(piece)] = piece


def _length(chance: Random, data: bytearray, _: int) -> None:
    """The field that a safetensors file begins with, next to right or far from it."""
    now = int.from_bytes(data[:8], "little")
    near = max(0, now + chance.choice((-8, -1, 1, 8)))
    far = chance.choice((0, 1, 2, 99_999_999, 100_000_001, 2**31, 2**63, 2**64 - 1))
    data[:8] = min(chance.choice((near, far)), 2**64 - 1).to_bytes(8, "little")


_BYTE_CHANGES: Final[tuple[Callable[[Random, bytearray, int], None], ...]] = (
    *(_flip, _flip, _put, _put, _cut, _end, _again, _move),
    _length,
)


def change_bytes(chance: Random, data: bytes) -> bytes:
    """`data` with one to four changes, nearer to its beginning more often than not."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        reach = len(changed) if chance.randrange(3) == 0 else min(len(changed), 700)
        chance.choice(_BYTE_CHANGES)(chance, changed, chance.randrange(reach + 1))
    return bytes(changed)
