import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("module", ["vgr_rl.training.agent_loop", "vgr_rl.training.task_runner"])
def test_processes_that_do_not_sample_never_import_vllm(module):
    code = f"import sys, {module}; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode == 0
