import asyncio
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from vgr_rl.grounding import Rle, Size
from vgr_rl.segment import prompted
from vgr_rl.segment.predict import to_rles
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


def test_a_response_that_enumerates_boxes_is_decoded_a_few_at_a_time(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam2, held = PromptedSam2(folder), []

    def noted(logits: Tensor, size: Size | None) -> list[Rle]:
        held.append(len(logits))
        return to_rles(logits, size)

    monkeypatch.setattr(prompted, "to_rles", noted)
    (embedding,) = sam2.embed([Image.open(io.BytesIO(picture(1)["bytes"]))])
    boxes = [(float(left), 4.0, left + 30.0, 40.0) for left in range(40)]
    masks = sam2.masks(embedding, Size(96, 64), [*boxes, POINT])
    assert held == [16, 16, 8, 1]
    assert masks[33] == sam2.masks(embedding, Size(96, 64), boxes[33:34])[0]


def test_corners_keep_their_place_in_a_model_of_bfloat16(folder: str) -> None:
    sam2 = PromptedSam2(folder)
    sam2._model.bfloat16()
    given = dict[str, Tensor]()
    sam2._model.prompt_encoder.register_forward_pre_hook(lambda *call: given.update(call[-1]), with_kwargs=True)
    (embedding,) = sam2.embed([Image.open(io.BytesIO(picture(1)["bytes"]))])
    for prompt, name in ((BOX, "input_boxes"), (POINT, "input_points")):
        shifted = tuple(value + 0.1 for value in prompt)
        assert len(sam2.masks(embedding, Size(96, 64), [shifted])) == 1
        expected = torch.tensor(shifted).view(-1, 2) * torch.tensor([64 / 96, 1.0])
        assert torch.equal(given[name].flatten(), expected.flatten())


def test_an_image_is_embedded_once_a_step_for_all_who_ask(folder: str) -> None:
    server = MaskServer(folder, batch=8)
    group = [MaskRequest(1, picture(image), (BOX, OTHER)) for image in (1, 2) for _ in range(4)]
    replies, counts = ask(server, group)
    assert all(reply.masks is not None and len(reply.masks) == 2 for reply in replies)
    assert replies[0] == replies[3] != replies[4]
    assert counts == {"requests": 8, "refused": 0, "expired": 0, "batches": counts["batches"], "embedded": 2}
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


def test_a_request_that_cannot_be_answered_fails_alone(folder: str) -> None:
    prompts = (BOX, POINT), (BOX, (1.0, 2.0, 3.0)), (OTHER,)
    replies, counts = ask(MaskServer(folder), [MaskRequest(1, picture(1), own) for own in prompts])
    assert [len(reply.masks or ()) for reply in replies] == [2, 0, 1] and counts["batches"] == 1
    assert str(replies[1].reason).startswith("masks: KeyError")


def test_what_nobody_waits_for_any_more_is_not_worked_on(folder: str) -> None:
    server = MaskServer(folder)

    async def late_and_patient() -> list[MaskReply]:
        asked = [(1, 0.0), (2, 60.0), (3, 0.0)]
        return await asyncio.gather(
            *(server.masks(MaskRequest(1, picture(image), (BOX,)), timeout_s) for image, timeout_s in asked)
        )

    first, second, third = asyncio.run(late_and_patient())
    assert first == third == MaskReply(None, "no reply within segmenter.timeout_s=0") and second.masks is not None
    assert (server._counts["expired"], server._counts["embedded"]) == (2, 1)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError("no more"), struct.error("short")])
def test_a_device_that_fails_is_a_reason(folder: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MaskServer(folder)

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise error

    async def first_and_second() -> list[MaskReply]:
        return [await server.masks(MaskRequest(1, picture(1), (BOX,))) for _ in range(2)]

    monkeypatch.setattr(PromptedSam2, "embed", fail)
    first, second = asyncio.run(first_and_second())
    assert first == MaskReply(None, f"embedding: {type(error).__name__}: {error}") and second.masks is not None
