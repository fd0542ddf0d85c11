"""Questions about coloured shapes in the formats of TreeBench, V* Bench and VRT-Bench."""

import base64
import json
from pathlib import Path

from scripts.bench.benchmark_files import vrt_features, write_jsonl, write_tfrecord, write_tsv
from vgr_rl.benchmarks.treebench import TREEBENCH
from vgr_rl.benchmarks.vstar import VSTAR
from vgr_rl.data.tiny_masks import rl_rows as mask_rows
from vgr_rl.data.tiny_world import rl_rows


def treebench(path: Path, count: int) -> Path:
    """Write TreeBench's TSV, its categories in turn."""
    categories = list(TREEBENCH.categories)
    rows = [
        {
            "index": index,
            "image": base64.b64encode(row.images[0]["bytes"]).decode(),
            "question": row.sample.question,
            "multi-choice options": options(row.sample.options),
            "answer": row.sample.answer,
            "category": categories[index % len(categories)],
            "target_instances": json.dumps(row.sample.target_boxes),
        }
        for index, row in enumerate(rl_rows("heldout", count, 0))
    ]
    return write_tsv(path, rows)


def vstar(folder: Path, count: int) -> Path:
    """Write V*'s test_questions.jsonl with images beside it."""
    rows = []
    for index, row in enumerate(rl_rows("heldout", count, 1)):
        (folder / f"{index}.png").write_bytes(row.images[0]["bytes"])
        text = f"{row.sample.question}\n" + "\n".join(
            f"({letter}) {option}" for letter, option in zip("ABCD", row.sample.options, strict=False)
        )
        category = list(VSTAR.categories)[index % 2]
        rows.append(
            {"question_id": index, "image": f"{index}.png", "text": text, "category": category}
            | {"label": row.sample.answer}
        )
    return write_jsonl(folder / "test_questions.jsonl", rows)


def vrt_bench(path: Path, count: int) -> Path:
    """Write VRT-Bench's TFRecord."""
    records = []
    for row in mask_rows("heldout", count, 0):
        targets = row.sample.targets
        reasoning, answer = (
            [number for number, target in enumerate(targets, start=1) if target.role == role]
            for role in ("evidence", "answer")
        )
        masks = [target.mask_rle for target in targets if target.mask_rle is not None]
        image, classes = row.images[0]["bytes"], row.sample.extra["classes"]
        record = vrt_features(row.sample.id, masks, reasoning, answer, classes, image)
        records.append(record | {"question": [row.sample.question.encode()]})
    return write_tfrecord(path, records)


def options(texts: tuple[str, ...]) -> str:
    """Return the options as lines."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDEF", texts, strict=False))
