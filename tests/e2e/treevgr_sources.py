"""Small sources in the formats in which those of TreeVGR are published, with pictures of coloured shapes."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from scripts.bench.benchmark_files import treebench_rows, write_tsv
from vgr_rl.tiny.world import SIDE, PixelBox, Scene, generate, render_png

VSTAR_FILES = ("GQA_data", "llava_focus_data", "spatial_relation_data", "vaw_attribute_data")
CAR, PEDESTRIAN, IGNORED = 4, 1, 0


def write_vgr158k(folder: Path, rows: int) -> Path:
    """Write VGR-158K.parquet: `image`, and `conversations` whose regions are shares of the sides."""
    scenes = [scene for scene in generate("sft", 4 * rows) if len(scene.targets) > 1][:rows]
    assert len(scenes) == rows
    table = [{"image": _picture(folder, scene), "conversations": _conversation(scene)} for scene in scenes]
    pq.write_table(pa.Table.from_pylist(table), folder / "VGR-158K.parquet")
    return folder / "VGR-158K.parquet"


def write_vstar(folder: Path, rows: int) -> list[Path]:
    """Write the four json files of V*'s instruction data: boxes are x, y, width, height."""
    scenes = list(generate("train", len(VSTAR_FILES) * rows))
    paths = []
    for place, name in enumerate(VSTAR_FILES):
        records = [
            {
                "id": str(number),
                "image": _picture(folder, scene),
                "conversations": [
                    {"from": "human", "value": f"<image>\n{scene.question_with_options}"},
                    {"from": "gpt", "value": scene.answer},
                ],
                "target_instances": [
                    {"name": shape.kind, "bbox": _width_height(shape.box_orig_px)} for shape in scene.targets
                ],
            }
            for number, scene in enumerate(scenes[place * rows : (place + 1) * rows])
        ]
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(records))
    return paths


def write_visdrone(folder: Path, pictures: int) -> Path:
    """Write a VisDrone-DET folder: annotations/ with eight numbers a line, images/ of the same names."""
    draw_lots = random.Random(0)
    for name in ("annotations", "images"):
        (folder / name).mkdir(parents=True)
    for number in range(pictures):
        picture = Image.new("RGB", (96, 64), (90, 90, 90))
        lines = []
        for place in range(5 + number % 4):
            x, y = 12 * (place % 8), 8 + 28 * (place // 8)
            ImageDraw.Draw(picture).rectangle((x, y, x + 8, y + 5), fill=(200, 40 * draw_lots.randrange(5), 60))
            lines.append(f"{x},{y},9,6,1,{CAR},0,{place % 3}")
        lines += [f"40,50,6,12,1,{PEDESTRIAN},0,1", f"60,50,20,10,0,{IGNORED},0,0", f"2,2,9,6,0,{CAR},1,0"]
        (folder / "annotations" / f"{number:07}_d_0000001.txt").write_text("\n".join(lines) + "\n")
        picture.save(folder / "images" / f"{number:07}_d_0000001.jpg")
    return folder


def write_treebench(folder: Path) -> Path:
    """Write TreeBench.tsv with the published numbers of categories, answers and boxes; the questions are made up."""
    return write_tsv(folder / "TreeBench.tsv", treebench_rows(render_png(next(generate("heldout", 1)))))


def _picture(folder: Path, scene: Scene) -> str:
    path = folder / "images" / f"{scene.id.replace('/', '_')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(render_png(scene))
    return f"images/{path.name}"


def _conversation(scene: Scene) -> list[dict[str, str]]:
    regions = [f"the {shape.colour} {shape.kind} {_region(shape.box_orig_px)}" for shape in scene.targets]
    reasoning = "<think>I see " + ". Then there is ".join(regions) + f". {scene.conclusion}</think>"
    return [
        {"from": "human", "value": f"<image>\n{scene.question_with_options}"},
        {"from": "gpt", "value": f"{reasoning}\n{scene.answer}"},
    ]


def _region(box: PixelBox) -> str:
    return f"<SOT>[{', '.join(f'{side / SIDE:.4f}' for side in box)}]<EOT><image>"


def _width_height(box: Sequence[int]) -> list[int]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
