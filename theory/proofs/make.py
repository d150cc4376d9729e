"""Makes the proofs that `check.py` verifies: `python -m theory.proofs.make [--output DIR]`.

Bounds of the average squared gradient for T up to 8, and the identities behind the theorem, its expansion and the
stability of a gradient step. A proof that the checker refuses is not written. Read next: `rates.py`, `identities.py`.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction as Q
from pathlib import Path

from sharp_maml import Result, provenance, write_result
from theory.proofs.identities import expansion, stability, theorem
from theory.proofs.rates import rate

HORIZONS = (1, 2, 3, 5, 8)
STEPS = (Q(1), Q(3, 4), Q(1, 2), Q(1, 4))
"""eta L."""
ERRORS = (Q(0), Q(1, 4), Q(1))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.proofs.make", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    origin = provenance(module="theory.proofs.make")
    proofs = [rate(T, eta, b) for eta in STEPS for b in ERRORS for T in HORIZONS if T > 1 or not b]
    proofs += [stability(), theorem(), expansion("fresh"), expansion("shared")]
    path = options.output / "proofs.json"
    write_result(path, Result("proofs", origin, {"proofs": proofs}))
    print(f"{path}: {len(proofs)} proofs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
