"""The pages of the documentation, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```([\w{}]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\S+\.(?:py|yaml))\n")


class Block(NamedTuple):
    """A block of code of a page.

    Attributes:
        page: the page's path from the repository's root.
        language: what stands behind the opening fence.
        text: the lines between the fences.
    """

    page: str
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that a comment in the first line names."""
        named = _FILE.match(self.text)
        return named[1] if named else None


def pages() -> list[Path]:
    """Return the Markdown files of the site, without those that are made from the code."""
    patterns = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "recipes/*/README.md")
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    name = str(page.relative_to(ROOT))
    return [Block(name, *found.groups()) for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
