"""The reference of reward terms, from their docstrings and signatures."""

from rewards.describe import Description, describe
from rewards.load import BUILT_IN
from scripts.docs.tables import code, table

_HEAD = """# Reward terms

Names for `use` in `reward.terms`, as `python -m rewards list` prints them. [Rewards](../rewards.md) says how they are
combined, and [the tutorial](../tutorials/reward.md) how to write one.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(_section(describe(name)) for name in sorted(BUILT_IN))])


def _section(term: Description) -> str:
    place, _, name = BUILT_IN[term.name].partition(":")
    pieces = [f"## {term.name}", f"`{name}` of `{place}`. {term.text}"]
    if term.parameters:
        rows = [(code(p.name), code(p.default or "") or "required", p.meaning) for p in term.parameters]
        pieces.append(table(("parameter", "default", "meaning"), rows))
    if term.example:
        pieces.append(f"```pycon\n{term.example}\n```")
    return "\n\n".join(pieces) + "\n"
