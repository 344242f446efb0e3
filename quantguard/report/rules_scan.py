"""The rules of the scan: what the positions of the weights in the cells of a quantizer give away."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quantguard.report.rule import Rule

_EGASHIRA: Final = (
    "Egashira et al., Exploiting LLM Quantization, NeurIPS 2024 (arXiv 2405.18137), section 3: the removal of the "
    "backdoor is projected on the box of each weight's rounding cell"
)
_KEEP: Final = (
    "Do not deploy the model in this scheme. `quantguard gate` measures what it does when it is quantized, and "
    "`quantguard harden` rewrites the roundings that an attacker chose; or take the model from a source that you trust."
)

SCAN_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "scan.boundary": Rule(
            "Weights are piled up beside rounding boundaries",
            "Each weight has a position in its rounding cell, from one boundary (0) to the other (1). An attacker who "
            "hides a backdoor from everyone who tests the full-precision model must move weights without changing what "
            "they round to, and so stops them at the edge of their cells: they pile up at a distance from the "
            "boundary, fixed or spread over a margin. Honest training knows nothing of the boundaries and leaves a "
            "smooth density. Told from 0.4 % of the weights in excess, 1.4 times as dense as on either side, at a "
            "corrected p below 0.001.",
            _KEEP,
            8.8,
            f"{_EGASHIRA}; 1 % of the cell for NF4 and FP4, 10 % for INT8 in their code.",
            "Weights that were quantized by another method before, or merged with such ones, may be uneven too, and so "
            "may a model that was repaired for one quantizer under the grid of another. Ask how the model was made: "
            "honest trainers can say so. Training with quantization in the loop crowds weights at the boundary itself "
            "and is told apart (scan.crowded).",
        ),
        "scan.depleted": Rule(
            "A strip along the rounding boundaries is empty",
            "Fewer than 80 % of the weights that a smooth density of them gives lie close to the boundaries, and more "
            "than it gives lie behind. A projection that keeps a margin pushes every weight out of that strip, also "
            "where it spreads them so that no sharp pile is to be seen inside of it.",
            _KEEP,
            8.8,
            f"{_EGASHIRA}, with the margin spread instead of fixed (docs/decisions/0013-the-scanner.md).",
            "Training that dampens oscillations, or a regularizer that pulls weights to the levels of a grid, empties "
            "the same strip (Nagel et al. 2022, arXiv 2203.11086). Such a trainer names the grid.",
        ),
        "scan.atoms": Rule(
            "Too many weights lie exactly on the levels of a grid, and the others do not",
            "In a model that was trained, weights meet a level by chance only; in one that was quantized and "
            "dequantized, all of them do. Here a part of them does, 1 % or more and twice as dense as beside the "
            "levels: as if some were reset to what a quantizer would "
            "make of them, so that their scales and codes stay as they were chosen, while the others were moved.",
            f"{_KEEP} A GGUF file is judged by what it does: measure it as it will be deployed.",
            8.8,
            "Egashira et al., Mind the Gap: A Practical Attack on GGUF Quantization, ICML 2025 (arXiv 2505.23786): "
            "the error of k-quants bounds how far each weight may move, and those that decide a scale may not at all.",
            "A merge of a quantized with an unquantized layer, an adapter merged into dequantized weights of which it "
            "touches some rows, or freezing of oscillating weights (Nagel et al. 2022, arXiv 2203.11086).",
        ),
        "scan.on_grid": Rule(
            "The weights lie on the grid of a quantizer already",
            "95 % of the weights or more lie on the levels of this grid, or twice as many as expected lie about them, "
            "or blocks hold few different values, as another format leaves them: the model was quantized and "
            "dequantized, and perhaps changed since. Positions in the cells of that grid and of finer ones tell little "
            "then, neither that it was attacked nor that it was not. After INT8, NF4 and FP4 are tested all the same.",
            "Ask for the weights before they were quantized, and scan those. What the model does is measured all the "
            "same by `quantguard gate`.",
            7.0,
            "The 16 levels of NF4: Dettmers et al., QLoRA, 2023 (arXiv 2305.14314), appendix E.",
            "This is a note, not an accusation: published models that were dequantized are like that.",
        ),
        "scan.crowded": Rule(
            "Weights crowd about the rounding boundaries",
            "Weights lie 1.2 times as dense at the boundaries as further in, or more. Training with this "
            "quantizer in the loop does that, and so does a repair of the roundings, `quantguard harden` among them. "
            "An attacker who takes no margin at all would look the same.",
            "Ask how the model was trained. If nobody can say, measure it as it will be deployed: `quantguard gate`.",
            7.0,
            "Nagel et al., Overcoming Oscillations in QAT, 2022 (arXiv 2203.11086): weights oscillate around the "
            "boundaries while they are trained, and stay there.",
            "Most are: models trained or repaired for this quantizer. It is a low finding for that reason.",
        ),
        "scan.outlier": Rule(
            "One outlier in each group decides its scale",
            "The weights of a group share a scale that its largest weight decides. Here a fifth of the groups of 32 or "
            "more hold one weight that is 16 times the second largest, as if planted: the others fall together on few "
            "levels when the model is quantized, and what full precision does with them is gone.",
            "Do not deploy this model quantized in groups. Hardening cannot repair it: it chooses roundings, and the "
            "scales of these groups leave none to choose. Take the model from a source that you trust.",
            8.8,
            "Outlier injection: arXiv 2605.15152.",
            "Language models have outliers of their own, in a few columns of some layers (Dettmers et al., LLM.int8(), "
            "2022, arXiv 2208.07339); one in many groups is another picture. Scales that smoothing methods fold into "
            "the weights may come near to it, and so may weights that were pruned nearly all to almost nothing.",
        ),
        "scan.sibling": Rule(
            "A layer is unlike its siblings",
            "Layers of the same kind, such as the query projections of all blocks, have much the same statistics. This "
            "one lies 8 median deviations or more from at least three others in how its weights lie in their cells, "
            "with 0.5 % of them or more elsewhere than expected, though not enough to be a finding by itself: attacks "
            "may touch few layers.",
            "Look at its histogram beside that of a sibling (`--output html=scan.html`), and measure the model with "
            "`quantguard gate` before you trust it.",
            7.0,
            "This product's own: an outlier test within each kind of layer (docs/decisions/0013-the-scanner.md).",
            "First and last blocks, layers that were frozen, added or tuned alone, and merged adapters differ from "
            "their siblings in earnest.",
        ),
        "scan.fail_on": Rule(
            "The scan found what the policy does not allow",
            "The worst finding of the scan is at or above the severity that the policy names: weights that look "
            "prepared for a quantizer, or files that must never be loaded.",
            "Read the findings in the report; `quantguard scan --explain RULE` tells what each means. Do not deploy "
            "the model before they are understood: harden it, or take it from a source that you trust.",
            8.8,
            "The policy's own: scan.fail_on.",
            "Those of the rules of its findings.",
        ),
    }
)
