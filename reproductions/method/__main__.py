"""The algorithm on problems that fit on a page, as a record: `python -m reproductions.method [--output FILE]`.

Read next: `plane.py`, `sketch.py`, `lower_level.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproductions.method.lower_level import lower_level
from reproductions.method.plane import trajectories
from reproductions.method.sketch import sketch
from reproductions.study import rounded
from sharp_maml import RecordError, Result, provenance, write_result


def measure() -> dict[str, Any]:
    """All that is recorded."""
    return {"trajectories": trajectories(), "sketch": sketch(), "lower_level": lower_level()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.method", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("results/method.json"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    origin = provenance(module="reproductions.method.__main__")  # the code may change meanwhile
    record = measure()
    try:
        write_result(options.output, Result("method", origin, rounded(record, 6)))
    except RecordError as error:
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
