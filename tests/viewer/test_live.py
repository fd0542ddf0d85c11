"""The server that follows a run: who is let in, and what arrives."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from vgr_rl.grounding import Size, box_rle
from vgr_rl.report import main
from vgr_rl.viewer.follower import Follower
from vgr_rl.viewer.live import TOKEN_VARIABLE, application
from vgr_rl.viewer.pictures import Album

_TOKEN = "a-token"


@pytest.fixture
def run(tmp_path: Path, runs: ModuleType) -> Path:
    """A run of four steps; the samples of the last two."""
    return runs.write_grpo(tmp_path / "run", steps=4)  # type: ignore[no-any-return]


def append_step(run: Path, step: int) -> None:
    """Write one step more, by the rows of the one before."""
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()][-12:]
    with (run / "samples.jsonl").open("a") as file:
        for row in rows:
            file.write(json.dumps({**row, "step": step, "group": f"step{step}-{row['group']}"}) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "data": {"reward/score/mean": 2.5}}) + "\n")


def test_a_follower_tells_what_is_new(run: Path) -> None:
    follower = Follower(run, 1000, Album())
    follower.poll()
    state = follower.since(0)
    assert state["fresh"] and len(state["groups"]) == 6 and "Step 4" in state["text"] and "<svg" in state["curves"]
    seen = follower.version
    follower.poll()
    assert follower.version == seen
    append_step(run, 5)
    follower.poll()
    state = follower.since(seen)
    assert not state["fresh"] and {group["step"] for group in state["groups"]} == {5} and "Step 5" in state["text"]


def test_a_group_that_comes_in_two_pieces_is_one(run: Path) -> None:
    path = run / "samples.jsonl"
    lines = path.read_text()
    path.write_text(lines[: -len(lines.splitlines()[-1]) - 10])
    follower = Follower(run, 1000, Album())
    follower.poll()
    seen = follower.version
    assert len(follower.since(0)["groups"][-1]["rollouts"]) == 2
    with path.open("a") as file:
        file.write(lines[len(path.read_text()) :])
    follower.poll()
    (group,) = follower.since(seen)["groups"]
    assert [rollout["number"] for rollout in group["rollouts"]] == [0, 1, 2, 3]


def test_a_resumed_run_drops_what_it_makes_again(run: Path) -> None:
    from vgr_rl.training.run_log import RunLog

    follower = Follower(run, 1000, Album())
    follower.poll()
    seen = follower.version
    RunLog(run).forget_after(3)
    follower.poll()
    state = follower.since(seen)
    assert state["fresh"] and {group["step"] for group in state["groups"]} == {3} and "Step 3" in state["text"]


def test_lines_of_another_program_are_counted_and_left_out(run: Path) -> None:
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "text": "of another program"}\nnonsense\n')
    follower = Follower(run, 1000, Album())
    follower.poll()
    state = follower.since(0)
    assert len(state["groups"]) == 6 and "2 lines of its files cannot be shown." in state["text"]


def test_a_mask_of_another_size_ends_nothing(run: Path) -> None:
    append_step(run, 5)
    lines = (run / "samples.jsonl").read_text().splitlines()
    bad = {**json.loads(lines[-1]), "pred_masks": [box_rle((0, 0, 2, 2), Size(8, 8))]}
    (run / "samples.jsonl").write_text("\n".join([*lines[:-1], json.dumps(bad)]) + "\n")
    follower = Follower(run, 1000, Album())
    follower.poll()
    state = follower.since(0)
    assert len(state["groups"]) == 8 and "4 lines of its files cannot be shown." in state["text"]
    append_step(run, 6)
    follower.poll()
    assert len(follower.since(0)["groups"]) == 10


def test_only_the_newest_rollouts_are_kept(run: Path) -> None:
    follower = Follower(run, 12, Album())
    follower.poll()
    assert {group["step"] for group in follower.since(0)["groups"]} == {4}


def test_a_long_run_is_read_in_pieces_and_only_what_is_kept_is_described(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vgr_rl.viewer.tail._PIECE", 5000)
    album = Album()
    follower = Follower(run, 12, album)
    polls = 0
    while follower.poll():
        polls += 1
        assert follower.version == 0
    assert polls > 3 and follower.version == 1
    assert {group["step"] for group in follower.since(0)["groups"]} == {4} and len(album) == 3


def test_only_who_knows_the_token_is_let_in(run: Path) -> None:
    async def ask() -> None:
        runner = web.AppRunner(application(run, _TOKEN, 1000, 640))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            for path in ("/", "/events", "/picture/0", "/?token=", "/?token=wrong", "/?token=\u00e9"):
                async with session.get(address + path) as response:
                    assert response.status == 401 and "token" in await response.text()
            async with session.get(f"{address}/?token={_TOKEN}") as response:
                assert response.status == 200 and not response.url.query
                assert "data-live" in await response.text()
                assert response.headers["Cache-Control"] == "no-store"
            await asyncio.sleep(1.2)
            async with session.get(address + "/picture/0") as response:
                assert response.status == 200 and response.content_type == "image/png"
            for number in ("999", "-1", "x", "99999999999999999999"):
                async with session.get(f"{address}/picture/{number}") as response:
                    assert response.status == 404
        await runner.cleanup()

    asyncio.run(ask())


def test_what_cannot_be_followed_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--live", str(tmp_path / "nowhere")]) == 2 and "is not a directory" in caplog.text
    assert main(["--live", str(tmp_path), "--host", "192.0.2.1"]) == 2 and "--host 192.0.2.1" in caplog.text
    (tmp_path / "grpo").mkdir()
    assert main(["--live", str(tmp_path)]) == 2 and f"such as {tmp_path / 'grpo'}" in caplog.text
    with pytest.raises(SystemExit):
        main(["--live", "--compare", str(tmp_path), str(tmp_path)])


@contextmanager
def serving(run: Path, token: str, port: int = 0) -> Iterator[str]:
    """Start the command as a person runs it; yield the address that it prints."""
    command = [sys.executable, "-m", "vgr_rl.report", "--live", str(run), "--port", str(port)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", TOKEN_VARIABLE: token}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
                break
        else:
            pytest.fail(f"the command ended with {process.wait()} and printed no address")
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.fixture
def served(run: Path) -> Iterator[str]:
    """The address of the command for a run, with a token that an address cannot hold as it is."""
    with serving(run, "a+t&o#k%en") as address:
        yield address


@pytest.mark.slow
def test_a_page_of_a_server_that_is_gone_becomes_that_of_the_next(run: Path, runs: ModuleType, chromium: Any) -> None:
    other = runs.write_grpo(run.parent / "other", steps=6)
    page = chromium.new_page()
    with serving(run, _TOKEN) as address:
        page.goto(address)
        page.locator("#count", has_text="6 prompts").wait_for()
        port = int(address.split(":")[2].split("/")[0])
    page.locator("#live.lost", has_text="trying again").wait_for()
    with serving(other, _TOKEN, port):
        page.locator("h1", has_text="other").wait_for()
        page.locator("#live", has_text="Step 6").wait_for()
    with serving(other, "another-token", port):
        page.locator("#live.lost", has_text="open the address").wait_for()
    page.close()


@pytest.mark.slow
def test_a_page_follows_a_run(run: Path, served: str, visit: Callable[..., Any]) -> None:
    page = visit(served)
    page.wait_for_selector("#detail .panel img")
    assert "token" not in page.url
    assert page.locator("#count").inner_text() == "6 prompts, 24 responses"
    page.keyboard.press("j")
    looked_at = page.locator("#detail .meta").inner_text()
    page.get_by_label("Search").fill("step")
    page.get_by_label("Search").fill("")
    append_step(run, 5)
    page.locator("#live", has_text="Step 5").wait_for()
    page.locator("#count", has_text="9 prompts, 36 responses").wait_for()
    assert page.locator("#detail .meta").inner_text() == looked_at  # a reader is not moved away
    assert page.locator("#position").inner_text() == "5 / 9"
    assert page.locator("#curves figure").count() >= 10
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").unlink()
    (run / "samples.jsonl").write_text("".join(lines[:12]))
    page.locator("#count", has_text="3 prompts, 12 responses").wait_for()
    assert page.locator("#detail .panel img").count() == 1
