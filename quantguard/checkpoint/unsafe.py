"""What must not be in a model directory that anybody is to load.

Each file is judged by its kind, its name, its first bytes and, where transformers, PEFT or MLflow take orders from it,
its JSON, YAML or chat templates. Nothing is executed, rendered or unpickled. HIGH and CRITICAL findings are grounds to
refuse the directory (`admit`); a file that ought to be read and cannot is one of them.

    checkpoint.pickle        a pickle, or a file that loaders unpickle (CRITICAL)
    checkpoint.remote_code   a file orders code to be loaded: auto_map, custom_pipelines, loader_module (CRITICAL)
    checkpoint.code          source, bytecode, scripts, native libraries (HIGH)
    checkpoint.redirect      a file sends the loader to other weights than model.safetensors (HIGH)
    checkpoint.steering      a file makes generate favour, force or forbid words (HIGH)
    checkpoint.unmeasured    weights in a format that the gate does not read (HIGH)
    checkpoint.archive       an archive, which may hold any of these (HIGH)
    checkpoint.symlink       a symbolic link (HIGH)
    checkpoint.special_file  a pipe, socket or device (HIGH)
    checkpoint.file_name     a name with control characters, or not UTF-8 (HIGH)
    checkpoint.config_key    a key of config.json or generation_config.json that transformers does not know (HIGH)
    checkpoint.chat_template a chat template that reaches for more than messages, or cannot be judged (HIGH)
    checkpoint.unreadable    a file that gives orders and cannot be read (HIGH)
    checkpoint.requirements  a list of packages to install (INFO; the gate installs nothing)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, assert_never

from quantguard.checkpoint import magic
from quantguard.checkpoint.config_keys import unknown_config_keys, unknown_generation_keys
from quantguard.checkpoint.files import Item, Kind, open_regular, quote, read_bounded_json, read_exactly, walk
from quantguard.checkpoint.layout import CONFIG, INDEX
from quantguard.checkpoint.orders import (
    MAX_JSON,
    ORDERED_BY_NAME,
    Order,
    json_members,
    json_orders,
    mlmodel_orders,
)
from quantguard.checkpoint.templates import SUFFIXES, read_template, refused_templates, templates_in
from quantguard.core.errors import CheckpointError
from quantguard.core.finding import Finding, Severity

# Large, without orders, and full of words: a vocabulary may well hold the word "auto_map".
_VOCABULARIES: Final = frozenset({"added_tokens.json", "tokenizer.json", "vocab.json", INDEX})
_MAX_VOCABULARY: Final = 256 * 1024 * 1024  # bytes; the largest published tokenizer.json has some 35 MB
# Only what transformers reads as the model's own: a config.json further down is another program's.
_CONFIGS: Final[Mapping[str, Callable[[Mapping[str, Any]], str | None]]] = {
    CONFIG: unknown_config_keys,
    "generation_config.json": unknown_generation_keys,
}
_REQUIREMENTS: Final = frozenset({"conda.yaml", "conda.yml", "python_env.yaml", "requirements.txt"})


def unsafe_files(directory: Path) -> tuple[Finding, ...]:
    """Everything in `directory` that a loader might execute, follow, or load unmeasured; links are not followed.

    `Finding.where` is the path of the file relative to the directory, escaped where it is not printable.

    Raises:
        UsageError: not a directory.
    """
    findings: list[Finding] = []
    try:
        for item in walk(directory):
            findings.extend(_judge(directory, item))
    except CheckpointError as error:
        findings.append(_finding("unreadable", Severity.HIGH, ".", error.message))
    return tuple(findings)


def _finding(rule: str, severity: Severity, where: str, message: str) -> Finding:
    return Finding(f"checkpoint.{rule}", severity, where, message)


def _judge(root: Path, item: Item) -> Iterator[Finding]:
    printable = item.path.isprintable()
    where = item.path if printable else quote(item.path, 400)
    if not printable:
        yield _finding("file_name", Severity.HIGH, where, "has control characters or bytes that are not UTF-8 in it")
    match item.kind:
        case Kind.SYMLINK:
            yield _finding("symlink", Severity.HIGH, where, "is a symbolic link, which may lead out of the model")
        case Kind.SPECIAL:
            yield _finding("special_file", Severity.HIGH, where, "is a pipe, socket or device, not a file")
        case Kind.FILE:
            yield from _judge_file(root, item, where)
        case _:
            assert_never(item.kind)


def _judge_file(root: Path, item: Item, where: str) -> Iterator[Finding]:
    try:
        sightings = [magic.by_name(item.path), magic.by_content(item.path, _head(root, item))]
    except CheckpointError as error:
        yield _finding("unreadable", Severity.HIGH, where, error.message)
        return
    contents = {sighting.content: sighting.what for sighting in reversed(sightings) if sighting is not None}
    for content, what in contents.items():
        yield _sighted(content, what, where)
    name = item.path.rsplit("/", 1)[-1].lower()
    if name in ORDERED_BY_NAME:
        yield _ordered(ORDERED_BY_NAME[name], where)
    if name in _REQUIREMENTS:
        yield _finding("requirements", Severity.INFO, where, "lists packages to install; the gate installs nothing")
    yield from _judge_orders(root, item, name, where)


def _head(root: Path, item: Item) -> bytes:
    head = bytearray(min(item.size, magic.HEAD))
    with open_regular(root, item.path) as stream:
        read_exactly(stream, 0, memoryview(head), root=root, name=item.path)
    return bytes(head)


def _sighted(content: magic.Content, what: str, where: str) -> Finding:
    match content:
        case magic.Content.PICKLE:
            message = f"{what}: loading it can run any program"
            return _finding("pickle", Severity.CRITICAL, where, message)
        case magic.Content.CODE:
            return _finding("code", Severity.HIGH, where, f"{what}: a model directory needs no code")
        case magic.Content.ARCHIVE:
            return _finding("archive", Severity.HIGH, where, f"{what}: what is in it is not measured")
        case magic.Content.UNMEASURED:
            message = f"{what}: weights in a format that the gate does not measure"
            return _finding("unmeasured", Severity.HIGH, where, message)
        case _:
            assert_never(content)


def _judge_orders(root: Path, item: Item, name: str, where: str) -> Iterator[Finding]:
    try:
        if name == "mlmodel":
            yield from (_ordered(order, where) for order in mlmodel_orders(root, item.path))
        elif name in _VOCABULARIES:
            _check_vocabulary(root, item)
        elif name.endswith(".json"):
            yield from _judge_json(root, item, where)
        elif name.endswith(SUFFIXES):
            yield from _judge_templates([read_template(root, item.path)], where)
    except CheckpointError as error:
        # open_checkpoint reads the model's own config and says what is wrong with it: broken is not yet hostile.
        severity = Severity.MEDIUM if item.path == CONFIG else Severity.HIGH
        yield _finding("unreadable", severity, where, error.message)


def _judge_json(root: Path, item: Item, where: str) -> Iterator[Finding]:
    members = json_members(root, item.path)
    yield from (_ordered(order, where) for order in json_orders(members))
    yield from _judge_templates(templates_in(members), where)
    if item.path in _CONFIGS:
        wrong = _CONFIGS[item.path](read_bounded_json(root, item.path, MAX_JSON))
        if wrong is not None:
            yield _finding("config_key", Severity.HIGH, where, wrong)


def _judge_templates(texts: Iterable[str], where: str) -> Iterator[Finding]:
    for wrong in refused_templates(texts):
        yield _finding("chat_template", Severity.HIGH, where, wrong)


def _check_vocabulary(root: Path, item: Item) -> None:
    if item.size > _MAX_VOCABULARY:
        raise CheckpointError(f"{quote(item.path)} has {item.size} bytes, more than {_MAX_VOCABULARY}", path=root)


def _ordered(order: Order, where: str) -> Finding:
    severity = Severity.CRITICAL if order.rule == "remote_code" else Severity.HIGH
    return _finding(order.rule, severity, where, order.message)
