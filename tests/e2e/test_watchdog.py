"""The watchdog over real actors: a dead or stopped one ends the run, one that works for long does not."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from vgr_rl.training.stalls import MISSES, Stalled, Stalls, get_watched
from vgr_rl.training.watchdog import EXIT_CODE, Watchdog

pytestmark = pytest.mark.e2e


def test_an_actor_that_dies_is_named_with_its_stage_and_one_that_works_is_left_alone() -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Worker:
        def work(self, seconds: float) -> None:
            time.sleep(seconds)

        def die(self) -> None:
            os._exit(9)

    reasons: list[str] = []
    codes: list[int] = []
    ray.init(num_cpus=1, address="local", log_to_driver=False, include_dashboard=False)
    try:
        actors = {"policy worker 0": Worker.remote(), "reward worker 0": Worker.remote()}
        ray.get([actor.work.remote(0) for actor in actors.values()])
        actors["policy worker 0"].work.remote(60)
        watchdog = Watchdog(600, 5, lambda: actors, reasons.append, codes.append).start()
        watchdog.enter("rollout")
        time.sleep(3)
        assert codes == []
        actors["reward worker 0"].die.remote()
        deadline = time.monotonic() + 30
        while not codes:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert codes == [EXIT_CODE]
        assert reasons[0].startswith("reward worker 0 died in stage rollout: ") and "policy worker" not in reasons[0]
    finally:
        ray.shutdown()


def test_a_stopped_actor_stands_still_until_it_goes_on_and_one_that_holds_its_interpreter_does_not() -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Worker:
        def pid(self) -> int:
            return os.getpid()

        def hold_interpreter(self, seconds: int) -> None:
            ctypes.PyDLL(None).sleep(seconds)

    timeout_s = 1.0
    ray.init(num_cpus=1, address="local", log_to_driver=False, include_dashboard=False)
    try:
        actors = {"agent-loop worker 0": Worker.remote(), "policy worker 0": Worker.remote()}
        pids = {name: ray.get(actor.pid.remote()) for name, actor in actors.items()}
        actors["agent-loop worker 0"].hold_interpreter.remote(30)
        stalls, silent = Stalls(timeout_s), {}
        os.kill(pids["policy worker 0"], signal.SIGSTOP)
        begun_s = time.monotonic()
        while not (silent := stalls.look(actors)):
            assert time.monotonic() - begun_s < 20
            time.sleep(0.05)
        assert time.monotonic() - begun_s >= MISSES * timeout_s
        assert list(silent) == ["policy worker 0"]
        assert "no answer for 3 s, 3 times guards.ping_timeout_s" in silent["policy worker 0"]
        asked = actors["policy worker 0"].pid.remote()
        with pytest.raises(Stalled, match="policy worker 0 stands still: its process at .* is stopped"):
            get_watched(asked, "policy worker 0", actors["policy worker 0"], timeout_s)
        os.kill(pids["policy worker 0"], signal.SIGCONT)
        while stalls.look(actors):
            assert time.monotonic() - begun_s < 40
            time.sleep(0.05)
        assert get_watched(asked, "policy worker 0", actors["policy worker 0"], timeout_s) == pids["policy worker 0"]
    finally:
        ray.shutdown()


def test_nothing_of_a_killed_driver_is_there_a_few_seconds_later() -> None:
    program = (
        "import ray; from vgr_rl.training.ray_agents import agents_end_with_us\n"
        "ray.init(num_cpus=1, address='local', log_to_driver=False, include_dashboard=False)\n"
        "with agents_end_with_us():\n"
        "    print('ready', flush=True)\n"
        "    input()\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "ready\n"
    family = psutil.Process(driver.pid).children(recursive=True)
    try:
        assert any("Agent" in "".join(process.cmdline()) for process in family)
        driver.kill()
        driver.wait()
        _, left = psutil.wait_procs(family, timeout=15)
        assert left == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
