"""Write the records of an earlier schema anew in today's: `python -m reproductions.migrate [PATH ...]`.

What was measured stays as it is, digit by digit; `Record.from_dict` says what each schema changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reproductions.specification import TRACKED, load
from sharp_maml import RecordError, read_records, write_record


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    tracked = [TRACKED / tier for tier in load()[1] if (TRACKED / tier).is_dir()]
    parser = argparse.ArgumentParser(prog="python -m reproductions.migrate", description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, default=tracked, help="records or folders; default: the tracked")
    options = parser.parse_args(arguments)
    try:
        files = [
            file for path in options.paths for file in (sorted(path.glob("**/*.json")) if path.is_dir() else [path])
        ]
        for file, record in zip(files, read_records(files), strict=True):  # all are read before one is written
            if json.loads(file.read_text(encoding="utf-8"))["schema"] < record.schema:
                write_record(file, record)
                print(f"{file}: schema {record.schema}")
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
