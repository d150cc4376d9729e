"""The README as a package index shows it, where a link into the repository leads nowhere; `make dist` uses it.

With the repository's address in the environment variable URL, links and images are absolute, and the address is the
project's; without it they are their texts.
"""

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)\s]*)\)")


def for_index(text, url):
    """A text in markdown whose links and images are absolute, or their texts where there is no address.

    Args:
        text: The text; its links are relative to the repository, to one of its own headings, or absolute.
        url: The repository's address, with the branches and paths of GitHub; may be empty.
    """

    def link(match):
        mark, words, path = match.groups()
        if path.startswith("#"):
            return match.group()
        if not url:
            return words
        return f"{mark}[{words}]({url.rstrip('/')}/{'raw' if mark else 'blob'}/main/{path})"

    return LINK.sub(link, text)


class ReadmeHook(MetadataHookInterface):
    """Gives the build the README and the address."""

    def update(self, metadata):
        """Fill in what `pyproject.toml` calls dynamic."""
        url = os.environ.get("URL", "")
        text = for_index((Path(self.root) / "README.md").read_text(encoding="utf-8"), url)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = {"Source": url} if url else {}
