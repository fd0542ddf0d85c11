import subprocess
import sys

import pytest


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_torchvision_resizes_and_its_missing_operators_raise():
    code = """
import torch, torchvision
from torchvision.transforms.v2 import functional
assert functional.resize(torch.rand(3, 32, 32), [16, 8]).shape == (3, 16, 8)
if torch.version.cuda is None and not torchvision.extension._has_ops():
    try:
        torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
    except (RuntimeError, NotImplementedError):
        pass
    else:
        raise SystemExit("nms ran without its operator")
"""
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr


def test_every_interpreter_has_the_hook_and_it_imports_no_torch():
    result = run_python("-c", "import sys; print('_vgr_rl_torchvision' in sys.modules, 'torch' in sys.modules)")
    assert result.stdout.split() == ["True", "False"]
