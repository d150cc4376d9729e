"""The algorithm on problems that fit on a page, as a record: `python -m reproductions.method [--output FILE]`.

Read next: `plane.py`, `sketch.py`, `lower_level.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproductions.method.lower_level import lower_level
from reproductions.method.plane import trajectories
from reproductions.method.sketch import sketch
from reproductions.study import RECORDS, rounded
from sharp_maml import provenance, write_atomically

RECORD = RECORDS / "method.json"


def measure() -> dict[str, Any]:
    """The whole record."""
    return {
        "schema": 1,
        **provenance(),
        "trajectories": trajectories(),
        "sketch": sketch(),
        "lower_level": lower_level(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.method", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=RECORD, help=f"the record; default: {RECORD.name}, tracked")
    options = parser.parse_args(arguments)
    record = measure()
    try:
        write_atomically(options.output, (json.dumps(rounded(record, 6)) + "\n").encode())
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for end in record["trajectories"]["ends"]:
        print(
            f"{end['variant']}, radius {end['radius']}: {end['flat']} of {record['trajectories']['starts']} starts end "
            f"in the flat minimum, {end['sharp']} in the sharp one"
        )
    for order in record["lower_level"]["orders"]:
        print(
            f"alpha_low = {order['alpha']}, theta {order['place']}: the distance to the exact lower level is of order "
            f"{order['sharp']:.2f} in beta_low by Sharp-MAML's step, {order['plain']:.2f} by a plain one"
        )
    print(f"record: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
