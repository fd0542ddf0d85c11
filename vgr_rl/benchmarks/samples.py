"""Any parquet of ours as a benchmark (`vgr_rl.data.schema`): its prompts, answers and boxes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from rewards.accuracy import Accuracy
from vgr_rl.benchmarks.answers import Convention
from vgr_rl.benchmarks.choice import Item
from vgr_rl.data.schema import Message, Row, encoded_bytes, read_samples, resolve_image
from vgr_rl.data.validate import require_samples
from vgr_rl.grounding import ImageGeometry, Size, parse_trace

_PIXEL = ImageGeometry(Size(1, 1), Size(1, 1))
_ACCURACY = Accuracy()


@dataclass(frozen=True, slots=True)
class SampleItem(Item):
    """One sample; `row` has its own prompt and how its answer is graded."""

    row: Row = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class SampleBenchmark:
    """Samples of any parquet of ours; a sample's category is its data source."""

    name: str = "samples"
    title: str = "Samples"
    categories: tuple[str, ...] = ()

    def load(self, path: Path, limit: int | None = None) -> list[Item]:
        """Read and check the first `limit` samples; pictures stay encoded.

        Raises:
            ValueError: listing every fault of the rows and their images.
        """
        require_samples([path], knob="data", limit=limit)
        return [_item(row, path.parent) for row in islice(read_samples(path), limit)]

    def differences(self, items: Iterable[Item]) -> list[str]:
        """Return nothing: there are no published samples to differ from."""
        return []

    def messages(self, item: Item, convention: Convention, system_prompt: str | None) -> list[Message]:
        """Return the prompt of the sample, its system turn replaced when there is a `system_prompt`."""
        assert isinstance(item, SampleItem)
        if system_prompt is None:
            return item.row.prompt
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return [*system, *(message for message in item.row.prompt if message["role"] != "system")]

    def is_right(self, item: Item, response: str, convention: Convention) -> bool | None:
        """Say whether the accuracy reward is 1, without a judge; None for a sample without an answer to grade."""
        assert isinstance(item, SampleItem)
        score = _ACCURACY(parse_trace(response, _PIXEL, "orig_px"), item.row.sample)
        return None if score.status == "not_applicable" else score.value == 1.0


def _item(row: Row, folder: Path) -> SampleItem:
    sample = row.sample
    image, *further = [partial(encoded_bytes, resolve_image(image, folder)) for image in row.images]
    return SampleItem(
        key=sample.id,
        question=sample.question,
        options_text="",
        answer=sample.answer,
        category=sample.data_source,
        image=image,
        targets_orig_px=tuple(sample.target_boxes),
        size=sample.image_size,
        further_images=tuple(further),
        row=row,
    )


SAMPLES = SampleBenchmark()
"""Metrics: the share of right answers by the accuracy reward of TreeVGR (`rewards.Accuracy`: letters, numbers and texts
after normalisation; no judge), of the samples that have an answer; mIoU is TreeBench's. Both conventions are the same,
but that by `vlmevalkit` only boxes inside `<think>…</think>` count where a response has both tags.
"""
