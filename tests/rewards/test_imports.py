"""The pure part stays pure: other trainers borrow it, and a reward's test starts at once."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ARRAYS = ("numpy", "scipy", "pycocotools")
HEAVY = ("torch", "ray", "verl", "vllm", "transformers", "pyarrow", "datasets", "trl", "PIL", "hydra", "omegaconf")
GRADE = """
from rewards import TREEVGR
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, parse_trace
size = Size(64, 64)
sample = Sample("1", "test", "?", "B", "choice", ("x", "y"), (Target((0.0, 0.0, 9.0, 9.0)),), size)
trace = parse_trace("<box>[0,0,9,9]</box></think><answer>B</answer>", ImageGeometry(size, size), "model_px")
assert TREEVGR.score(trace, sample).value == 3.0
"""
ALL_TERMS = """
from rewards.load import BUILT_IN, load_reward
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, parse_trace
size = Size(4, 4)
mask = {"size": [4, 4], "counts": "441100"}
sample = Sample("1", "test", "?", "B", "choice", ("x", "y"), (Target((0.0, 0.0, 2.0, 2.0), "", "answer", mask),), size)
response = "a [SEG]<box>[0,0,2,2]</box><box>[0,0,3,3]</box></think><answer>B [SEG]</answer>"
trace = parse_trace(response, ImageGeometry(size, size), "model_px", masks=[mask, mask])
for name in BUILT_IN:
    print(name, load_reward(name, {})(trace, sample).status)
"""
ADAPTERS = "import rewards.adapters.trl, rewards.adapters.easyr1, rewards.adapters.ms_swift"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def imported(code: str, names: tuple[str, ...]) -> list[str]:
    result = run(f"{code}\nimport sys\nprint('\\n', *[name for name in {names!r} if name in sys.modules])")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("code", ["import vgr_rl", "import vgr_rl.grounding", "import rewards", ADAPTERS, GRADE])
def test_nothing_heavy_is_imported(code: str) -> None:
    assert imported(code, HEAVY + ARRAYS) == []


def test_no_reward_needs_more_than_arrays() -> None:
    assert imported(ALL_TERMS, HEAVY) == []
    assert {line.split()[1] for line in run(ALL_TERMS).stdout.splitlines()} == {"ok"}


def test_the_command_needs_nothing_but_the_rewards_extra(tmp_path: Path) -> None:
    row = {"id": 1, "response": "<answer>B</answer>", "answer": "B", "answer_kind": "choice", "image_size": [9, 9]}
    (tmp_path / "in.jsonl").write_text((json.dumps(row | {"targets": []}) + "\n") * 40)
    score = f"from rewards.__main__ import main\nassert main(['score', {str(tmp_path / 'in.jsonl')!r}, '--rewards'"
    assert imported(f"{score}, 'treevgr']) == 0", HEAVY) == []
    assert imported("from rewards.__main__ import main\nassert main(['list']) == 0", HEAVY) == []


def test_of_this_project_the_rewards_use_grounding_alone() -> None:
    uses = {
        match[1]
        for path in (REPOSITORY / "rewards").rglob("*.py")
        for match in re.finditer(r"^\s*(?:from|import) (vgr_rl\S*)", path.read_text(), re.MULTILINE)
    }
    assert uses and all(name.startswith("vgr_rl.grounding") for name in uses), uses


def test_whatever_the_rewards_import_is_in_the_rewards_extra() -> None:
    """Runs with every other installed distribution hidden, as if only the extra had been installed."""
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted, allowed = list(pyproject["project"]["optional-dependencies"]["rewards"]), set[str]()
    while wanted:  # and what they need themselves
        name = re.match(r"[\w.-]+", wanted.pop())[0].lower()  # type: ignore[index]
        if name not in allowed:
            allowed.add(name)
            wanted += [need for need in metadata.requires(name) or [] if "extra ==" not in need]
    modules = {
        module for module, names in metadata.packages_distributions().items() if allowed & {n.lower() for n in names}
    }
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {modules | {"rewards", "vgr_rl"}!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the rewards extra", name=name)
sys.meta_path.insert(0, Hide())
"""
    assert {"numpy", "yaml", "rich", "scipy", "pycocotools"} <= modules
    assert run(hide + "import torch").returncode != 0
    result = run(hide + ALL_TERMS + ADAPTERS + "\nfrom rewards.__main__ import main\nassert main(['list']) == 0")
    assert result.returncode == 0, result.stderr
