"""The tiny world as a data set: RL samples and SFT conversations of a split."""

import random
from collections.abc import Iterator
from dataclasses import replace

from vgr_rl.data.schema import IMAGE_TAG, Row, SftRow, image_bytes
from vgr_rl.data.tiny_masks import rles
from vgr_rl.grounding.frames import ImageGeometry, Size, model_frame
from vgr_rl.grounding.sample import Sample, Target
from vgr_rl.tiny.traces import LabelNoise, write_trace
from vgr_rl.tiny.world import SIDE, Scene, Split, generate, render_png

DATA_SOURCE = "tiny_world"
# The tiny models' processor leaves a picture of the tiny world at its size.
GEOMETRY = ImageGeometry(orig_size=Size(SIDE, SIDE), model_size=Size(SIDE, SIDE))


def to_sample(scene: Scene) -> Sample:
    """Describe a scene as a sample; every target is evidence."""
    targets = []
    for shape in scene.targets:
        x1, y1, x2, y2 = map(float, shape.box_orig_px)
        targets.append(Target(box_orig_px=(x1, y1, x2, y2), name=f"{shape.colour} {shape.kind}"))
    return Sample(
        id=scene.id,
        data_source=DATA_SOURCE,
        question=scene.question,
        answer=scene.answer,
        answer_kind="choice",
        options=scene.options,
        targets=tuple(targets),
        image_size=Size(SIDE, SIDE),
        extra={"task": scene.task},
    )


def rl_rows(split: Split, count: int, seed: int, open_answers: bool = False, masks: bool = False) -> Iterator[Row]:
    """Yield RL samples of a split; their prompts hold no coordinate, so they serve every model family.

    With `open_answers` the true answer to what is still answered by a letter is "option A": only a judge can tell. With
    `masks` targets have their mask beside their box.
    """
    for scene in generate(split, count, seed):
        sample = to_sample(scene)
        if masks:
            true = zip(sample.targets, rles(scene.targets), strict=True)
            sample = replace(sample, targets=tuple(replace(target, mask_rle=mask) for target, mask in true))
        if open_answers:
            sample = replace(sample, answer=f"option {sample.answer}", answer_kind="open", options=())
        yield Row(sample, [_user_message(scene)], [image_bytes(render_png(scene))])


def sft_rows(split: Split, count: int, seed: int, model_type: str, noise: LabelNoise) -> Iterator[SftRow]:
    """Yield conversations of a split with traces in the frame of the model family."""
    frame = model_frame(model_type)
    for scene in generate(split, count, seed):
        rng = random.Random(f"tiny-trace/{scene.id}")
        response = {"role": "assistant", "content": write_trace(scene, GEOMETRY, frame, noise, rng)}
        yield SftRow(scene.id, [_user_message(scene), response], [image_bytes(render_png(scene))])


def _user_message(scene: Scene) -> dict[str, str]:
    return {"role": "user", "content": IMAGE_TAG + scene.question_with_options}
