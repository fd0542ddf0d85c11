"""Score a model on held-out samples of ours, greedily and sampled, with the reward that trained it."""

import base64
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rewards import TREEVGR
from rewards.compose import RewardSets
from vgr_rl.benchmarks.serve import Prompt, Response, ServedModel, Server
from vgr_rl.benchmarks.store import RowFile, check_settings, fingerprint, write_json
from vgr_rl.benchmarks.summary import summarise
from vgr_rl.data.images import image_sizes
from vgr_rl.data.schema import read_samples
from vgr_rl.data.validate import require_samples
from vgr_rl.grounding import Sample
from vgr_rl.training.grading import Grader, build_rewards

log = logging.getLogger(__name__)

MODES = ("greedy", "sampled")
_EMBEDDED_IMAGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is asked for; the keys of `config/evaluation/evaluate.yaml`.

    Raises:
        ValueError: when a value is out of its range.
    """

    model: str
    data: Path
    out: Path
    limit: int | None = None
    modes: tuple[str, ...] = MODES
    seed: int = 0
    max_new_tokens: int = 1024
    concurrency: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    prefill: str = "<think>"
    frame: Any = None
    reward: Mapping[str, Any] = field(default_factory=dict)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown or not self.modes or len(set(self.modes)) != len(self.modes):
            raise ValueError(f"modes={list(self.modes)} but expected one or both of {list(MODES)}, each once")
        for name in ("limit", "max_new_tokens", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} but it must be at least 1")
        if self.reward.get("by_source") and not self.reward.get("terms"):
            raise ValueError("reward.by_source changes terms for single sources: set reward.terms as well")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} but sampling needs more than 0; modes=[greedy] is T=0")
        if not self.data.is_file():
            command = "python -m vgr_rl.prepare tiny --out DIR"
            raise ValueError(f"data={self.data} does not exist; `{command}` makes DIR/heldout.parquet of the demo")

    def settings(self, model: ServedModel) -> dict[str, Any]:
        """Return what must be equal for rows of two runs to belong together."""
        local = Path(self.model)
        return {
            "model": fingerprint(local) if local.is_dir() else self.model,
            "data": fingerprint(self.data),
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "prefill": self.prefill,
            "frame": model.frame,
            "resize": asdict(model.resize),
            "reward": dict(self.reward) if self.reward.get("terms") else "treevgr",
            "dtype": self.engine_kwargs.get("dtype", "default"),
        }


@dataclass(frozen=True, slots=True)
class Item:
    """One held-out sample and its prompt."""

    sample: Sample
    prompt: Prompt


class Progress(Protocol):
    """Told what happens, to show it."""

    def start(self, mode: str, total: int, done: int) -> None:
        """A mode begins, with `done` of `total` responses already on disk."""
        ...

    def advance(self, mode: str) -> None:
        """One response was written."""
        ...


def evaluate(task: Evaluation, progress: Progress) -> dict[str, Any]:
    """Generate, score and summarise; continues where an interrupted evaluation with the same settings stopped.

    Writes `<out>/<mode>.jsonl` (one row a sample, in the order of the data), `<out>/settings.json` and, at the end,
    `<out>/summary.json`, which is also returned. Nothing is generated twice; the engine starts only when something
    is left to generate.

    Raises:
        ValueError: for bad settings or data, and when `out` holds an evaluation with other settings.
    """
    model = ServedModel.load(task.model, frame=task.frame, prefill=task.prefill, processor_kwargs=task.processor_kwargs)
    scorer = Scorer(model, task)
    items = load_items(task, model)
    if task.overwrite:
        for name in ("settings.json", "summary.json", *(f"{mode}.jsonl" for mode in MODES)):
            (task.out / name).unlink(missing_ok=True)
    check_settings(task.out / "settings.json", task.settings(model))
    files = {mode: RowFile(task.out / f"{mode}.jsonl") for mode in task.modes}
    engine = _Engine(task, model, items)
    try:
        for mode, file in files.items():
            todo = [item for item in items.values() if item.sample.id not in file.rows]
            progress.start(mode, len(items), len(items) - len(todo))
            for response in engine.answer(mode, todo):
                file.append(scorer.row(items[response.id], response))
                progress.advance(mode)
            file.finish(items)
    finally:
        engine.close()
    summary = {mode: summarise([file.rows[row_id] for row_id in items]) for mode, file in files.items()}
    write_json(task.out / "summary.json", summary)
    return summary


def load_items(task: Evaluation, model: ServedModel) -> dict[str, Item]:
    """Read the first `limit` samples and build their prompts; pictures stay encoded.

    Raises:
        DataError: listing every fault of the rows and their images.
        ValueError: when a prompt and its response do not fit the model's context.
    """
    require_samples([task.data], knob="data", limit=task.limit)
    folder, items = task.data.parent, dict[str, Item]()
    for row in islice(read_samples(task.data), task.limit):
        sample = row.sample
        prompt = model.prompt(sample.id, row.prompt, row.images, image_sizes(row, folder), folder)
        if prompt.length + task.max_new_tokens > model.context:
            raise ValueError(
                f"max_new_tokens={task.max_new_tokens} and the {prompt.length} prompt tokens of sample {sample.id} "
                f"exceed the model's context of {model.context}; lower max_new_tokens or processor_kwargs.max_pixels"
            )
        items[sample.id] = Item(sample, prompt)
    return items


class _Engine:
    """The server of one evaluation, started when the first prompt has to be answered."""

    def __init__(self, task: Evaluation, model: ServedModel, items: Mapping[str, Item]) -> None:
        self._task = task
        self._model = model
        self._items = items
        self._server: Server | None = None

    def answer(self, mode: str, todo: Sequence[Item]) -> Iterator[Response]:
        """Yield the responses to `todo` as they finish."""
        if not todo:
            return
        task = self._task
        self._server = self._server or self._start()
        sampling: dict[str, float] = {"temperature": 0.0}
        if mode == "sampled":
            sampling = {"temperature": task.temperature, "top_p": task.top_p}
        prompts = (item.prompt for item in todo)
        yield from self._server.stream(prompts, max_tokens=task.max_new_tokens, seed=task.seed, **sampling)

    def close(self) -> None:
        """Stop the server if it was started."""
        if self._server is not None:
            self._server.close()

    def _start(self) -> Server:
        log.info("starting vLLM (about half a minute on a CPU)")
        prompts = [item.prompt for item in self._items.values()]
        return Server(
            self._model,
            max_model_len=max(prompt.length for prompt in prompts) + self._task.max_new_tokens,
            concurrency=self._task.concurrency,
            max_images=max(len(prompt.images) for prompt in prompts),
            engine_kwargs={
                **self._task.engine_kwargs,
                "mm_processor_kwargs": dict(self._task.processor_kwargs) or None,
            },
        )


class Scorer:
    """Turns responses into rows, graded as in training; TreeVGR's parts are measured whatever the reward is."""

    def __init__(self, model: ServedModel, task: Evaluation) -> None:
        self._own_terms = bool(task.reward.get("terms"))
        rewards = build_rewards(task.reward) if self._own_terms else RewardSets(TREEVGR)
        self._grader = Grader(rewards, model.resize, model.frame, model.prefill).at(1.0)
        self._out = task.out

    def row(self, item: Item, response: Response) -> dict[str, Any]:
        """Return the row of one response, as JSON types."""
        grade = self._grader.grade(response.text, item.sample)
        usual = TREEVGR.score(grade.trace, item.sample).parts if self._own_terms else {}
        return {
            "split": "val",
            "group": item.sample.id,
            "rollout": 0,
            **self._grader.row(grade, item.sample),
            "parts": {**usual, **grade.composed.parts},
            "length": response.length,
            "truncated": response.truncated,
            "image": self._image(item.prompt),
        }

    def _image(self, prompt: Prompt) -> dict[str, str] | None:
        """Refer to the picture: by path, in the row when it is a small PNG, else as a file beside the rows."""
        if not prompt.images:
            return None
        image = prompt.images[0]
        content = image.get("bytes")
        if not content:
            return {"path": str((prompt.folder / image["path"]).resolve())}
        if len(content) <= _EMBEDDED_IMAGE_BYTES and content.startswith(b"\x89PNG"):
            return {"png_base64": base64.b64encode(content).decode()}
        copy = self._out / "images" / hashlib.sha256(content).hexdigest()[:16]
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        return {"path": str(copy.resolve())}
