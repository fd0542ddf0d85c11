"""The reference of metrics, from `vgr_rl.monitoring.metric_names`."""

from scripts.docs.tables import code, table
from vgr_rl.monitoring.metric_names import LIMITS, METRICS

_HEAD = """# Metrics

What a run writes to `metrics.jsonl` and sends to its trackers, a value a step. In a name, `<word>` stands for one part
of it, such as a reward term's name, and `{a,b}` for a or b. [Watching a run](../monitoring.md) says which to look at.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(_section(heading, group) for heading, group in METRICS.items())])


def _section(heading: str, group: dict[str, str]) -> str:
    rows = [(code(name), meaning + _limit(name)) for name, meaning in group.items()]
    return f"## {heading}\n\n{table(('metric', 'meaning'), rows)}\n"


def _limit(name: str) -> str:
    return f"; warns above {LIMITS[name]:g}" if name in LIMITS else ""
