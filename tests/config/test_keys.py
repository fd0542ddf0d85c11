"""Every key of our own configuration is explained above it and read somewhere."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rewards.load import find_reward

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "vgr_rl" / "config"
OURS = {
    "main.yaml": (
        *("run_dir", "dry_run", "seed", "log_every_nth_group", "pictures"),
        *("guards", "supervise", "validation", "segmenter", "masks", "placement", "simulate"),
    ),
    **{str(path.relative_to(CONFIG)): None for path in sorted(CONFIG.glob("model/*.yaml"))},
    **{str(path.relative_to(CONFIG)): None for path in sorted(CONFIG.glob("judge/*.yaml"))},
    **{str(path.relative_to(CONFIG)): ("hardware",) for path in sorted((CONFIG / "hardware").glob("*.yaml"))},
}
LEAF = re.compile(r"^(\s*)([A-Za-z_0-9]+):")


def uncommented(text: str, roots: tuple[str, ...] | None) -> list[str]:
    """Return keys of the first two levels under `roots` with no comment above them (siblings may share one)."""
    missing, root, commented = [], None, False
    for line in text.splitlines():
        found = LEAF.match(line)
        if line.lstrip().startswith("#"):
            commented = True
        elif not found:
            commented = commented and not line.strip()
        else:
            depth = len(found[1]) // 2
            root = found[2] if depth == 0 else root
            if depth <= 1 and (roots is None or root in roots) and not (roots and depth == 0 and line.endswith(":")):
                missing += [] if commented else [found[2]]
            commented = False
    return missing


@pytest.mark.parametrize("file", OURS)
def test_every_key_says_what_it_does(file: str) -> None:
    assert uncommented((CONFIG / file).read_text(), OURS[file]) == []


def test_every_key_is_read_somewhere() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "vgr_rl").rglob("*.py"))
    code += "\n".join(path.read_text() for path in CONFIG.rglob("*.yaml"))
    unread = []
    for file, roots in OURS.items():
        for key, value in yaml.safe_load((CONFIG / file).read_text()).items():
            if roots is not None and key not in roots:
                continue
            names = list(value) if isinstance(value, dict) and key != "env" else [key]
            unread += [f"{file}: {name}" for name in names if not re.search(rf"[.\[\"']{name}\b", code)]
    assert unread == []


@pytest.mark.slow
def test_the_help_shows_our_keys_with_their_comments_and_how_to_see_all_others() -> None:
    command = [sys.executable, "-m", "vgr_rl.main", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    keys = (
        "  min_logprob_correlation: 0.95",
        "  lora_rank: 0",
        "    dual_iou:",
        "seed: 0",
        "# Seeds the data order, the",
    )
    assert all(f"\n{key}" in text for key in keys) and "run_dir: runs/${now:" in text
    assert "--cfg job" in text and len(text.splitlines()) < 300, "more than this project's own keys is shown"


def test_treevgr_shows_every_plain_parameter_of_its_terms_with_its_default() -> None:
    terms = yaml.safe_load((CONFIG / "reward" / "treevgr.yaml").read_text())["terms"]
    for term in terms.values():
        parameters = inspect.signature(find_reward(term["use"])).parameters.values()
        defaults = {parameter.name: parameter.default for parameter in parameters if parameter.default is not None}
        assert term["params"] == {name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()}
