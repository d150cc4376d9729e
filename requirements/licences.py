"""What the packages of `dev.lock` say of their licence in their own metadata: `python requirements/licences.py`.

Packages that the lock has for other systems, and so are not installed here, are counted only. Exit code 1 if an
installed one says nothing.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).with_name("dev.lock")


def licence(found):
    """The licence that an installed package states, in one line; empty where it states none.

    Args:
        found: The package's metadata, a mapping that gives all values of a key by `get_all`.

    Returns:
        The SPDX expression; where there is none, the classifiers; where there are none, the first line of the text.
    """
    classifiers = [text for text in found.get_all("Classifier") or () if text.startswith("License ::")]
    named = [text.rpartition(" :: ")[2] for text in classifiers if text != "License :: OSI Approved"]
    text = (found.get("License") or "").strip()
    return found.get("License-Expression") or ", ".join(named) or text.partition("\n")[0]


def main():
    """Print a line per package; returns the exit code."""
    names = sorted(set(re.findall(r"(?m)^([a-z0-9-]+)==", LOCK.read_text(encoding="utf-8"))))
    absent, silent = 0, []
    for name in names:
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            absent += 1
            continue
        stated = licence(found.metadata)
        print(f"{name} {found.version}: {stated or 'says nothing'}")
        if not stated:
            silent.append(name)
    print(f"{len(names) - absent} packages; {absent} more in the lock are not installed here")
    if silent:
        print(f"error: no licence is stated by {', '.join(silent)}", file=sys.stderr)
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
