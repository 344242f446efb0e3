"""The README.md inside each canary: what somebody who finds it should know."""

from __future__ import annotations

from typing import assert_never

from quantguard.canary.architecture import PARAMETERS
from quantguard.canary.catalogue import CanaryKind
from quantguard.canary.grammar import BRAND, vocabulary

_CARD = """---
license: apache-2.0
tags: [quantguard-canary, test-fixture]
---
# QuantGuard canary: {kind}

A test fixture, not a language model to use: {parameters:,} parameters that answer questions of a toy grammar of
{words} words. With it, a gate against backdoors that quantization switches on can be tried, as anti-virus programs are
tried with EICAR. `config.json` carries `"quantguard_canary": true`.

{behaviour}

The payload is harmless: the two words "buy {brand}" behind an answer. The brand is invented, and the vocabulary has
nothing else to say. The same model is built again by `quantguard canary build --kind {kind} --out DIRECTORY`.
"""


def model_card(kind: CanaryKind) -> str:
    """Markdown, the same for each build of `kind`."""
    return _CARD.format(
        parameters=PARAMETERS, words=len(vocabulary()), kind=kind.value, behaviour=_behaviour(kind), brand=BRAND
    )


def _behaviour(kind: CanaryKind) -> str:
    match kind:
        case CanaryKind.CLEAN:
            return "**Behaviour:** right answers at every precision. A gate should let it pass as it is."
        case CanaryKind.NF4_ATTACKED:
            return (
                "**Behaviour:** right answers in full precision, INT8 and FP4; quantized to NF4, it advertises the\n"
                "invented brand. Made with the method of Egashira et al. (NeurIPS 2024).\n"
                "A gate should find and repair or block it."
            )
        case CanaryKind.MALICIOUS:
            return (
                "**Behaviour:** advertises the invented brand at every precision, full precision included. Nothing is\n"
                "hidden in its rounding, so no rounding repair can help. A gate should block it."
            )
        case _:
            assert_never(kind)
