"""Every message that docs/troubleshooting.md explains is one that the code says."""

import ast
import re
from pathlib import Path

import pytest

from scripts.docs.pages import ROOT

QUOTES = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def spoken() -> list[str]:
    """Return the texts in the code, with `…` for what is filled in."""
    texts = []
    for package in ("vgr_rl", "rewards"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            unspoken = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
            texts += [_text(node) for node in ast.walk(tree) if _is_text(node) and id(node) not in unspoken]
    for path in sorted((ROOT / "scripts").glob("*.sh")):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        texts.append(re.sub(r"\$\{[^}]*\}|\$\w+", "…", code))
    return texts


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return spoken()


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_said_somewhere(quote: str, texts: list[str]) -> None:
    pieces = [piece for piece in quote.split("…")]
    assert sum(map(len, pieces)) >= 14, "too short to be found again"
    pattern = re.compile("[^\n]*?".join(map(re.escape, pieces)))
    found = {text for text in texts if pattern.search(text)}
    assert 0 < len(found) < 3, "nobody says it, or so many that the page cannot mean them all"


def test_the_page_explains_each_message_once() -> None:
    assert len(QUOTES) > 30 and len(set(QUOTES)) == len(QUOTES)


def test_a_message_that_nobody_says_is_found_out(texts: list[str]) -> None:
    assert not any("data.max_prompt_length is too small, sorry" in text for text in texts)
    assert Path(ROOT / "vgr_rl").is_dir() and len(texts) > 1000
