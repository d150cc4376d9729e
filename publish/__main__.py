"""Write everything that is printed from `records/`: `python -m publish [--check] [--from DIR [--only PLACE ...]]`.

With `--from` fresh results are brought into `records/` first. What holds already is left as it is. `--check` changes
nothing, and names what is out of date. Read next: `fresh.py`, `pages.py`, `figures.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from publish.figures import digest_of, drawings, write
from publish.fresh import bring
from publish.pages import pages
from reproductions.study import ROOT
from sharp_maml import write_atomically
from theory.check.verdicts import read


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Command line, see `--help`; root: the checkout. Returns 1 if something is out of date under `--check`."""
    parser = argparse.ArgumentParser(
        prog="python -m publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, name what is out of date")
    parser.add_argument("--from", dest="results", type=Path, metavar="DIR", help="bring fresh results from there first")
    parser.add_argument("--only", nargs="+", default=[], metavar="PLACE", help="such as tables/cpu theory/regime.json")
    parser.add_argument("--networks", action="store_true", help="with tables, bring the best network of each row too")
    options = parser.parse_args(arguments)
    if options.results is None and (options.only or options.networks):
        parser.error("--only and --networks go with --from")
    if options.results is not None and options.check:
        parser.error("--check changes nothing, and --from does: choose one")
    try:
        if options.results is not None:
            print("\n".join(bring(options.results, root / "records", options.only, networks=options.networks)))
        verdicts = read(root / "records/theory")
        texts = {path: text for path, text in pages(root, verdicts).items() if _text(path) != text}
        figures = {path: of for path, of in drawings(root, verdicts).items() if digest_of(path) != of.digest}
        for path in [*texts, *figures]:
            print(f"{path.relative_to(root)}{' is out of date' if options.check else ''}", flush=True)
        if options.check:
            return int(bool(texts or figures))
        for path, text in texts.items():
            write_atomically(path, text.encode())
        for path, drawing in figures.items():
            write(path, drawing)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
