"""Scenes of coloured shapes with a question, its answer and the true box of every object the question needs.

Three tasks stand for three kinds of visual question: `colour` (attribute), `side` (relation of two objects) and
`count`. Coordinates are `orig_px` of the picture, which is `SIDE` pixels square.
"""

import hashlib
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

Task = Literal["colour", "side", "count"]
Split = Literal["base", "sft", "train", "val", "heldout"]
PixelBox = tuple[int, int, int, int]

SIDE = 64
GRID = 4
SHAPE_MIN, SHAPE_MAX = 16, 32
GAP = 2
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (235, 215, 50)}
SHAPES = ("circle", "square", "triangle")
LETTERS = "ABCD"
# Share of all pictures that belong to a split, in 1/20. `base` trains the shipped model and nothing else.
SPLIT_SHARES: dict[Split, int] = {"base": 8, "sft": 4, "train": 4, "val": 2, "heldout": 2}
_BACKGROUND_BLEND = 0.2


@dataclass(frozen=True, slots=True)
class Shape:
    """One drawn object; `box_orig_px` is half open."""

    colour: str
    kind: str
    box_orig_px: PixelBox


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture with one question; `targets` are the shapes that the answer rests on, in reading order."""

    id: str
    task: Task
    shapes: tuple[Shape, ...]
    targets: tuple[Shape, ...]
    names: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    answer: str
    conclusion: str

    @property
    def question_with_options(self) -> str:
        """The question followed by its lettered options, as the model reads it."""
        return " ".join([self.question, *(f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options))])

    @property
    def picture_key(self) -> str:
        """Content of the picture alone: equal for two scenes exactly when their pictures are drawn alike."""
        return ";".join(sorted(f"{s.colour} {s.kind} {','.join(map(str, s.box_orig_px))}" for s in self.shapes))


def generate(split: Split, count: int, seed: int = 0) -> Iterator[Scene]:
    """Yield `count` scenes of a split; the i-th is the same for every `count`, and no picture comes twice.

    A picture belongs to one split only, by a hash of what it shows: whatever the seeds, two splits share no picture.

    Raises:
        ValueError: if the split has no such name, or so many distinct pictures cannot be found.
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split!r} is not one of {', '.join(get_args(Split))}")
    seen: set[str] = set()
    index = 0
    while len(seen) < count:
        scene = scene_at(split, index, seed)
        index += 1
        if scene.picture_key not in seen:
            seen.add(scene.picture_key)
            yield scene
        if index > 20 * count + 1000:
            raise ValueError(f"count={count}: the split {split!r} has too few distinct pictures; ask for fewer")


def scene_at(split: Split, index: int, seed: int = 0) -> Scene:
    """Draw the scene at one index of a split's stream: a function of (split, index, seed) alone."""
    rng = random.Random(f"tiny-world/{seed}/{split}/{index}")
    while True:
        scene = _draw_scene(rng, f"tiny-{split}-{seed}-{index}")
        if scene is not None and split_of(scene) == split:
            return scene


def split_of(scene: Scene) -> Split:
    """The one split that a scene's picture belongs to."""
    digest = hashlib.blake2b(scene.picture_key.encode(), digest_size=8).digest()
    rest = int.from_bytes(digest, "big") % sum(SPLIT_SHARES.values())
    for split, share in SPLIT_SHARES.items():
        if rest < share:
            return split
        rest -= share
    raise AssertionError("shares cover every remainder")


def render(scene: Scene) -> np.ndarray:
    """Paint a scene: uint8 array [SIDE, SIDE, 3].

    Red grows to the right and green downwards, also faintly over the shapes, so that a small vision tower can read
    a position from a patch's colour.
    """
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    background = np.stack([20 + 200 * columns / SIDE, 20 + 200 * rows / SIDE, np.full((SIDE, SIDE), 120.0)], axis=-1)
    image = Image.fromarray(background.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _draw_shape(draw, shape)
    blended = (1 - _BACKGROUND_BLEND) * np.asarray(image, np.float32) + _BACKGROUND_BLEND * background
    return blended.astype(np.uint8)


def shape_mask(shape: Shape) -> np.ndarray:
    """Return the pixels that a shape is painted on: bool array [SIDE, SIDE]."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    _draw_shape(ImageDraw.Draw(image), shape)
    painted: np.ndarray = (np.asarray(image) != 255).any(axis=-1)
    return painted


def render_png(scene: Scene) -> bytes:
    """Paint a scene and encode it as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(render(scene)).save(buffer, "PNG")
    return buffer.getvalue()


def random_box(rng: random.Random, occupied: list[PixelBox] | None = None) -> PixelBox | None:
    """Place a box on the grid, clear of the occupied ones by `GAP` pixels; None when no place was found."""
    for _ in range(100):
        width = rng.randrange(SHAPE_MIN, SHAPE_MAX + 1, GRID)
        height = max(SHAPE_MIN, min(SHAPE_MAX, width + rng.choice((-GRID, 0, 0, GRID))))
        x1 = rng.randrange(0, SIDE - width + 1, GRID)
        y1 = rng.randrange(0, SIDE - height + 1, GRID)
        box = (x1, y1, x1 + width, y1 + height)
        if all(_apart(box, other) for other in occupied or ()):
            return box
    return None


def _apart(a: PixelBox, b: PixelBox) -> bool:
    return a[2] + GAP <= b[0] or b[2] + GAP <= a[0] or a[3] + GAP <= b[1] or b[3] + GAP <= a[1]


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Shape) -> None:
    x1, y1, x2, y2 = shape.box_orig_px
    last_x, last_y = x2 - 1, y2 - 1
    fill, outline = COLOURS[shape.colour], (0, 0, 0)
    if shape.kind == "circle":
        draw.ellipse([x1, y1, last_x, last_y], fill=fill, outline=outline)
    elif shape.kind == "square":
        draw.rectangle([x1, y1, last_x, last_y], fill=fill, outline=outline)
    else:
        draw.polygon([((x1 + last_x) / 2, y1), (x1, last_y), (last_x, last_y)], fill=fill, outline=outline)


