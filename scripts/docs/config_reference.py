"""The reference of configuration keys, from the comments of the YAML files in vgr_rl/config."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.docs.tables import code, table

CONFIG = Path(__file__).resolve().parents[2] / "vgr_rl" / "config"
PARTS: dict[str, tuple[str, ...]] = {
    "`python -m vgr_rl.main`": ("main.yaml", "verl_base.yaml"),
    "Models: `model=NAME`": ("model/*.yaml",),
    "Data: `data=NAME`": ("data/*.yaml",),
    "Rewards: `reward=NAME`": ("reward/*.yaml",),
    "Judges: `judge=NAME`": ("judge/*.yaml",),
    "Hardware: `hardware=NAME`": ("hardware/*.yaml",),
    "`python -m vgr_rl.sft`": ("sft/sft.yaml", "sft/verl_base.yaml", "sft/hardware/*.yaml"),
    "`python -m vgr_rl.evaluate`": ("evaluation/evaluate.yaml",),
}
_PACKAGED = {"model", "data", "reward", "judge"}  # groups whose files hold what is under the group's name
_SAME_KEYS = {"model"}  # groups whose choices differ in values alone: the keys of the first are explained
_KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z_0-9]+):(?P<rest>.*)$")
_HEAD = """# Configuration keys

Every key is set on the command line as `key=value`, or in a recipe's YAML. Groups are chosen with `group=NAME`; a
recipe chooses some. `--cfg job` prints the whole configuration of a command, and verl's own keys can all be set.
Below stand the keys of this project with their defaults, then what its files set of verl's.
"""


def page() -> str:
    """Return the page."""
    pieces = [_HEAD]
    for title, patterns in PARTS.items():
        pieces.append(f"## {title}\n")
        files = [path for pattern in patterns for path in sorted(CONFIG.glob(pattern))]
        same = Path(patterns[0]).parent.name in _SAME_KEYS
        pieces += [_file(path, keys=not same or number == 0) for number, path in enumerate(files)]
    return "\n".join(pieces)


def _file(path: Path, keys: bool) -> str:
    text = path.read_text(encoding="utf-8").partition("\nhydra:")[0]
    content: dict[str, Any] = yaml.safe_load(text) or {}
    content.pop("defaults", None)
    explained = comments(text)
    group = path.parent.name
    prefix = f"{group}." if group in _PACKAGED and "@package _global_" not in text else ""
    pieces = [f"### {path.relative_to(CONFIG)}\n", _heading(text)]
    ours = {key: value for key, value in content.items() if any(path_[0] == key for path_ in explained)}
    rows = [(code(prefix + ".".join(at)), code(value), meaning) for at, value, meaning in _rows(ours, explained)]
    if rows and keys:
        pieces.append(table(("key", "default", "meaning"), rows) + "\n")
    elif rows:
        pieces.append(_yaml(ours))
    if theirs := {key: value for key, value in content.items() if key not in ours}:
        pieces += ["Of other keys it sets:\n" if rows else "It sets:\n", _yaml(theirs)]
    return "\n".join(pieces)


def comments(text: str) -> dict[tuple[str, ...], str]:
    """Return the comment above or behind each key, by the key's path; keys without one are left out."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
            continue
        if match := _KEY.match(line):
            path = [*path[: len(match["indent"]) // 2], match["name"]]
            _, mark, behind = match["rest"].rpartition("  # ")
            if comment or mark:
                found[tuple(path)] = " ".join([*comment, *[behind] * bool(mark)])
        comment = []
    return {at: meaning for at, meaning in found.items() if at != ("defaults",)}


def _rows(
    content: Mapping[str, Any], explained: Mapping[tuple[str, ...], str], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield path, default and meaning of the explained keys; what is inside one without explanation is its default."""
    for name, value in content.items():
        at = (*above, name)
        inside = any(path[: len(at)] == at and path != at for path in explained)
        if at in explained:
            yield at, "" if inside else _shown(value), explained[at]
        if inside:
            yield from _rows(value, explained, at)


def _heading(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()


def _yaml(content: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(content), sort_keys=False, width=100)}```\n"
