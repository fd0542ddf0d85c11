"""SAM2 servers: Ray actors that turn the boxes and points of responses into masks, in batches.

An image is embedded once a step, whoever asks about it. The queue is bounded: what does not fit is refused at once, and
a refusal, a broken picture, a late or a dead server is a reply with a reason, never an exception and never an empty
mask. A server that dies is started again.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vgr_rl.data.images import decode_image
from vgr_rl.errors import ConfigError
from vgr_rl.grounding import Rle, Size

ImageRef = Mapping[str, Any]
_CALLS = 10_000  # that an actor takes up at a time, so that its queue, and not Ray's, is the one that fills
_START_S = 900  # that servers may take to load SAM2, which may have to be downloaded
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MaskRequest:
    """Prompts about one image.

    Attributes:
        step: training step; an image of another step is embedded again.
        image: {"bytes": ...} or {"path": ...}.
        prompts: boxes (x1, y1, x2, y2) and points (x, y), pixels of the upright image.
    """

    step: int
    image: ImageRef
    prompts: tuple[tuple[float, ...], ...]

    @property
    def image_key(self) -> bytes:
        """Equal for requests about the same bytes or path."""
        data = self.image.get("bytes") or str(self.image.get("path")).encode()
        return hashlib.blake2b(data, digest_size=16).digest()


class MaskReply(NamedTuple):
    """One mask a prompt, in order; or None and the reason why there are none."""

    masks: tuple[Rle, ...] | None
    reason: str | None = None


class MaskServer:
    """Answers requests in batches; to be made a Ray actor by `start_servers`.

    Args:
        model: SAM2, folder or hub id.
        device: of torch.
        queue: requests that may wait; more are refused.
        batch: requests that are worked on together.
        images: embeddings that are kept.
    """

    def __init__(self, model: str, device: str = "cpu", queue: int = 256, batch: int = 16, images: int = 64) -> None:
        from vgr_rl.segment.prompted import PromptedSam2

        self._sam2 = PromptedSam2(model, device)
        self._waiting: asyncio.Queue[tuple[MaskRequest, asyncio.Future[MaskReply]]] = asyncio.Queue(queue)
        self._batch, self._images = batch, images
        self._known: OrderedDict[bytes, tuple[Any, Size]] = OrderedDict()
        self._step = -1
        self._worker: asyncio.Task[None] | None = None
        self._counts = dict.fromkeys(("requests", "refused", "expired", "batches", "embedded"), 0)

    async def masks(self, request: MaskRequest, timeout_s: float | None = None) -> MaskReply:
        """Answer a request when its turn comes, at once when it is refused; what waits longer than that is dropped."""
        self._counts["requests"] += 1
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        reply: asyncio.Future[MaskReply] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((request, reply))
        except asyncio.QueueFull:
            self._counts["refused"] += 1
            return MaskReply(None, f"{self._waiting.maxsize} requests wait already; raise segmenter.queue or .servers")
        try:
            return await asyncio.wait_for(reply, timeout_s)
        except TimeoutError:
            assert timeout_s is not None
            return _late(timeout_s)

    async def counts(self) -> dict[str, int]:
        """Return how many requests came, were refused and were dropped, and how many batches and images were done."""
        return dict(self._counts)

    async def _work(self) -> None:
        while True:
            taken = [await self._waiting.get()]
            while len(taken) < self._batch and not self._waiting.empty():
                taken.append(self._waiting.get_nowait())
            awaited = [(request, waiting) for request, waiting in taken if not waiting.done()]
            self._counts["expired"] += len(taken) - len(awaited)
            if not awaited:
                continue
            replies = await asyncio.to_thread(self._answer, [request for request, _ in awaited])
            for (_, waiting), reply in zip(awaited, replies, strict=True):
                if not waiting.done():
                    waiting.set_result(reply)

    def _answer(self, requests: Sequence[MaskRequest]) -> list[MaskReply]:
        self._counts["batches"] += 1
        if (step := max(request.step for request in requests)) > self._step:
            self._known.clear()
            self._step = step
        keys = [request.image_key for request in requests]
        failed = self._embed_new({key: request.image for key, request in zip(keys, requests, strict=True)})
        replies = [failed.get(key) or self._masks(key, request) for key, request in zip(keys, requests, strict=True)]
        while len(self._known) > self._images:
            self._known.popitem(last=False)
        return replies

    def _masks(self, key: bytes, request: MaskRequest) -> MaskReply:
        embedding, size = self._known[key]
        try:
            return MaskReply(tuple(self._sam2.masks(embedding, size, request.prompts)))
        except Exception as error:  # whatever it is, others still want their masks
            return _failed("masks", error)

    def _embed_new(self, images: Mapping[bytes, ImageRef]) -> dict[bytes, MaskReply]:
        """Embed the images that are not known, together; return why some were not."""
        pictures, failed = {}, {}
        for key, image in images.items():
            if key in self._known:
                self._known.move_to_end(key)
                continue
            try:
                pictures[key] = decode_image(image)
            except Exception as error:  # what a broken file raises is Pillow's secret
                failed[key] = _failed("image", error)
        try:
            embeddings = self._sam2.embed(list(pictures.values())) if pictures else []
        except Exception as error:  # of the device, mostly
            return failed | dict.fromkeys(pictures, _failed("embedding", error))
        for (key, picture), embedding in zip(pictures.items(), embeddings, strict=True):
            self._known[key] = embedding, Size(*picture.size)
        self._counts["embedded"] += len(pictures)
        return failed


class MaskClient:
    """Asks servers; an image always goes to the same one, which has embedded it.

    Args:
        servers: handles of `MaskServer` actors.
        timeout_s: a reply that takes longer is a failure.
    """

    def __init__(self, servers: Sequence[Any], timeout_s: float) -> None:
        self._servers, self._timeout_s = list(servers), timeout_s

    async def masks(self, request: MaskRequest) -> MaskReply:
        """Return the masks of a request, or why there are none."""
        import ray

        if not request.prompts:
            return MaskReply(())
        server = self._servers[int.from_bytes(request.image_key[:8], "big") % len(self._servers)]
        try:
            reply: MaskReply = await asyncio.wait_for(server.masks.remote(request, self._timeout_s), self._timeout_s)
        except TimeoutError:
            return _late(self._timeout_s)
        except ray.exceptions.RayError as error:
            reason, *_ = str(error).partition("\n")
            return MaskReply(None, f"{type(error).__name__}: {reason}")
        return reply


def start_servers(
    model: str, servers: int, gpus: float, queue: int, batch: int, images: int, groups: Sequence[Any] = ()
) -> list[Any]:
    """Start named actors on the running Ray cluster and wait for them; they end when the last handle is dropped.

    Args:
        model: SAM2, folder or hub id.
        servers: how many.
        gpus: of each; 0 computes on the CPU.
        queue: of each; see `MaskServer`.
        batch: see `MaskServer`.
        images: see `MaskServer`.
        groups: placement group of each; without any, Ray puts them where there is room.

    Raises:
        ConfigError: one of them does not start.
    """
    import ray

    actor, device = ray.remote(MaskServer), "cuda" if gpus else "cpu"
    options = {"num_gpus": gpus, "num_cpus": 1, "max_concurrency": _CALLS, "max_restarts": -1}
    handles = [
        actor.options(name=server_name(index), placement_group=reserved or "default", **options).remote(
            model, device, queue, batch, images
        )
        for index, reserved in zip(range(servers), groups or [None] * servers, strict=True)
    ]
    try:
        ray.get([handle.counts.remote() for handle in handles], timeout=_START_S)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"segmenter.model={model}: a server of {servers} did not start: {reason}") from error
    return handles


def running_client(servers: int, timeout_s: float) -> MaskClient:
    """Return a client of the servers that this job has started."""
    import ray

    return MaskClient([ray.get_actor(server_name(index)) for index in range(servers)], timeout_s)


def server_name(index: int) -> str:
    """Return the name of a server's actor."""
    return f"vgr_segmenter_{index}"


def _failed(stage: str, error: Exception) -> MaskReply:
    logger.warning("%s failed", stage, exc_info=error)
    return MaskReply(None, f"{stage}: {type(error).__name__}: {error}")


def _late(timeout_s: float) -> MaskReply:
    return MaskReply(None, f"no reply within segmenter.timeout_s={timeout_s:g}")
