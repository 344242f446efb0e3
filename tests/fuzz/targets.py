"""What is fuzzed: how a hostile directory of each kind is made, and which of our entry points read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from quantguard.checkpoint.consistency import inconsistent
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import CONFIG, INDEX, SINGLE, is_stored_transposed, linear_weights, open_checkpoint
from quantguard.checkpoint.tensors import first_non_finite, stream_tensors
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError
from quantguard.core.finding import Finding, Severity
from quantguard.scan.scan import scan
from tests.fuzz import seeds
from tests.fuzz.chance import KEYS, TEXTS, TOKENS, change_bytes, change_json, encoded, parsed
from tests.fuzz.tensors import changed_file, header_changed, tiled
from tests.fuzz.tree import Folder, HardLink, Link, Node, Pipe, Socket, Tree

Make = Callable[[Random], Tree]


@dataclass(frozen=True, slots=True)
class Target:
    make: Make  # a hostile directory
    read: Callable[[Path], str]  # our entry points on it; what came out, in a word
    share: int  # of a hundred inputs


def _opened(directory: Path) -> str:
    """All that reads a directory without judging its weights. What is refused by one entry point is shown to the next.

    Raises:
        QuantGuardError: of the last that did not take it.
    """
    findings = unsafe_files(directory)
    _require_printable(findings)
    checkpoint = open_checkpoint(directory)
    contradictions = inconsistent(checkpoint)
    _require_printable(contradictions)
    turned = [is_stored_transposed(checkpoint, entry) for entry in linear_weights(checkpoint)]
    for entry, tensor in stream_tensors(checkpoint):
        assert (tuple(tensor.shape), tensor.numel()) == (entry.shape, entry.elements)
        first_non_finite(tensor)
    if not findings and not contradictions:
        return f"accepted{', transposed' if any(turned) else ''}"
    return _word(findings + contradictions)


def _listed(directory: Path) -> str:
    """As `_opened`, and the digest, which reads names and kinds of everything."""
    with suppress(CheckpointError):
        model_digest(directory)
    return _opened(directory)


def _scanned(directory: Path) -> str:
    """The whole scan.

    Raises:
        QuantGuardError: as `scan`.
    """
    found = scan(directory)
    _require_printable(found.findings)
    return _word(found.findings) if found.findings else "accepted"


def _require_printable(findings: tuple[Finding, ...]) -> None:
    """`where` may be a tensor's name as it stands, which every reporter escapes. The rest is our own text."""
    for finding in findings:
        assert finding.message.isprintable(), repr(finding)


def _word(findings: tuple[Finding, ...]) -> str:
    refused = any(finding.severity.at_least(Severity.HIGH) for finding in findings)
    return "refused by a finding" if refused else "milder findings"


def _either(chance: Random) -> Mapping[str, bytes]:
    return seeds.single(chance.choice(("llama", "gpt2")))


def _headers(chance: Random) -> Tree:
    base = _either(chance)
    return {**base, SINGLE: changed_file(chance, base[SINGLE])}


def _json_of(chance: Random, raw: bytes) -> bytes:
    """Changed as JSON four times of five, otherwise as bytes."""
    if chance.randrange(5):
        return encoded(chance, change_json(chance, parsed(raw)))
    return change_bytes(chance, raw)


def _indexes(chance: Random) -> Tree:
    tree: dict[str, Node] = dict(seeds.sharded())
    index = tree[INDEX]
    assert isinstance(index, bytes)
    tree[INDEX] = _json_of(chance, index) if chance.randrange(4) else index
    if chance.randrange(3) == 0:
        files = sorted(path for path in tree if path.endswith(".safetensors"))
        one, other = chance.choice(files), chance.choice(files)
        shard = tree[one]
        assert isinstance(shard, bytes)
        acts: tuple[Callable[[], object], ...] = (
            lambda: tree.pop(one),
            lambda: tree.update({one: tree[other]}),
            lambda: tree.update({one: Link(other)}),
            lambda: tree.update({one: Link("/etc/passwd")}),
            lambda: tree.update({one: Pipe()}),
            lambda: tree.update({one: Folder()}),
            lambda: tree.update({SINGLE: shard}),
            lambda: tree.update({one: changed_file(chance, shard)}),
        )
        chance.choice(acts)()
    return tree


def _configs(chance: Random) -> Tree:
    base = _either(chance)
    return {**base, CONFIG: _json_of(chance, base[CONFIG])}


def _tokenizers(chance: Random) -> Tree:
    tree: dict[str, Node] = dict(seeds.furnished())
    del tree["MLmodel"]  # slow to parse, and it has a target of its own
    for name in chance.sample([*seeds.TOKENIZER, "chat_template.jinja"], chance.choice((1, 1, 2))):
        raw = tree[name]
        assert isinstance(raw, bytes)
        tree[name] = _json_of(chance, raw) if name.endswith(".json") else change_bytes(chance, raw)
    if chance.randrange(8) == 0:
        tree[f"additional_chat_templates/{chance.choice(('tool', 'rag', 'a b'))}.jinja"] = chance.choice(TEXTS).encode(
            "utf-8", "surrogatepass"
        )
    return tree


