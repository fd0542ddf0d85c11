"""`judge=pool`: the run serves its judge itself, and starts it again when it dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.judge.small_instruct import save_small_instruct
from vgr_rl.monitoring.metric_names import meaning
from vgr_rl.prepare import main as prepare

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
BATCH, GROUP = 4, 4


def start(run_dir: Path, judge: Path, steps: int, *overrides: str) -> subprocess.Popen[bytes]:
    data = run_dir.parent / "data"
    prepare(
        ["tiny", "--open", "--out", str(data)]
        + ["--train", "16", "--val", "4", "--heldout", "4", "--sft", "4", "--sft-val", "4"]
    )
    command = [
        *(sys.executable, "-m", "vgr_rl.main", f"run_dir={run_dir}", "judge=pool", f"judge.model={judge}"),
        *(f"judge.cache_dir={run_dir.parent}/verdicts", *overrides),
        *(f"data.train_files={data}/train.parquet", f"data.val_files={data}/val.parquet"),
        *(f"data.train_batch_size={BATCH}", f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}"),
        *(f"actor_rollout_ref.rollout.n={GROUP}", "data.max_response_length=64", "guards.min_correlation_tokens=64"),
        *(f"trainer.total_training_steps={steps}", "trainer.save_freq=-1", "trainer.logger=[]"),
    ]
    log = run_dir.parent / "log"
    return subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT, env=os.environ)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finish(run: subprocess.Popen[bytes], run_dir: Path) -> list[dict[str, float]]:
    try:
        assert run.wait(timeout=600) == 0, (run_dir.parent / "log").read_text()[-4000:]
    finally:
        run.kill()
    return [line["data"] for line in lines(run_dir / "metrics.jsonl")]


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may still wait for the machine's first process to notice."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_that_dies_is_started_again_and_the_run_goes_on(tmp_path: Path) -> None:
    run_dir, judge = tmp_path / "run", tmp_path / "judge"
    prepare(["tiny-judge", "--out", str(judge)])
    run = start(run_dir, judge, 8, "judge.verdict=choice", "judge.cache_dir=null", "guards.max_flat_group_rate=2")
    while len(lines(run_dir / "metrics.jsonl")) < 2:
        assert run.poll() is None, (tmp_path / "log").read_text()[-4000:]
        time.sleep(0.1)
    (server,) = (
        process
        for process in psutil.Process(run.pid).children(recursive=True)
        if "vLLMHttpServer" in " ".join(process.cmdline())
    )
    engine = server.children(recursive=True)
    server.send_signal(signal.SIGKILL)
    steps = finish(run, run_dir)
    assert len(steps) == 8 and steps[-1]["judge/restarts"] == 1.0 and steps[0]["judge/restarts"] == 0.0
    assert engine and not any(map(lives, engine))
    assert sum(step["judge/failed"] for step in steps) == 0 < sum(step["judge/retries"] for step in steps)
    said = [event["message"] for event in lines(run_dir / "events.jsonl")]
    assert [message.split("(")[0] for message in said if "judge server" in message] == [
        "judge server 0 is down ",
        next(message for message in said if "is back at http" in message),
    ]
    for row in lines(run_dir / "samples.jsonl"):  # every verdict is the judge's, and it is the reward
        for outcome in row["judge"]:
            assert row["parts"]["accuracy"] == float(outcome["right"])


def test_a_real_instruct_model_gives_verdicts(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    steps = finish(start(run_dir, save_small_instruct(tmp_path / "judge"), 2), run_dir)
    assert sum(step["judge/asked"] for step in steps) > 0 == sum(step["judge/failed"] for step in steps)
    assert all(step["judge/reasked"] == 0 for step in steps)
    assert [name for step in steps for name in step if meaning(name) is None] == []  # documented
    assert list((tmp_path / "verdicts").iterdir())
