"""Pictures with many annotated objects, from detection data: a COCO file, or a folder of SA-1B's files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgr_rl.data import draws
from vgr_rl.data.images import upright_size
from vgr_rl.data.schema import image_path
from vgr_rl.grounding import Box


class Picture(NamedTuple):
    """A picture with its annotated objects.

    Attributes:
        id: unique within its data set.
        image: the file.
        boxes_orig_px: of the objects, in pixels of the stored image.
        names: of the objects, "" where the data do not say.
    """

    id: str
    image: Path
    boxes_orig_px: tuple[Box, ...]
    names: tuple[str, ...]


def sample_dense(source: Path, image_root: Path, boxes: tuple[int, int], count: int, seed: int) -> list[Picture]:
    """Draw pictures by lot from those with so many objects, and check that their files can be read.

    Args:
        source: COCO's instances_*.json, or a folder with the json files of SA-1B.
        image_root: the folder that has the pictures.
        boxes: fewest and most objects.
        count: how many pictures.
        seed: of the lot, which depends on it and the pictures' ids alone.

    Raises:
        ValueError: if the source or a picture cannot be read, or there are fewer such pictures.
    """
    pictures = [each for each in _pictures(source, image_root) if boxes[0] <= len(each.boxes_orig_px) <= boxes[1]]
    if len(pictures) < count:
        raise ValueError(
            f"--count={count} but {source} has {len(pictures)} pictures with --boxes={boxes[0]}-{boxes[1]} objects"
        )
    drawn = sorted(pictures, key=lambda each: draws.uniform(seed, "picture", each.id))[:count]
    for picture in drawn:
        try:
            upright_size(image_path(picture.image))
        except ValueError as error:
            raise ValueError(f"--image-root={image_root}: picture {picture.id}: {error}") from error
    return sorted(drawn, key=lambda each: each.id)


def _pictures(source: Path, image_root: Path) -> Iterator[Picture]:
    try:
        if source.is_dir():
            for file in sorted(source.glob("*.json")):
                yield _of_sa1b(json.loads(file.read_bytes()), image_root)
        else:
            yield from _of_coco(json.loads(source.read_bytes()), image_root)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--input={source} is neither a COCO file nor a folder of SA-1B's json files: {error!r}"
        ) from error


def _of_coco(content: Mapping[str, Any], root: Path) -> Iterator[Picture]:
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    objects: dict[Any, list[tuple[Box, str]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            named = _box(annotation["bbox"]), names[annotation["category_id"]]
            objects.setdefault(annotation["image_id"], []).append(named)
    for image in content["images"]:
        found = objects.get(image["id"], [])
        yield Picture(
            str(image["id"]), root / image["file_name"], tuple(b for b, _ in found), tuple(n for _, n in found)
        )


def _of_sa1b(content: Mapping[str, Any], root: Path) -> Picture:
    image = content["image"]
    boxes = tuple(_box(annotation["bbox"]) for annotation in content["annotations"])
    return Picture(str(image["image_id"]), root / image["file_name"], boxes, ("",) * len(boxes))


def _box(box: Any) -> Box:
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height
