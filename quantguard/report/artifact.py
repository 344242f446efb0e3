"""The proof about a quantized artefact: a table for the terminal, and files in some of the formats of a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol

from rich.table import Table
from rich.text import Text

from quantguard.core.artifact import Answer, ArtifactProof, Difference, Kind
from quantguard.core.remark import Level, Remark
from quantguard.evidence.records import to_plain, write_atomically
from quantguard.report.annotations import render_annotations
from quantguard.report.rule import Rule
from quantguard.report.sarif import render_sarif
from quantguard.report.text import code_span, visible

SCHEMA: Final = "quantguard.artifact/1"
_MOST: Final = 20  # differences in a table; the JSON holds all of them
_MOST_OF_LIST: Final = 200  # in a Markdown list
_SENTENCE: Final = 400  # characters

HINTS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.CODES: "whoever quantized chose other roundings. A backdoor can be put in so; stochastic or calibrated "
        "rounding and other vetted weights look the same. Quantize the vetted weights yourself.",
        Kind.EDGE: "on this device the other level is the nearest one, on another device it may be this one. Run again "
        "with --device as it was quantized on.",
        Kind.SCALES: "a scale moves all weights of its block or row. Other weights were quantized, or it was changed.",
        Kind.LEVELS: "every code would mean another value than bitsandbytes gives it.",
        Kind.LAYOUT: "it is not what transformers and bitsandbytes write of the vetted tensor.",
        Kind.VALUES: "a tensor that is not quantized is another one than was vetted.",
        Kind.CAST: "a weight beside a boundary may cross it when it is converted, so that what was measured is not "
        "what is deployed. Vet the model in that dtype, or accept it with --allow-cast.",
        Kind.MISSING: "a loader fills what is missing with random numbers, and only logs it.",
        Kind.EXTRA: "a loader may take it for a parameter that nobody vetted.",
        Kind.SETTINGS: "other settings make another model of the same weights.",
        Kind.FILE: "another tokenizer or chat template makes the model read other words. Take the vetted files.",
        Kind.UNSAFE: "what must not be in a model directory: see `quantguard scan --explain` and the rule.",
    }
)
_CONCLUSIONS: Final[Mapping[Answer, str]] = MappingProxyType(
    {
        Answer.PROVED: "proved: every code is the nearest rounding of the vetted weights, and nothing else differs",
        Answer.DIFFERS: "differs: this is not the vetted model, quantized",
        Answer.UNTOLD: "could not tell: what differs may be how another device rounds",
    }
)


@dataclass(frozen=True, slots=True)
class ProofDocument:
    """What the JSON file holds. `answer` follows from `proof` and stands first for shell scripts."""

    schema: Literal["quantguard.artifact/1"]
    answer: Answer
    proof: ArtifactProof


class Renderer(Protocol):
    def __call__(self, proof: ArtifactProof) -> str:
        """The whole file. Pure: the same proof gives the same text."""


def conclusion(proof: ArtifactProof) -> str:
    """The answer in one sentence."""
    said = _CONCLUSIONS[proof.answer]
    if proof.answer is Answer.PROVED and proof.cast:
        return said.replace("vetted weights", f"vetted weights converted to {proof.dtype}")
    return said


def compared(proof: ArtifactProof) -> str:
    """What was compared, in one line."""
    double = ", double quantization" if proof.nested else ""
    dtype = f", {proof.dtype}" if proof.dtype else ""
    tensors = f"{proof.codes} codes in {proof.quantized} tensors, {proof.unquantized} tensors that are not quantized"
    return f"{proof.scheme.name}{double}{dtype}: {tensors}; by bitsandbytes on {visible(proof.device)}"


def hints(proof: ArtifactProof) -> tuple[str, ...]:
    """What each kind of difference that occurs means, with how many there are, in the order of `Kind`."""
    found = Counter(difference.kind for difference in proof.differences)
    return tuple(f"{kind.value} ({found[kind]}): {HINTS[kind]}" for kind in Kind if kind in found)


def differences_table(differences: Sequence[Difference]) -> Table:
    """The first differences; the caption says how many more there are."""
    more = len(differences) - _MOST
    table = Table(title="Differences", caption=f"and {more} more" if more > 0 else None)
    for head in ("tensor or file", "what", "what was seen", "first at"):
        table.add_column(head, overflow="fold")
    for difference in differences[:_MOST]:
        table.add_row(
            Text(visible(difference.where, 120)),
            Text(difference.kind.value),
            Text(visible(difference.message, _SENTENCE)),
            Text(_index(difference) or "-"),
        )
    return table


def _index(difference: Difference) -> str:
    return ", ".join(map(str, difference.first))


def render_json(proof: ArtifactProof) -> str:
    """The proof as indented ASCII JSON with sorted keys."""
    plain = to_plain(ProofDocument, ProofDocument(SCHEMA, proof.answer, proof))
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def render_markdown(proof: ArtifactProof) -> str:
    """The proof as Markdown (GitHub's dialect)."""
    facts = (
        f"- vetted: {code_span(proof.vetted)}, {code_span(proof.vetted_digest)}",
        f"- artefact: {code_span(proof.artifact)}, {code_span(proof.artifact_digest)}",
        f"- compared: {compared(proof)}",
        f"- libraries: {', '.join(f'{name} {version}' for name, version in proof.libraries)}",
        *(f"- note: {code_span(note, _SENTENCE)}" for note in proof.notes),
    )
    parts = [f"# {conclusion(proof)[:1].upper()}{conclusion(proof)[1:]}", "\n".join(facts)]
    if proof.differences:
        shown = proof.differences[:_MOST_OF_LIST]
        more = len(proof.differences) - len(shown)
        rest = [f"- and {more} more: the JSON report holds them"] if more else []
        parts += ["## Differences", "\n".join([*map(_bullet, shown), *rest])]
        parts += ["## What they mean", "\n".join(f"- {hint}" for hint in hints(proof))]
    return "\n\n".join(parts) + "\n"


def _bullet(difference: Difference) -> str:
    at = f"; first at {_index(difference)}" if difference.first else ""
    message = code_span(difference.message, _SENTENCE)
    return f"- **{difference.kind.value}** {code_span(difference.where)}: {message}{at}"


def _rule(kind: Kind) -> str:
    return f"artifact.{kind.name.lower()}"


_RULES: Final = {
    _rule(kind): Rule(
        f"A quantized model is not the vetted one: {kind.value}",
        f"The quantized checkpoint was compared with the vetted weights, tensor by tensor. What differs: {hint}",
        "Quantize the vetted weights again with bitsandbytes, and deploy that.",
        7.0 if kind in {Kind.CAST, Kind.EDGE} else 9.0,
    )
    for kind, hint in HINTS.items()
}


def remarks(proof: ArtifactProof) -> tuple[Remark, ...]:
    """An error for each difference; nothing where it is proved."""
    return tuple(_remark(proof, difference) for difference in proof.differences)


def _remark(proof: ArtifactProof, difference: Difference) -> Remark:
    where, message = visible(difference.where, 120), visible(difference.message, _SENTENCE)
    said = f"{visible(proof.artifact)}: {where}: {message}"
    return Remark(_rule(difference.kind), Level.ERROR, said, subject=difference.where)


def _sarif(proof: ArtifactProof) -> str:
    return render_sarif(remarks(proof), about=proof.artifact, rules=_RULES)


def _annotations(proof: ArtifactProof) -> str:
    return render_annotations(remarks(proof), rest="the JSON report")


FORMATS: Final[Mapping[str, Renderer]] = MappingProxyType(
    {"annotations": _annotations, "json": render_json, "md": render_markdown, "sarif": _sarif}
)


def write_outputs(proof: ArtifactProof, outputs: Iterable[tuple[str, Path]]) -> None:
    """Write the proof once for each (format, file).

    Raises:
        EvidenceError: a file cannot be written; it is then as it was before.
    """
    for name, file in outputs:
        write_atomically(file, FORMATS[name](proof).encode("utf-8"))
