"""Benchmarks of questions with one answer: what one is; multiple-choice ones: their files, checks and prompts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vgr_rl.benchmarks.answers import Convention, Rule
from vgr_rl.benchmarks.loading import load_questions
from vgr_rl.benchmarks.tsv import ImageSource, Row
from vgr_rl.data.images import upright_size
from vgr_rl.data.records import RowError
from vgr_rl.data.schema import IMAGE_TAG, ImageRef, Message, image_bytes
from vgr_rl.grounding import Box, Size, area

INSTRUCTION = (
    "Look at the image and pick the best option. Put its letter, and nothing else, between <answer> and </answer>."
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    Attributes:
        key: names the question in files of predictions.
        question: without options.
        options_text: the options as they are written under the question; "" when only the image has them.
        answer: the right letter, or text.
        category: one of the benchmark's categories.
        image: the encoded image, or None when the file has none.
        options: texts by letter, where the file tells them apart.
        targets_orig_px: true boxes in pixels of the stored image.
        cycle: which order of the options this is, "" where a question is asked once.
        size: of the stored (first) image, pixels, where the file says it.
        further_images: those after the first.
    """

    key: str
    question: str
    options_text: str
    answer: str
    category: str
    image: ImageSource | None
    options: Mapping[str, str] = field(default_factory=dict)
    targets_orig_px: tuple[Box, ...] = ()
    cycle: str = ""
    size: Size | None = None
    further_images: tuple[ImageSource, ...] = ()

    def encoded_images(self) -> list[ImageRef]:
        """Read the encoded images of the prompt.

        Raises:
            ValueError: if one is absent or cannot be read.
        """
        if self.image is None:
            raise ValueError(f"index={self.key}: image is empty")
        try:
            return [image_bytes(read()) for read in (self.image, *self.further_images)]
        except OSError as error:
            raise ValueError(f"index={self.key}: image {error}") from error

    def stored_size(self) -> Size:
        """Return the size of the (first) image in pixels, from its header where the file does not say it.

        Raises:
            ValueError: if the image is absent or cannot be read.
        """
        return self.size or self._size_of(self.encoded_images()[0])

    def stored_sizes(self) -> list[Size]:
        """Return the sizes of all images in pixels, as `stored_size` does that of the first."""
        if not self.further_images:
            return [self.stored_size()]
        first, *further = self.encoded_images()
        return [self.size or self._size_of(first), *map(self._size_of, further)]

    def _size_of(self, image: ImageRef) -> Size:
        try:
            return upright_size(image)
        except ValueError as error:
            raise ValueError(f"index={self.key}: image {error}") from error


class Benchmark(Protocol):
    """What running, scoring and validating need of a benchmark whose questions have one answer each."""

    @property
    def name(self) -> str:
        """What commands call it."""
        ...

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    @property
    def categories(self) -> Iterable[str]:
        """Categories in the order of tables; others follow as they appear."""
        ...

    def load(self, path: Path, limit: int | None = None) -> Sequence[Item]:
        """Read and check the first `limit` questions (None: all); pictures stay encoded."""
        ...

    def differences(self, items: Iterable[Item]) -> list[str]:
        """Say in what the items differ from the published benchmark."""
        ...

    def messages(self, item: Item, convention: Convention, system_prompt: str | None) -> list[Message]:
        """Return the conversation that asks a question, with an `<image>` for each image."""
        ...

    def is_right(self, item: Item, response: str, convention: Convention) -> bool | None:
        """Say whether a response gives the right answer; None where there is no answer to grade."""
        ...


