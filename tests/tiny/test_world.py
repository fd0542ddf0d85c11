import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.tiny import world
from vgr_rl.tiny.world import (
    COLOURS,
    LETTERS,
    SIDE,
    SPLIT_SHARES,
    generate,
    random_box,
    render,
    render_png,
    scene_at,
    split_of,
)

SPLITS = list(SPLIT_SHARES)


def test_a_scene_depends_on_split_index_and_seed_alone():
    assert [scene_at("train", i) for i in (3, 0)] == [scene_at("train", 3), scene_at("train", 0)]
    assert scene_at("train", 0, seed=1) != scene_at("train", 0, seed=0)
    assert render_png(scene_at("val", 5)) == render_png(scene_at("val", 5))


def test_asking_for_more_scenes_keeps_the_first_ones():
    assert list(generate("sft", 50))[:20] == list(generate("sft", 20))


def test_splits_share_no_picture_whatever_the_seeds():
    pictures = {
        split: {render(scene).tobytes() for seed in (0, 1) for scene in generate(split, 80, seed)} for split in SPLITS
    }
    for first in SPLITS:
        assert len(pictures[first]) > 120
        for second in SPLITS:
            assert first == second or not pictures[first] & pictures[second]


def test_a_picture_that_comes_again_is_left_out_whatever_is_asked_about_it(monkeypatch):
    def every_picture_twice(split, index, seed):
        scene = scene_at(split, index // 2, seed)
        return dataclasses.replace(scene, question=f"{index}?")

    wanted = list(generate("train", 20))
    monkeypatch.setattr(world, "scene_at", every_picture_twice)
    assert [s.picture_key for s in generate("train", 20)] == [s.picture_key for s in wanted]


def test_every_scene_belongs_to_the_split_that_it_was_drawn_for():
    for split in SPLITS:
        assert {split_of(scene) for scene in generate(split, 50)} == {split}


@given(st.integers(0, 100_000), st.sampled_from(SPLITS))
def test_the_answer_and_the_boxes_follow_from_the_picture(index, split):
    scene = scene_at(split, index)
    image = render(scene).astype(int)
    for shape in scene.shapes:
        x1, y1, x2, y2 = shape.box_orig_px
        assert 0 <= x1 < x2 <= SIDE and 0 <= y1 < y2 <= SIDE
        # Two thirds down the middle every shape shows its fill, up to the faint background.
        seen = image[y1 + 2 * (y2 - y1) // 3, (x1 + x2) // 2]
        nearest = min(COLOURS, key=lambda colour: np.abs(seen - np.array(COLOURS[colour])).sum())
        assert nearest == shape.colour
    option = scene.options[LETTERS.index(scene.answer)]
    if scene.task == "count":
        colour = scene.question.split()[2]
        assert int(option) == sum(shape.colour == colour for shape in scene.shapes) == len(scene.targets)
    elif scene.task == "colour":
        kind = scene.question.split()[-1].rstrip("?")
        assert [shape.colour for shape in scene.shapes if shape.kind == kind] == [option]
    else:
        left, right = (shape.box_orig_px for shape in scene.targets)
        assert option == ("left" if left[0] + left[2] < right[0] + right[2] else "right")
    assert set(scene.targets) <= set(scene.shapes)


def test_the_tasks_and_answers_are_balanced():
    scenes = list(generate("train", 600))
    tasks = Counter(scene.task for scene in scenes)
    assert min(tasks.values()) > 150
    for task in tasks:
        answers = Counter(scene.answer for scene in scenes if scene.task == task)
        assert max(answers.values()) / tasks[task] < 0.65


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="split='test' is not one of base, sft"):
        list(generate("test", 1))


def test_more_pictures_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(world, "scene_at", lambda split, index, seed: scene)
    scene = scene_at("train", 0)
    with pytest.raises(ValueError, match="count=2"):
        list(generate("train", 2))


@given(st.randoms(use_true_random=False))
def test_random_boxes_keep_their_distance(rng: random.Random):
    boxes = []
    for _ in range(3):
        box = random_box(rng, boxes)
        if box is not None:
            boxes.append(box)
    canvas = np.zeros((SIDE, SIDE), int)
    for x1, y1, x2, y2 in boxes:
        canvas[y1:y2, x1:x2] += 1
    assert canvas.max() == 1
