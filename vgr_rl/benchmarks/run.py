"""Answer a benchmark greedily, with a model on vLLM or behind an endpoint, and score the responses."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vgr_rl.benchmarks import vrt_bench
from vgr_rl.benchmarks.answers import CONVENTIONS, Convention
from vgr_rl.benchmarks.choice import INSTRUCTION, Item
from vgr_rl.benchmarks.endpoint import Endpoint, Request
from vgr_rl.benchmarks.heldout import Progress
from vgr_rl.benchmarks.serve import Prompt, Response, ServedModel, Server
from vgr_rl.benchmarks.store import RowFile, check_settings, fingerprint, write_json
from vgr_rl.benchmarks.suite import CHOICE, NAMES, RUNNABLE, find_data, score
from vgr_rl.data.schema import Message
from vgr_rl.grounding import Frame, ResizeRule, Size

log = logging.getLogger(__name__)

_MODE = "greedy"
_UNITS = 1000  # what a model that writes norm1000 takes every image to measure


Question = TypeVar("Question")


Ask = Callable[[Item], list[Message]]
"""Returns the conversation that asks a question."""


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """What is asked for; the keys of `config/evaluation/evaluate.yaml`.

    Raises:
        ValueError: when a value is out of its range.
    """

    benchmark: str
    model: str
    data: str
    out: Path
    url: str | None = None
    served_name: str | None = None
    api_key_env: str | None = None
    convention: Convention = "authors"
    system_prompt: str | None = None
    limit: int | None = None
    max_new_tokens: int = 1024
    concurrency: int = 256
    prefill: str = "<think>"
    frame: Frame | None = None
    sam2: str | None = None
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.benchmark not in NAMES:
            raise ValueError(f"benchmark={self.benchmark} but a model can be run on {', '.join(NAMES)}")
        if self.convention not in CONVENTIONS:
            raise ValueError(f"convention={self.convention} but expected one of {', '.join(CONVENTIONS)}")
        if self.sam2 is not None and self.benchmark != vrt_bench.NAME:
            raise ValueError(
                f"sam2={self.sam2} but benchmark={self.benchmark}: masks are asked for by {vrt_bench.NAME}"
            )
        if self.url is None and (self.served_name or self.api_key_env):
            raise ValueError("served_name and api_key_env are about the server of url, which is not set")
        for name in ("limit", "max_new_tokens", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} but it must be at least 1")

    def settings(self, model: ServedModel | None, data: Path) -> dict[str, Any]:
        """Return what must be equal for rows of two runs to belong together."""
        local = Path(self.model)
        return {
            "benchmark": self.benchmark,
            "model": fingerprint(local) if local.is_dir() else self.model,
            "served_name": (self.served_name or self.model) if self.url else None,
            "data": fingerprint(data),
            "convention": self.convention,
            "system_prompt": self.system_prompt,
            "instruction": INSTRUCTION if self.benchmark in CHOICE else None,
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "prefill": self.prefill,
            "frame": model.frame if model else self.frame,
            "resize": asdict(model.resize) if model else None,
            "dtype": self.engine_kwargs.get("dtype", "default"),
        }


def run(task: BenchmarkRun, progress: Progress) -> dict[str, Any]:
    """Generate what is missing and score; continues where an interrupted run with the same settings stopped.

    Writes `<out>/predictions.jsonl`, in the order of the benchmark and as `score` takes it, `<out>/settings.json` and
    `<out>/result.json`, which is also returned. Nothing is generated twice.

    Raises:
        ValueError: for bad settings or data, and when `out` holds a run with other settings.
    """
    benchmark = RUNNABLE[task.benchmark]
    data = find_data(task.benchmark, task.data)
    items = {item.key: item for item in benchmark.load(data, task.limit)}
    model = model_of(task)

    def answer(todo: Sequence[Item]) -> Iterator[dict[str, Any]]:
        ask = partial(benchmark.messages, convention=task.convention, system_prompt=task.system_prompt)
        for response, model_size in responses(task, ask, model, todo):
            yield _row(response, model_size)

    return collect(task, data, items, task.settings(model, data), answer, progress)


def collect(
    task: BenchmarkRun,
    data: Path,
    items: Mapping[str, Question],
    settings: Mapping[str, Any],
    answer: Callable[[Sequence[Question]], Iterable[dict[str, Any]]],
    progress: Progress,
) -> dict[str, Any]:
    """Write the predictions that are missing, score all, and return the result; see `run`.

    Args:
        task: what is asked for.
        data: file of the benchmark.
        items: its questions by key.
        settings: what must be equal for rows of two runs to belong together.
        answer: makes the rows of questions; it is called when there are any.
        progress: is told of every row.
    """
    predictions = task.out / "predictions.jsonl"
    if task.overwrite:
        for path in (task.out / "settings.json", task.out / "result.json", predictions):
            path.unlink(missing_ok=True)
    check_settings(task.out / "settings.json", settings)
    file = RowFile(predictions)
    todo = [item for key, item in items.items() if key not in file.rows]
    progress.start(_MODE, len(items), len(items) - len(todo))
    try:
        for row in answer(todo) if todo else ():
            file.append(row)
            progress.advance(_MODE)
        file.finish(items)
    finally:
        file.close()
    result = score(task.benchmark, data, predictions, task.convention, limit=task.limit).result
    write_json(task.out / "result.json", result)
    return result


def model_of(task: BenchmarkRun) -> ServedModel | None:
    """Return the model's processor and frame; None where the boxes of an endpoint's model need neither."""
    if task.url and task.frame not in (None, "model_px"):
        return None
    try:
        return ServedModel.load(
            task.model, frame=task.frame, prefill=task.prefill, processor_kwargs=task.processor_kwargs
        )
    except ValueError as error:
        hint = "; or give the frame of its boxes, frame=norm1000 or frame=orig_px" if task.url else ""
        raise ValueError(f"{error}{hint}") from error


def responses(
    task: BenchmarkRun, ask: Ask, model: ServedModel | None, todo: Sequence[Item]
) -> Iterator[tuple[Response, Size | None]]:
    """Yield the responses as they finish, each with the size whose pixels its boxes are written in.

    Args:
        task: what is asked for.
        ask: returns the conversation that asks a question.
        model: from `model_of`.
        todo: the questions.
    """
    sizes = {item.key: item.stored_sizes() for item in todo}
    frame, resize = (task.frame, None) if model is None else (model.frame, model.resize)
    if task.url:
        answers = _from_endpoint(task, ask, todo)
    else:
        assert model is not None, "only an endpoint does without"
        answers = _in_process(task, ask, model, todo, sizes)
    for response in answers:
        yield response, written_size(frame, resize, sizes[response.id][0])


def _from_endpoint(task: BenchmarkRun, ask: Ask, todo: Sequence[Item]) -> Iterator[Response]:
    assert task.url is not None
    name = task.served_name or task.model
    endpoint = Endpoint(task.url, name, task.prefill, task.api_key_env, task.processor_kwargs)
    requests = (Request(item.key, ask(item), item.encoded_images()) for item in todo)
    for (response,) in endpoint.stream(
        requests, concurrency=task.concurrency, temperature=0.0, max_tokens=task.max_new_tokens, seed=0
    ):
        yield response


def _in_process(
    task: BenchmarkRun,
    ask: Ask,
    model: ServedModel,
    todo: Sequence[Item],
    sizes: Mapping[str, Sequence[Size]],
) -> Iterator[Response]:
    def prompt(item: Item, images: Sequence[Mapping[str, Any]]) -> Prompt:
        return model.prompt(item.key, ask(item), images, sizes[item.key], Path())

    longest = max((prompt(item, [{}] * len(sizes[item.key])) for item in todo), key=lambda each: each.length)
    length = longest.length + task.max_new_tokens
    if length > model.context:
        raise ValueError(
            f"max_new_tokens={task.max_new_tokens} and the {longest.length} prompt tokens of question {longest.id} "
            f"exceed the model's context of {model.context}; lower max_new_tokens or processor_kwargs.max_pixels"
        )
    log.info("starting vLLM (about half a minute on a CPU)")
    engine = {**task.engine_kwargs, "mm_processor_kwargs": dict(task.processor_kwargs) or None}
    server = Server(
        model,
        max_model_len=length,
        concurrency=task.concurrency,
        max_images=max(map(len, sizes.values())),
        engine_kwargs=engine,
    )
    try:
        prompts = (prompt(item, item.encoded_images()) for item in todo)  # read when its turn comes
        yield from server.stream(prompts, temperature=0.0, max_tokens=task.max_new_tokens, seed=0)
    finally:
        server.close()


def written_size(frame: Frame | None, resize: ResizeRule | None, stored: Size) -> Size | None:
    """Return the size whose pixels boxes are written in: `model_size` of a prediction; None is the stored image."""
    if frame == "norm1000":
        return Size(_UNITS, _UNITS)
    return resize.geometry(stored).model_size if frame == "model_px" and resize is not None else None


def _row(response: Response, model_size: Size | None) -> dict[str, Any]:
    row = {"id": response.id, "key": response.id, "response": response.text}
    size = {} if model_size is None else {"model_size": list(model_size)}
    return {**row, **size, "truncated": response.truncated, "length": response.length}