@dataclass(frozen=True, slots=True)
class ChoiceBenchmark:
    """A multiple-choice benchmark.

    Attributes:
        name: what commands call it.
        title: what people call it.
        hub: data set on the Hugging Face hub, and the file of it that is read.
        letters: the answers that there are.
        categories: rows by category, in the papers' order.
        counts_confirmed: whether these numbers of rows are from a file of the authors; if not, they only warn.
        rows: reads the published file.
        item: turns one row into an item; raises `RowError` for a field that cannot be used.
        rules: what counts as the answer.
        answers: rows by right letter, where published.
        targets: rows by number of true boxes, where published.
        shows_options: whether the prompt has the options of an item.
    """

    name: str
    title: str
    hub: tuple[str, str]
    letters: str
    categories: Mapping[str, int]
    rows: Callable[[Path], list[Row]]
    item: Callable[[Row], Item]
    rules: Mapping[Convention, Rule]
    counts_confirmed: bool = True
    answers: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[int, int] = field(default_factory=dict)
    shows_options: Callable[[Item, Convention], bool] = lambda item, convention: True

    def load(self, path: Path, limit: int | None = None) -> list[Item]:
        """Read and check the published file, and return its first `limit` questions; pictures stay encoded.

        Raises:
            ValueError: listing every row that is no question of this benchmark, with field and value.
        """
        rows, expected = self.rows(path), sum(self.categories.values())
        return load_questions(path, self.title, expected, rows, self.question)[:limit]

    def question(self, row: Row) -> Item:
        """Read and check one row.

        Raises:
            RowError: if a field cannot be used.
        """
        item = self.item(row)
        if item.category not in self.categories:
            raise RowError("category", item.category, f"is not one of {', '.join(self.categories)}")
        letters = [letter for letter in self.letters if not item.options or letter in item.options]
        if item.answer not in letters:
            raise RowError("answer", item.answer, f"is not one of {', '.join(letters)}")
        if not item.question.strip():
            raise RowError("question", item.question, "is empty")
        return item

    def differences(self, items: Iterable[Item]) -> list[str]:
        """Say in what the items differ from the published counts; nothing for the whole benchmark."""
        items = list(items)
        source = "published" if self.counts_confirmed else "expected (no file of the authors says so)"
        counts: list[tuple[str, Mapping[str, int] | Mapping[int, int], Counter[str] | Counter[int]]] = [
            ("category", self.categories, Counter(item.category for item in items)),
            ("answer", self.answers, Counter(item.answer for item in items)),
            ("targets", self.targets, Counter(len(item.targets_orig_px) for item in items)),
        ]
        differing = [
            f"{what}={name}: {found[name]} rows, {source} {published[name]}"  # type: ignore[index]
            for what, published, found in counts
            for name in published
            if found[name] != published[name]  # type: ignore[index]
        ]
        empty = [item.key for item in items if not all(map(area, item.targets_orig_px))]
        return differing + [f"index={key}: a true box is empty, nothing can hit it" for key in empty]

    def prompt(self, item: Item, convention: Convention = "authors", instruction: str = INSTRUCTION) -> str:
        """Return the text that follows the image: question, options, instruction."""
        question = item.question
        if item.options_text and self.shows_options(item, convention):
            question += f" Options:\n{item.options_text}"
        return f"{question}\n{instruction}"

    def messages(
        self, item: Item, convention: Convention = "authors", system_prompt: str | None = None
    ) -> list[Message]:
        """Return the conversation that asks a question; without a system turn when there is no `system_prompt`."""
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return [*system, {"role": "user", "content": f"{IMAGE_TAG}{self.prompt(item, convention)}"}]

    def is_right(self, item: Item, response: str, convention: Convention) -> bool:
        """Say whether the answer of a response is the right letter, by the rule of the convention."""
        return self.rules[convention](response, item.options) == item.answer


def tsv_item(row: Row, options_text: str, **more: Any) -> Item:
    """Return the item of a row whose columns have the usual names; `more` are further attributes.

    Raises:
        RowError: if a column is absent or empty.
    """
    return Item(
        key=text_of(row, "index"),
        question=text_of(row, "question"),
        options_text=options_text,
        answer=text_of(row, "answer").upper(),
        category=text_of(row, "category"),
        image=row.get("image"),
        **more,
    )


def text_of(row: Row, column: str) -> str:
    """Return the text of a column.

    Raises:
        RowError: if the column is absent, empty or no text.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        columns = ", ".join(map(str, row))
        reason = "is empty" if value is None or isinstance(value, str) else "is not text"
        raise RowError(column, value, reason if column in row else f"is no column; there are {columns}")
    return value.strip()


def letter_columns(row: Row, letters: str) -> dict[str, str]:
    """Return the options of a row that has a column for each letter; unused ones are empty.

    Raises:
        RowError: if fewer than two options have a text.
    """
    options = {letter: text.strip() for letter in letters if (text := row.get(letter)) and text.strip()}
    if len(options) < 2:
        raise RowError(letters[0], row.get(letters[0]), f"and its neighbours give {len(options)} options")
    return options


def lettered(options: Mapping[str, str]) -> str:
    """Write options one below the other."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())