def _yaml(chance: Random) -> bytes:
    """MLmodel with a key, a value or bytes of it changed."""
    if chance.randrange(3) == 0:
        return change_bytes(chance, seeds.MLMODEL)
    lines = seeds.MLMODEL.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    indent = b" " * chance.randrange(5)
    odd = chance.choice((*TEXTS, *KEYS)).encode("utf-8", "surrogatepass")
    acts: tuple[Callable[[], object], ...] = (
        lambda: lines.insert(at, indent + odd + b": " + chance.choice(TOKENS) + b"\n"),
        lambda: lines.insert(at, indent + b"loader_module: " + odd + b"\n"),
        lambda: lines.insert(at, indent + b'x: "' + odd + b'"\n'),
        lambda: lines.__setitem__(at, chance.choice(TOKENS) + b"\n"),
        lambda: lines.__setitem__(at, indent + lines[at].lstrip()),
        lambda: lines.extend([b"deep: " + b"[" * (depth := chance.choice((50, 150, 400))) + b"]" * depth + b"\n"]),
    )
    for _ in range(chance.choice((1, 1, 2))):
        chance.choice(acts)()
    return b"".join(lines)


def _orders(chance: Random) -> Tree:
    tree: dict[str, Node] = {**seeds.single("llama"), "generation_config.json": seeds.as_json(seeds.GENERATION)}
    kind = chance.randrange(4)
    if kind < 2:
        tree["MLmodel"] = _yaml(chance)
    elif kind == 2:
        tree["generation_config.json"] = _json_of(chance, seeds.as_json(seeds.GENERATION))
    else:
        folder = chance.choice(("", "sub/", "components/tokenizer/"))
        name = chance.choice(("adapter_config.json", "processor_config.json", "config.json", "x.JSON"))
        tree[folder + name] = _json_of(chance, seeds.single("llama")[CONFIG])
    return tree


_STEMS: Final = (
    "model",
    "config",
    "a\nb",
    "\x1b[31m",
    "\u202etxt",
    "\udcff",
    " ",
    "a" * 250,
    "tokenizer",
    "x",
    ".x",
    "-rf",
)
_ENDS: Final = (
    "",
    ".json",
    ".safetensors",
    ".bin",
    ".py",
    ".PKL",
    ".txt",
    ".npy",
    ".npz",
    ".so.1",
    ".gguf",
    ".",
    ".index.json",
)


def _names(chance: Random) -> Tree:
    """Entries of any name and kind beside, above and in place of the model's own."""
    tree: dict[str, Node] = dict(seeds.sharded() if chance.randrange(4) == 0 else _either(chance))
    for _ in range(chance.choice((1, 1, 2, 4))):
        folder = chance.choice(("", "", "sub/", "a/b/", "d/" * 18))
        name = (
            chance.choice(sorted(tree))
            if chance.randrange(4) == 0
            else folder + chance.choice(_STEMS) + chance.choice(_ENDS)
        )
        content = chance.choice(TOKENS) + chance.randbytes(chance.choice((0, 1, 40, 600)))
        links = (
            "/etc/passwd",
            "/",
            ".",
            "..",
            "nowhere",
            name.rsplit("/", 1)[-1],
            CONFIG,
            "/dev/zero",
            "/proc/self/mem",
        )
        nodes: tuple[Node, ...] = (
            *(content, content, content, Link(chance.choice(links)), Link(chance.choice(links))),
            *(Pipe(), Socket(), Folder(), HardLink(Path(__file__))),
        )
        tree[name] = chance.choice(nodes)
    return tree


def _models(chance: Random) -> Tree:
    """Small models that mostly parse, so that their weights are really tested."""
    base = _either(chance)
    file = chance.choice((tiled(chance), tiled(chance), header_changed(chance, base[SINGLE]), base[SINGLE]))
    config = _json_of(chance, base[CONFIG]) if chance.randrange(5) == 0 else base[CONFIG]
    return {**base, SINGLE: file, CONFIG: config}


TARGETS: Final[Mapping[str, Target]] = {
    "headers": Target(_headers, _opened, 36),
    "indexes": Target(_indexes, _opened, 14),
    "configs": Target(_configs, _opened, 14),
    "tokenizers": Target(_tokenizers, _opened, 10),
    "orders": Target(_orders, _opened, 10),
    "names": Target(_names, _listed, 8),
    "models": Target(_models, _scanned, 8),
}
assert sum(target.share for target in TARGETS.values()) == 100


def chance_of(seed: int, target: str, number: int) -> Random:
    """Input `number` of `target` is always the same, whatever was made before it and by whom."""
    return Random(f"{seed}/{target}/{number}")
