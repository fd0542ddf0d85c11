import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("module", ["vgr_rl.training.agent_loop", "vgr_rl.training.task_runner"])
def test_processes_that_do_not_sample_never_import_vllm(module):
    code = f"import sys, {module}; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode == 0


def output_of(code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, timeout=120, check=True, capture_output=True, text=True).stdout.split()[-1]


@pytest.mark.slow
def test_policy_workers_know_vllms_sleep_level_without_importing_vllm():
    adapter = "import sys, verl.workers.rollout.vllm_rollout.vllm_rollout as adapter; "
    answer = "print(f'{adapter.VLLM_SLEEP_LEVEL}/{\"vllm\" in sys.modules}')"
    assert output_of("import vgr_rl.training.engine; " + adapter + answer) == "2/False"
    # fails when verl no longer needs the patch, or has another level
    assert output_of(adapter + answer) == "2/True"


@pytest.mark.slow
def test_verls_checkpoint_engine_imports_vllm_for_a_transport_that_is_not_there():
    code = "import sys, verl.checkpoint_engine; print('vllm' in sys.modules)"
    assert output_of(code) == "False"
    # fails when verl no longer needs the patch
    assert output_of("import os; os.environ['VERL_USE_EXTERNAL_PLUGINS'] = 'none'; " + code) == "True"
