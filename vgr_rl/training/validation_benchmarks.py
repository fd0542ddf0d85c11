"""What a run is validated on: benchmarks of answers, and VRT-Bench, whose masks R-Sa2VA or, of boxes, SAM2 makes."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vgr_rl.benchmarks import vrt_bench
from vgr_rl.benchmarks.answers import Convention
from vgr_rl.benchmarks.choice import Benchmark, Item
from vgr_rl.benchmarks.predictions import Prediction, Predictions
from vgr_rl.benchmarks.suite import score_items, score_masks
from vgr_rl.benchmarks.vrt_bench import SECTIONS, VrtItem
from vgr_rl.benchmarks.vrt_run import read_boxes
from vgr_rl.data.schema import Message, Row
from vgr_rl.data.vrt_records import conversation
from vgr_rl.grounding import Sample
from vgr_rl.segment.server import MaskReply, MaskRequest

PREFIX = "val"

_OF_RESULT = ("overall", "miou")
_BESIDE = ("precision_iou", "dual_iou", "boxes_per_answer", "malformed_share", "truncated_share", "missing")
_SCORES = ("miou", "lq", "sq")
_OF_SECTIONS = ("precision_iou", "predicted_masks")
_OF_RESPONSES = ("segs_without_mask", "responses_without_answer", "responses_with_several_answers", "missing")


class Segmenter(Protocol):
    """What makes masks; `MaskClient`."""

    async def masks(self, request: MaskRequest) -> MaskReply:
        """Return one mask a prompt, or why there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Validation(ABC):
    """A benchmark, or a fixed part of it.

    Attributes:
        questions: those that are asked, in the order of the file.
        of: how many the file has.
        convention: whose prompts and scores.
    """

    questions: Sequence[Item]
    of: int
    convention: Convention

    @property
    @abstractmethod
    def name(self) -> str:
        """What commands call the benchmark."""

    @abstractmethod
    def prompt(self, question: Item) -> list[Message]:
        """Return how a question is asked."""

    @abstractmethod
    def score(self, responses: Mapping[str, Prediction], label: str) -> dict[str, Any]:
        """Score responses, by the keys of their questions, as `vgr_rl.evaluate score` does; absent ones are wrong."""

    @abstractmethod
    def numbers(self, result: Mapping[str, Any]) -> dict[str, float | None]:
        """Return the numbers of a result of `score` that are metrics; None is one that is not known."""

    @abstractmethod
    def metric_names(self) -> list[str]:
        """Return the names that `metrics` can have."""

    def rows(self) -> Iterator[Row]:
        """Yield the questions as rows of ours, each with its encoded images, which are read when it is its turn.

        The targets stay here: no reward is wanted, and published boxes may leave their image.
        """
        for question in self.questions:
            sample = Sample(
                id=question.key,
                data_source=self.name,
                question=question.question,
                answer="",
                answer_kind="none",
                options=(),
                targets=(),
                image_size=question.stored_size(),
            )
            yield Row(sample, self.prompt(question), question.encoded_images())

    def metrics(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics of a result of `score`, `val/<benchmark>/…`, those that are known."""
        return {self.full(name): float(number) for name, number in self.numbers(result).items() if number is not None}

    def full(self, name: str) -> str:
        """Return the name of a metric."""
        return f"{PREFIX}/{self.name}/{name}"

    def describe(self) -> str:
        """Return what is asked, for the plan."""
        count = len(self.questions)
        part = f"{count} of {self.of}" if count < self.of else f"all {self.of}"
        return f"{self.name} ({part} questions)"

    def predictions(self, responses: Mapping[str, Prediction]) -> Predictions:
        """Return responses as those of a file."""
        missing = [question.key for question in self.questions if question.key not in responses]
        return Predictions(by_key=dict(responses), missing=missing)


@dataclass(frozen=True, slots=True)
class AnswerValidation(Validation):
    """A benchmark whose questions have one answer each.

    Attributes:
        benchmark: how it is asked and scored.
        system_prompt: None: the samples' own.
    """

    benchmark: Benchmark
    system_prompt: str | None

    @property
    def name(self) -> str:
        """What commands call the benchmark."""
        return self.benchmark.name

    def prompt(self, question: Item) -> list[Message]:
        """Return how a question is asked."""
        return self.benchmark.messages(question, self.convention, self.system_prompt)

    def score(self, responses: Mapping[str, Prediction], label: str) -> dict[str, Any]:
        """Score responses, by the keys of their questions, as `vgr_rl.evaluate score` does; absent ones are wrong."""
        given = self.predictions(responses)
        return score_items(self.benchmark, self.questions, given, label, self.convention).result

    def numbers(self, result: Mapping[str, Any]) -> dict[str, float | None]:
        """Return `overall`, `miou`, what stands beside them, and the accuracy of each category."""
        of_all = {name: result[name] for name in _OF_RESULT} | {name: result["extra"][name] for name in _BESIDE}
        return of_all | {f"accuracy/{name}": scores["accuracy"] for name, scores in result["per_category"].items()}

    def metric_names(self) -> list[str]:
        """Return the names that `metrics` can have."""
        categories = dict.fromkeys(f"accuracy/{question.category}" for question in self.questions)
        return [self.full(name) for name in (*_OF_RESULT, *_BESIDE, *categories)]


@dataclass(frozen=True, slots=True)
class MaskValidation(Validation):
    """VRT-Bench: of a policy that writes boxes `with_masks` comes before `score`; R-Sa2VA makes its masks itself.

    Attributes:
        items: the questions with their true masks.
        system_prompt: the instructions of each.
        prefill: what responses are begun with.
    """

    items: Sequence[VrtItem]
    system_prompt: str
    prefill: str

    @property
    def name(self) -> str:
        """What commands call the benchmark."""
        return vrt_bench.NAME

    def prompt(self, question: Item) -> list[Message]:
        """Return how a question is asked."""
        return conversation(self.system_prompt, question.question)

    async def with_masks(
        self, responses: Mapping[str, Prediction], segmenter: Segmenter, step: int, in_flight: int
    ) -> tuple[dict[str, Prediction], list[str]]:
        """Return the responses with `[SEG]` and a mask for each box, and why some have none, "key: reason" each.

        Args:
            responses: by the keys of their questions.
            segmenter: makes the masks.
            step: training step.
            in_flight: how many pictures are sent before one comes back.
        """
        places = asyncio.Semaphore(in_flight)
        questions = {question.key: question for question in self.questions}

        async def one(said: Prediction) -> tuple[Prediction, str | None]:
            async with places:
                question = questions[said.key]
                text, boxes = read_boxes(said.response, question.stored_size(), said.model_size, self.prefill)
                prompts = tuple(box.box_orig_px for box in boxes)
                reply = await segmenter.masks(MaskRequest(step, question.encoded_images()[0], prompts))
                return said._replace(response=text, model_size=None, masks=reply.masks), reply.reason

        done = await asyncio.gather(*map(one, responses.values()))
        failed = [f"{said.key}: {reason}" for said, reason in done if said.masks is None]
        return {said.key: said for said, _ in done}, failed

    def score(self, responses: Mapping[str, Prediction], label: str) -> dict[str, Any]:
        """Score responses with masks, by the keys of their questions, as `vgr_rl.evaluate score` does."""
        return score_masks(self.items, self.predictions(responses), label, self.convention).result

    def numbers(self, result: Mapping[str, Any]) -> dict[str, float | None]:
        """Return the scores of both sections, overall and for each class, and what stands beside them."""
        extra = result["extra"]
        scores = {f"{section}/{name}": result[section][name] for section in SECTIONS for name in _SCORES}
        scores |= {f"{section}/{name}": extra[name][section] for section in SECTIONS for name in _OF_SECTIONS}
        scores |= {name: extra[name] for name in _OF_RESPONSES}
        classes = result["per_class"].items()
        return scores | {
            f"{_plain(kind)}/{section}/{name}": own[section][name]
            for kind, own in classes
            for section in SECTIONS
            for name in _SCORES
        }

    def metric_names(self) -> list[str]:
        """Return the names that `metrics` can have."""
        classes = dict.fromkeys(_plain(name) for item in self.items for name in item.classes)
        of_sections = [f"{section}/{name}" for section in SECTIONS for name in (*_SCORES, *_OF_SECTIONS)]
        of_classes = [f"{kind}/{section}/{name}" for kind in classes for section in SECTIONS for name in _SCORES]
        return [self.full(name) for name in (*of_sections, *_OF_RESPONSES, *of_classes)]


def _plain(kind: str) -> str:
    return kind.removeprefix("#")
