"""How often a claim comes out wrong: every statistical claim and its controls over fresh base seeds.

`python -m theory.check.alarms` writes one JSON record, after every seed, and goes on where it was cut off. An alarm is
a decision the wrong way; "undecided" is one that was not taken. More than one of either in twenty seeds is a defect.
But no alarm in twenty seeds bounds the rate of alarms by 0.14 only, at 95 per cent: it shows that the settings were not
made for one seed. Error rates are bounded by `calibration.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sharp_maml import RecordError, Result, clopper_pearson, provenance, read_result, write_result
from theory.check.budgets import BUDGETS
from theory.check.claim import registry
from theory.check.verdicts import judge

FIRST_SEED = 1000
"""Settings were chosen on seeds 0 to 9."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 1 if more than one verdict was not as expected."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.check.alarms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="base seeds (default 20)")
    parser.add_argument("--budget", choices=BUDGETS, default="test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--output", type=Path, default=Path("results/theory/alarms.json"), help="the record")
    options = parser.parse_args(arguments)

    if options.jobs < 1 or options.seeds < 1:
        print(f"error: jobs and seeds must be >= 1, got {options.jobs} and {options.seeds}", file=sys.stderr)
        return 2
    claims = {name: claim for name, claim in registry().items() if claim.evidence == "statistical"}
    origin = provenance(module="theory.check.alarms")
    found: dict[str, Any] = {"budget": options.budget, "claims": list(claims), "seeds": {}}
    if options.output.exists():
        try:
            before = read_result(options.output, "alarms")
        except RecordError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        of_the_same = all(before.payload[key] == found[key] for key in ("budget", "claims"))
        if not of_the_same or before.provenance["commit"] != origin["commit"] or origin["dirty"]:
            print(
                f"error: {options.output} is of another commit, budget or set of claims, or the code is uncommitted: "
                "it cannot be gone on with; remove it or choose another --output",
                file=sys.stderr,
            )
            return 2
        found, origin = dict(before.payload), dict(before.provenance)
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        if str(seed) in found["seeds"]:
            continue
        verdicts = judge(list(claims), BUDGETS[options.budget], seed, jobs=options.jobs)
        found["seeds"][str(seed)] = {
            verdict.claim.id: {
                "alarm": verdict.alarm,
                "passed": verdict.passed,
                "outcomes": {name or "claim": outcome for name, outcome in verdict.outcomes.items()},
            }
            for verdict in verdicts
        }
        write_result(options.output, Result("alarms", origin, found))
        wrong = [verdict.claim.id for verdict in verdicts if not verdict.passed]
        print(f"seed {seed}: {', '.join(wrong) or 'all as expected'}", flush=True)

    table = Table("claim", "as expected", "undecided", "alarms")
    not_as_expected = 0
    for name in claims:
        of_claim = [of_seed[name] for of_seed in found["seeds"].values()]
        wrong = sum(one["alarm"] for one in of_claim)
        passed = sum(one["passed"] for one in of_claim)
        not_as_expected += len(of_claim) - passed
        table.add_row(name, str(passed), str(len(of_claim) - passed - wrong), str(wrong))
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    highest = clopper_pearson(0, len(found["seeds"]), confidence=0.9).high
    console.print(f"Without an alarm, {len(found['seeds'])} seeds bound its rate by {highest:.2f}, at 95 per cent.")
    return int(not_as_expected > 1)


if __name__ == "__main__":
    sys.exit(main())