def _place_all(rng: random.Random, looks: list[tuple[str, str]]) -> list[Shape] | None:
    shapes: list[Shape] = []
    for colour, kind in looks:
        box = random_box(rng, [s.box_orig_px for s in shapes])
        if box is None:
            return None
        shapes.append(Shape(colour, kind, box))
    return shapes


def _draw_scene(rng: random.Random, scene_id: str) -> Scene | None:
    """Draw one scene of a random task; None when its shapes did not fit or the question would be ambiguous."""
    task: Task = rng.choice(("colour", "side", "count"))
    maker = {"colour": _colour_scene, "side": _side_scene, "count": _count_scene}[task]
    return maker(rng, scene_id)


def _colour_scene(rng: random.Random, scene_id: str) -> Scene | None:
    kind, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    other_kinds = [k for k in SHAPES if k != kind]
    others = [(rng.choice(list(COLOURS)), rng.choice(other_kinds)) for _ in range(rng.randint(1, 2))]
    shapes = _place_all(rng, [(colour, kind), *others])
    if shapes is None:
        return None
    options = tuple(COLOURS)
    return Scene(
        id=scene_id,
        task="colour",
        shapes=_shuffled(rng, shapes),
        targets=(shapes[0],),
        names=(f"The {kind}",),
        question=f"What colour is the {kind}?",
        options=options,
        answer=LETTERS[options.index(colour)],
        conclusion=f"It is {colour}.",
    )


def _side_scene(rng: random.Random, scene_id: str) -> Scene | None:
    first, second = ((colour, rng.choice(SHAPES)) for colour in rng.sample(list(COLOURS), 2))
    free_colours = [c for c in COLOURS if c not in (first[0], second[0])]
    others = [(rng.choice(free_colours), rng.choice(SHAPES)) for _ in range(rng.randint(0, 1))]
    shapes = _place_all(rng, [first, second, *others])
    if shapes is None:
        return None
    centres = [(s.box_orig_px[0] + s.box_orig_px[2]) / 2 for s in shapes[:2]]
    if abs(centres[0] - centres[1]) < 2 * GRID:
        return None
    side = "left" if centres[0] < centres[1] else "right"
    names = [" ".join(look) for look in (first, second)]
    options = ("left", "right")
    return Scene(
        id=scene_id,
        task="side",
        shapes=_shuffled(rng, shapes),
        targets=tuple(shapes[:2]),
        names=tuple(f"The {name}" for name in names),
        question=f"Is the {names[0]} left or right of the {names[1]}?",
        options=options,
        answer=LETTERS[options.index(side)],
        conclusion=f"It is on the {side}.",
    )


def _count_scene(rng: random.Random, scene_id: str) -> Scene | None:
    number, colour = rng.randint(1, 3), rng.choice(list(COLOURS))
    counted = [(colour, rng.choice(SHAPES)) for _ in range(number)]
    other_colours = [c for c in COLOURS if c != colour]
    others = [(rng.choice(other_colours), rng.choice(SHAPES)) for _ in range(rng.randint(0, 2))]
    shapes = _place_all(rng, counted + others)
    if shapes is None:
        return None
    targets = sorted(shapes[:number], key=lambda s: s.box_orig_px[:2])
    options = ("1", "2", "3", "4")
    return Scene(
        id=scene_id,
        task="count",
        shapes=_shuffled(rng, shapes),
        targets=tuple(targets),
        names=(f"A {colour} object",) * number,
        question=f"How many {colour} objects are there?",
        options=options,
        answer=LETTERS[options.index(str(number))],
        conclusion=count_conclusion(number),
    )


def count_conclusion(number: int) -> str:
    """Return the sentence in which a count is stated."""
    return "There is 1." if number == 1 else f"There are {number}."


def _shuffled(rng: random.Random, shapes: list[Shape]) -> tuple[Shape, ...]:
    return tuple(rng.sample(shapes, len(shapes)))
