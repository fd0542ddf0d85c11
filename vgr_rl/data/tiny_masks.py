"""The tiny world with masks, as VRT asks about pictures: reasoning and answer point at every object that they name."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vgr_rl.data.schema import IMAGE_TAG, Row, SftRow, image_bytes
from vgr_rl.data.vrt_records import mask_target
from vgr_rl.grounding.frames import Size
from vgr_rl.grounding.masks import Rle, encode
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import SEG
from vgr_rl.tiny.world import SIDE, Scene, Shape, Split, generate, render_png, shape_mask

DATA_SOURCE = "tiny_masks"


class Told(NamedTuple):
    """What is asked about a scene and what is right.

    Attributes:
        question: the text.
        response: reasoning and answer with `[SEG]`.
        evidence: the object of each `[SEG]` of the reasoning.
        answer: the object of each `[SEG]` of the answer.
    """

    question: str
    response: str
    evidence: tuple[Shape, ...]
    answer: tuple[Shape, ...]


def tell(scene: Scene) -> Told:
    """Ask for what a scene's question is about: the one of two objects that is on the left, or all that are counted."""
    names = [f"{name} is at {SEG}." for name in scene.names]
    chosen, question, conclusion = scene.targets, scene.question, f" {scene.conclusion}"
    said = " ".join([SEG] * len(chosen))
    if scene.task == "side":
        left = min(
            range(2), key=lambda place: scene.targets[place].box_orig_px[0] + scene.targets[place].box_orig_px[2]
        )
        looks = [name.removeprefix("The ") for name in scene.names]
        chosen, conclusion = (scene.targets[left],), ""
        question = f"What object is on the left, the {looks[0]} or the {looks[1]}?"
        said = f"The {looks[left]} {SEG}"
    response = f"<think>{' '.join(names)}{conclusion}</think><answer>{said}</answer>"
    return Told(question, response, scene.targets, chosen)


def sft_rows(split: Split, count: int, seed: int) -> Iterator[SftRow]:
    """Yield conversations of a split with the true mask of each `[SEG]`."""
    for scene in generate(split, count, seed):
        told = tell(scene)
        response = {"role": "assistant", "content": told.response}
        masks = rles((*told.evidence, *told.answer))
        yield SftRow(scene.id, [_message(told), response], [image_bytes(render_png(scene))], masks)


def rl_rows(split: Split, count: int, seed: int) -> Iterator[Row]:
    """Yield samples of a split, whose targets are the masks that reasoning (evidence) and answer must have."""
    for scene in generate(split, count, seed):
        told = tell(scene)
        roles = ["evidence"] * len(told.evidence) + ["answer"] * len(told.answer)
        shapes = (*told.evidence, *told.answer)
        targets = tuple(
            mask_target(mask, f"{shape.colour} {shape.kind}", role)  # type: ignore[arg-type]
            for mask, shape, role in zip(rles(shapes), shapes, roles, strict=True)
        )
        sample = Sample(
            id=scene.id,
            data_source=DATA_SOURCE,
            question=told.question,
            answer="",
            answer_kind="none",
            options=(),
            targets=targets,
            image_size=Size(SIDE, SIDE),
            extra={"classes": [scene.task]},
        )
        yield Row(sample, [_message(told)], [image_bytes(render_png(scene))])


def rles(shapes: tuple[Shape, ...]) -> list[Rle]:
    """Return the run lengths of the pixels of shapes."""
    return encode(np.stack([shape_mask(shape) for shape in shapes]))


def _message(told: Told) -> dict[str, str]:
    return {"role": "user", "content": IMAGE_TAG + told.question}
