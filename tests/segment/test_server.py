import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vgr_rl.grounding import Size
from vgr_rl.segment.prompted import PromptedSam2
from vgr_rl.segment.server import MaskReply, MaskRequest, MaskServer
from vgr_rl.tiny.segmenter import build_sam2

BOX, OTHER, POINT = (4.0, 4.0, 40.0, 40.0), (50.0, 10.0, 90.0, 60.0), (70.0, 30.0)


def picture(seed: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.linear_gradient("L").rotate(30 * seed).resize((96, 64)).convert("RGB").save(stream, "PNG")
    return {"bytes": stream.getvalue()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sam2")
    build_sam2().save_pretrained(folder)
    return str(folder)


def ask(server: MaskServer, *rounds: Sequence[MaskRequest]) -> tuple[list[MaskReply], dict[str, int]]:
    """Ask the requests of a round at once, one round after the other; the last one's replies."""

    async def ask_all() -> Any:
        for requests in rounds:
            replies = await asyncio.gather(*map(server.masks, requests))
        return replies, await server.counts()

    return asyncio.run(ask_all())  # type: ignore[no-any-return]


def test_each_prompt_has_its_mask_whatever_it_is_asked_with(folder: str) -> None:
    sam2 = PromptedSam2(folder)
    (embedding,) = sam2.embed([Image.open(io.BytesIO(picture(1)["bytes"]))])
    size = Size(96, 64)
    together = sam2.masks(embedding, size, [BOX, POINT, OTHER])
    assert [mask["size"] for mask in together] == [[64, 96]] * 3 and len({mask["counts"] for mask in together}) == 3
    assert [sam2.masks(embedding, size, [prompt])[0] for prompt in (BOX, POINT, OTHER)] == together
    assert sam2.masks(embedding, size, []) == []


def test_an_image_is_embedded_once_a_step_for_all_who_ask(folder: str) -> None:
    server = MaskServer(folder, batch=8)
    group = [MaskRequest(1, picture(image), (BOX, OTHER)) for image in (1, 2) for _ in range(4)]
    replies, counts = ask(server, group)
    assert all(reply.masks is not None and len(reply.masks) == 2 for reply in replies)
    assert replies[0] == replies[3] != replies[4]
    assert counts == {"requests": 8, "refused": 0, "batches": counts["batches"], "embedded": 2}
    assert counts["batches"] <= 2
    rounds = [[MaskRequest(step, picture(1), (prompt,))] for step, prompt in ((1, BOX), (1, POINT), (2, POINT))]
    assert [ask(MaskServer(folder), *rounds[:count])[1]["embedded"] for count in (1, 2, 3)] == [1, 1, 2]


def test_few_embeddings_are_kept(folder: str) -> None:
    server = MaskServer(folder, images=2)
    _, counts = ask(server, [MaskRequest(1, picture(image), (BOX,)) for image in (1, 2, 3)])
    assert counts["embedded"] == 3 and len(server._known) == 2


def test_what_does_not_fit_the_queue_is_refused_at_once(folder: str) -> None:
    server = MaskServer(folder, queue=2, batch=1)
    replies, counts = ask(server, [MaskRequest(1, picture(1), (BOX,)) for _ in range(6)])
    refused = [reply for reply in replies if reply.masks is None]
    assert counts["refused"] == len(refused) == 4 and "raise segmenter.queue" in str(refused[0].reason)


def test_a_broken_picture_fails_alone(folder: str, tmp_path: Path) -> None:
    server = MaskServer(folder)
    asked = [{"bytes": b"no picture"}, picture(1), {"path": str(tmp_path / "absent.jpg")}]
    replies, _ = ask(server, [MaskRequest(1, image, (BOX,)) for image in asked])
    assert [reply.masks is None for reply in replies] == [True, False, True]
    assert "UnidentifiedImageError" in str(replies[0].reason) and "FileNotFoundError" in str(replies[2].reason)


def test_a_device_that_fails_is_a_reason(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MaskServer(folder)

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("CUDA out of memory")

    async def first_and_second() -> list[MaskReply]:
        return [await server.masks(MaskRequest(1, picture(1), (BOX,))) for _ in range(2)]

    monkeypatch.setattr(PromptedSam2, "embed", fail)
    first, second = asyncio.run(first_and_second())
    assert first == MaskReply(None, "RuntimeError: CUDA out of memory") and second.masks is not None
