"""The pure part stays pure: other trainers borrow it, and a reward's test starts at once."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "verl", "vllm", "transformers", "pyarrow", "datasets", "numpy", "scipy", "PIL", "hydra")
GRADE = """
from rewards import TREEVGR
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, parse_trace
size = Size(64, 64)
sample = Sample("1", "test", "?", "B", "choice", ("x", "y"), (Target((0.0, 0.0, 9.0, 9.0)),), size)
trace = parse_trace("<box>[0,0,9,9]</box></think><answer>B</answer>", ImageGeometry(size, size), "model_px")
assert TREEVGR.score(trace, sample).value == 3.0
"""


@pytest.mark.parametrize("code", ["import vgr_rl", "import vgr_rl.grounding", "import rewards", GRADE])
def test_nothing_heavy_is_imported(code: str) -> None:
    check = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
