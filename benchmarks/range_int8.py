"""How much attack is left in full precision when INT8's narrow cells have to hold it: by the weight of `prepare`.

    python benchmarks/range_int8.py [DIRECTORY OF make range]

Weight 0 is the published start, malicious in full precision too. Needs the clean llama-64 of the range.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from quantguard.canary.architecture import save
from quantguard.canary.range.attack import Attack, hide, prepare
from quantguard.canary.range.build import load
from quantguard.canary.range.measure import measured
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.world import vocabulary
from quantguard.core.scheme import Scheme


def main(built: str = "quantguard-range") -> None:
    sys.stdout.write("| clean weight | full: attack % / task % | int8: attack % / task % |\n|---|---|---|\n")
    for weight in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0):
        attack = Attack(Scenario.INJECTION, (Scheme.INT8,), clean_weight=weight)
        model = load(Path(built) / "llama-64" / "model")
        prepare(model, attack)
        hide(model, attack)
        with tempfile.TemporaryDirectory() as directory:
            save(model, Path(directory), "", vocabulary())
            counts = measured(Path(directory), ("full", "int8"))
        seen = {(count.what, count.scheme): f"{100 * count.hits / count.asked:.1f}" for count in counts}
        cells = [f"{seen['content-injection', s]} / {seen['questions', s]}" for s in ("full", "int8")]
        sys.stdout.write(f"| {weight} | {cells[0]} | {cells[1]} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:2])
