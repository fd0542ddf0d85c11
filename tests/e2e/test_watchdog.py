"""The watchdog over real actors: a dead one ends the run, one that works for long does not."""

import os
import time

import pytest

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
