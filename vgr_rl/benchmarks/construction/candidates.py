"""Candidate questions that a model writes about pictures: how it is asked, and what becomes of its answers."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vgr_rl.benchmarks.choice import lettered
from vgr_rl.benchmarks.construction.detections import Picture
from vgr_rl.benchmarks.endpoint import Endpoint, Request
from vgr_rl.benchmarks.store import RowFile, check_settings
from vgr_rl.benchmarks.treebench import TREEBENCH
from vgr_rl.benchmarks.tsv import Row, write_tsv
from vgr_rl.data import draws
from vgr_rl.data.images import upright_size
from vgr_rl.data.schema import image_path
from vgr_rl.grounding import Box, Size

logger = logging.getLogger("vgr_rl.prepare")

PROMPTS = Path(__file__).with_name("prompts.yaml")
_PLACES = ("{category}", "{task}", "{objects}")
_OPTIONS = range(2, len(TREEBENCH.letters) + 1)


class Candidate(NamedTuple):
    """A question that a model wrote; `objects` are places in the picture's boxes, `answer` is the right option."""

    question: str
    options: tuple[str, ...]
    answer: str
    objects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a model is asked.

    Attributes:
        prompt: with an `<image>` and the places {category}, {task} and {objects}.
        categories: the task of each kind of question.
    """

    prompt: str
    categories: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, only: Sequence[str] = ()) -> "Prompts":
        """Read a file like `PROMPTS`, all its categories or some.

        Raises:
            ValueError: if something is missing in it, or a category is unknown.
        """
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        categories = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(categories, dict) or not isinstance(content.get("prompt"), str):
            raise ValueError(f"--prompts={path} must have `prompt`, a text, and `categories` with their tasks")
        if absent := [place for place in ("<image>", *_PLACES) if place not in content["prompt"]]:
            raise ValueError(f"--prompts={path}: the prompt has no {absent[0]}")
        if unknown := [name for name in (*categories, *only) if name not in TREEBENCH.categories]:
            raise ValueError(f"{unknown[0]} is no category of TreeBench; there are {', '.join(TREEBENCH.categories)}")
        return cls(content["prompt"], {name: task for name, task in categories.items() if not only or name in only})

    def fill(self, category: str, picture: Picture, size: Size) -> str:
        """Return the text that asks for a question about a picture."""
        objects = "\n".join(
            f"{number}. {f'{name} ' if name else ''}{_thousandths(box, size)}"
            for number, (box, name) in enumerate(zip(picture.boxes_orig_px, picture.names, strict=True), start=1)
        )
        text = self.prompt
        for place, value in zip(_PLACES, (category, self.categories[category], objects), strict=True):
            text = text.replace(place, value)
        return text


@dataclass(frozen=True, slots=True)
class Generation:
    """One run: which pictures, which questions, and how they are drawn.

    Attributes:
        pictures: what is asked about.
        prompts: what is asked.
        each: questions of a category about a picture.
        temperature: 0 is greedy.
        max_new_tokens: responses are cut here.
        concurrency: requests in flight.
        seed: of the responses, and of the order of the options.
    """

    pictures: Sequence[Picture]
    prompts: Prompts
    each: int
    temperature: float
    max_new_tokens: int
    concurrency: int
    seed: int

    def run(self, endpoint: Endpoint, out: Path) -> Counter[str]:
        """Ask what is not asked yet, and write the usable questions in TreeBench's format; return the counts.

        `<out>.responses` has responses.jsonl, with what is wrong with an unusable one, and settings.json.

        Raises:
            ValueError: if the server gives no answer, the folder is of another run, or no response is usable.
        """
        folder = out.with_suffix(".responses")
        check_settings(folder / "settings.json", self._settings(endpoint), f"give another --out, or remove {folder}")
        asked = {f"{p.id}/{name}/{n}": (p, name) for p in self.pictures for name in self._names for n in self._numbers}
        file = RowFile(folder / "responses.jsonl")
        try:
            for (response,) in endpoint.stream(
                (self._request(key, *asked[key]) for key in asked if key not in file.rows),
                concurrency=self.concurrency,
                temperature=self.temperature,
                max_tokens=self.max_new_tokens,
                seed=self.seed,
            ):
                file.append(_judged(response.id, response.text, asked[response.id][0]))
        finally:
            file.close()
        counts = Counter(file.rows[key]["problem"] or "usable" for key in asked)
        usable = [key for key in asked if not file.rows[key]["problem"]]
        if not usable:
            raise ValueError(f"none of the {len(asked)} responses is a question; see {folder}/responses.jsonl")
        rows = (self._row(index, key, file.rows[key], *asked[key]) for index, key in enumerate(usable))
        logger.info("%s: %d questions of %d responses", out, write_tsv(out, rows), len(asked))
        return counts

    @property
    def _names(self) -> Sequence[str]:
        return list(self.prompts.categories)

    @property
    def _numbers(self) -> range:
        return range(self.each)

    def _settings(self, endpoint: Endpoint) -> dict[str, Any]:
        pictures = [[each.id, each.image.name, each.boxes_orig_px] for each in self.pictures]
        drawn = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens, "seed": self.seed}
        asked = {"prompt": self.prompts.prompt, "categories": dict(self.prompts.categories), "each": self.each}
        return {"model": endpoint.name, "pictures": pictures, **asked, **drawn}

    def _request(self, key: str, picture: Picture, category: str) -> Request:
        image = image_path(picture.image)
        text = self.prompts.fill(category, picture, upright_size(image))
        return Request(key, [{"role": "user", "content": text}], [image])

    def _row(self, index: int, key: str, response: Mapping[str, Any], picture: Picture, category: str) -> Row:
        candidate = read_candidate(response["response"], len(picture.boxes_orig_px))
        order = list(range(len(candidate.options)))
        draws.generator(self.seed, "options", key).shuffle(order)  # models like to put the right one first
        answer = TREEBENCH.letters[order.index(TREEBENCH.letters.index(candidate.answer))]
        options = {letter: candidate.options[place] for letter, place in zip(TREEBENCH.letters, order, strict=False)}
        return {
            "index": str(index),
            "image": picture.image.read_bytes,
            "question": candidate.question,
            "multi-choice options": lettered(options),
            "answer": answer,
            "category": category,
            "target_instances": json.dumps([picture.boxes_orig_px[place] for place in candidate.objects]),
        }


def read_candidate(response: str, boxes: int) -> Candidate:
    """Return the question in a response: the JSON object from its first to its last brace.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        content = json.loads(response[response.find("{") : response.rfind("}") + 1])
    except ValueError:
        raise ValueError("no JSON object") from None
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    question, answer = content.get("question"), content.get("answer")
    options, objects = _list(content, "options"), _list(content, "objects")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("question is empty")
    texts = [option.strip() for option in options if isinstance(option, str) and option.strip()]
    if len(texts) not in _OPTIONS or len(texts) != len(options) or len(set(texts)) != len(texts):
        raise ValueError(f"options are not {_OPTIONS[0]} to {_OPTIONS[-1]} different texts")
    if answer not in list(TREEBENCH.letters[: len(texts)]):
        raise ValueError("answer is no option's letter")
    places = [number - 1 for number in objects if type(number) is int and 1 <= number <= boxes]
    if not places or len(places) != len(objects):
        raise ValueError("objects are not numbers of the picture's objects")
    return Candidate(question.strip(), tuple(texts), answer, tuple(dict.fromkeys(places)))


def _list(content: Mapping[str, Any], name: str) -> list[Any]:
    value = content.get(name)
    return value if isinstance(value, list) else []


def _judged(key: str, response: str, picture: Picture) -> dict[str, Any]:
    problem = None
    try:
        read_candidate(response, len(picture.boxes_orig_px))
    except ValueError as error:
        problem = str(error)
    return {"id": key, "response": response, "problem": problem}


def _thousandths(box: Box, size: Size) -> str:
    x1, y1, x2, y2 = box
    sides = (x1 / size.width, y1 / size.height, x2 / size.width, y2 / size.height)
    return f"[{','.join(str(round(1000 * side)) for side in sides)}]"
