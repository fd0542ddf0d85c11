import threading
import time

from vgr_rl.training.watchdog import EXIT_CODE, Watchdog


def watch(stage_timeout_s: float) -> tuple[Watchdog, list[str], list[int], threading.Event]:
    reasons: list[str] = []
    codes: list[int] = []
    ended = threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    return Watchdog(stage_timeout_s, 0.1, dict, reasons.append, end).start(), reasons, codes, ended


def test_an_overdue_stage_is_reported_with_its_knob_and_ends_the_process() -> None:
    watchdog, reasons, codes, ended = watch(0.2)
    watchdog.enter("weight sync")
    assert ended.wait(5)
    assert codes == [EXIT_CODE]
    assert "stage weight sync" in reasons[0] and "guards.stage_timeout_s=0.2" in reasons[0]


def test_stages_that_move_on_are_left_alone() -> None:
    watchdog, reasons, _, ended = watch(0.5)
    for _ in range(10):
        watchdog.enter("rollout")
        time.sleep(0.1)
    watchdog.stop()
    assert not ended.is_set() and reasons == []


def test_a_watchdog_that_fails_ends_the_run_instead_of_leaving_it_alone() -> None:
    reasons: list[str] = []
    ended = threading.Event()

    def actors() -> dict[str, object]:
        raise KeyError("no such actor")

    Watchdog(0.2, 0.1, actors, reasons.append, lambda code: ended.set()).start()
    assert ended.wait(5)
    assert reasons == ["the watchdog failed in stage start: KeyError: 'no such actor'"]
