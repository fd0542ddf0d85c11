"""One filter run: ask, grade, decide, write; continues where an interrupted run with the same settings stopped.

What a training run has graded already needs only the last two: see `rollouts`.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgr_rl.benchmarks.serve import ServedModel
from vgr_rl.benchmarks.store import RowFile, check_settings, write_json, write_text
from vgr_rl.data.filters.answers import Answers, Question, Sampling
from vgr_rl.data.filters.decisions import Decision, Graded
from vgr_rl.data.images import image_sizes
from vgr_rl.data.schema import Row, read_samples, resolve_image, write_samples
from vgr_rl.training.grading import Grader

logger = logging.getLogger("vgr_rl.prepare")
Decide = Callable[[Mapping[str, Graded]], Mapping[str, Decision]]
_REPORTS = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples are read, and where those that are kept are written.

    Beside `out` there is a folder with the suffix .filter: `decisions.jsonl` (why each sample was kept or not) and
    `counts.json`.

    Attributes:
        sources: parquet files of RL samples.
        out: parquet for those that are kept, in order.
    """

    sources: Sequence[Path]
    out: Path

    @property
    def folder(self) -> Path:
        """The folder beside the output."""
        return self.out.with_suffix(".filter")

    def rows(self) -> Iterator[Row]:
        """Yield the samples; paths of their images are absolute."""
        for source in self.sources:
            folder = source.resolve().parent
            for row in read_samples(source):
                yield Row(row.sample, row.prompt, [resolve_image(image, folder) for image in row.images])

    def ids(self) -> list[str]:
        """Return the samples' ids in order.

        Raises:
            ValueError: when two samples share one.
        """
        order = [row.sample.id for row in self.rows()]
        if repeated := [name for name, count in Counter(order).items() if count > 1]:
            raise ValueError(f"--input: {len(repeated)} ids come more than once, the first is {repeated[0]}")
        return order

    def write(self, decisions: Mapping[str, Decision], graded: Mapping[str, Mapping[str, Any]]) -> Counter[str]:
        """Write the samples that are kept and why; return the counts by rule.

        Args:
            decisions: of each sample, in order.
            graded: `scores` and `answers` of each.
        """
        lines = (
            {"id": name, **asdict(decision), "scores": graded[name]["scores"], "answers": graded[name]["answers"]}
            for name, decision in decisions.items()
        )
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(self.folder / "decisions.jsonl", text)
        counts = Counter(decision.rule for decision in decisions.values())
        written = write_samples((row for row in self.rows() if decisions[row.sample.id].kept), self.out)
        write_json(self.folder / "counts.json", {"samples": len(decisions), "kept": written, "by_rule": dict(counts)})
        logger.info("%s: %d of %d samples kept (%s)", self.out, written, len(decisions), _listed(counts))
        return counts


@dataclass(frozen=True, slots=True)
class FilterRun:
    """What is asked, and how its answers are graded.

    The folder beside the output also gets `graded.jsonl` (scores and answers of each sample) and `settings.json`.

    Attributes:
        selection: what is read and written.
        model: the model that is asked, for its prompts.
        grader: scores its responses.
        sampling: how they are drawn.
        settings: what must be equal for two runs to share graded samples; the rule that decides is no part of it.
    """

    selection: Selection
    model: ServedModel
    grader: Grader
    sampling: Sampling
    settings: Mapping[str, Any]

    def run(self, answers: Answers, decide: Decide) -> Counter[str]:
        """Grade what is not graded yet, decide about every sample, and write; return the counts by rule.

        Raises:
            ValueError: when the folder belongs to a run with other settings, two samples share an id, or the model
                gives no answer; what has been graded stays.
        """
        order, folder = self.selection.ids(), self.selection.folder
        check_settings(folder / "settings.json", self.settings, f"give another --out, or remove {folder}")
        file = RowFile(folder / "graded.jsonl")
        try:
            self._grade(answers, file, len(order))
        finally:
            file.close()
        graded = {name: Graded(tuple(file.rows[name]["scores"]), file.rows[name]["why"]) for name in order}
        return self.selection.write(decide(graded), file.rows)

    def _grade(self, answers: Answers, file: RowFile, total: int) -> None:
        if len(file.rows) == total:
            return
        logger.info("%d of %d samples are graded", len(file.rows), total)
        for question, texts in answers.stream(self._questions(file)):
            file.append(self._graded(question.row, texts))
            if len(file.rows) % max(1, total // _REPORTS) == 0:
                logger.info("%d of %d samples are graded", len(file.rows), total)

    def _questions(self, file: RowFile) -> Iterator[Question]:
        for row in self.selection.rows():
            if row.sample.id in file.rows:
                continue
            sizes = image_sizes(row, Path())
            prompt = self.model.prompt(row.sample.id, row.prompt, row.images, sizes, Path())
            if prompt.length <= self.sampling.max_prompt_tokens:
                yield Question(row, prompt)
                continue
            why = f"a prompt of {prompt.length} tokens, --max-prompt-tokens={self.sampling.max_prompt_tokens}"
            file.append({"id": row.sample.id, "scores": [], "answers": [], "why": why})

    def _graded(self, row: Row, texts: Sequence[str]) -> dict[str, Any]:
        grades = [self.grader.grade(text, row.sample) for text in texts]
        bad = [grade.composed for grade in grades if grade.composed.status != "ok"]
        why = ""
        if bad:
            reasons = (f"{name}: {score.reason}" for name, score in bad[0].terms.items() if score.status != "ok")
            why = f"reward {bad[0].status}: {'; '.join(reasons)}"
        values = [grade.composed.value for grade in grades]
        scores = [value for value in values if math.isfinite(value)]
        return {"id": row.sample.id, "scores": scores, "answers": [grade.trace.answer for grade in grades], "why": why}


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {rule}" for rule, count in counts.most_common())
