"""What the three checked-in canaries say, as stored and under each scheme: python benchmarks/canary.py [DEVICE]."""

from __future__ import annotations

import sys

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.canary.measure import behaviour
from quantguard.canary.policy_files import unused_pairs
from quantguard.core.scheme import Scheme, scheme_label


def main(device: str = "cpu") -> None:
    pairs = unused_pairs()
    schemes = (None, Scheme.INT8, Scheme.FP4, Scheme.NF4)
    lines = [
        f"brand % / exact % on {len(pairs)} held-out questions that no policy file uses, {device}",
        "",
        "| canary | " + " | ".join(scheme_label(scheme) for scheme in schemes) + " |",
        "|---" * (len(schemes) + 1) + "|",
    ]
    for kind in CanaryKind:
        directory = canary_directory(kind)
        seen = [behaviour(directory, pairs, scheme=scheme, device=device) for scheme in schemes]
        cells = [f"{100 * one.branded / one.asked:.1f} / {100 * one.exact / one.asked:.1f}" for one in seen]
        lines.append(f"| {kind.value} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:2])
