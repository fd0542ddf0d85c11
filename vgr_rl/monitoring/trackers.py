"""Overlays in the two trackers that show pictures: native ones in wandb, drawn ones in TensorBoard."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vgr_rl.monitoring.overlay import Kind, Overlay

CLASSES: dict[Kind, int] = {"true": 0, "predicted": 1}
COLUMNS = ("step", "picture", "id", "question", "response", "answer", "answered", "score", "advantage", "reward parts")


Rows = Sequence[Mapping[str, Any]]
"""Rollouts, as in samples.jsonl."""


class Tracker(Protocol):
    """What shows overlays."""

    def encode(self, shown: Overlay) -> Any:
        """Return an overlay as the tracker takes it; an OSError or ValueError says that it cannot be drawn."""

    def show(self, name: str, rows: Rows, pictures: Sequence[Any], step: int) -> None:
        """Send a step's rollouts and their encoded pictures, in an order that stays from step to step, under a name."""


class WandbTracker:
    """Sends `<name>/<number>`, images whose boxes and masks can be switched on and off, and `<name>/table`.

    Args:
        wandb: the module, with a run that goes on.
    """

    def __init__(self, wandb: Any) -> None:
        self._wandb = wandb
        self._tables: dict[str, Any] = {}

    def show(self, name: str, rows: Rows, pictures: Sequence[Any], step: int) -> None:
        """Send pictures and their texts; the table grows by a row for each."""
        table = self._tables.setdefault(name, self._wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL"))
        logged = {f"{name}/table": table}
        for number, (row, picture) in enumerate(zip(rows, pictures, strict=True), start=1):
            table.add_data(step, number, *_cells(row))
            logged[f"{name}/{number}"] = picture
        self._wandb.log(logged, step=step)

    def encode(self, shown: Overlay) -> Any:
        """Return a `wandb.Image` with its overlays."""
        labels = {number: kind for kind, number in CLASSES.items()}
        boxes = {
            kind: {"box_data": [_box_data(box, CLASSES[kind]) for box in shown.boxes[kind]], "class_labels": labels}
            for kind in shown.boxes
        }
        masks = {
            kind: {"mask_data": numbers, "class_labels": {n: f"{kind} {n}" for n in range(1, numbers.max() + 1)}}
            for kind, numbers in shown.masks.items()
        }
        file_type = "jpg" if shown.file_type == "jpeg" else "png"
        return self._wandb.Image(
            shown.picture, caption=shown.caption, boxes=boxes, masks=masks or None, file_type=file_type
        )


class TensorboardTracker:
    """Sends the images `<name>/<number>`, with everything drawn on them, and their texts.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def encode(self, shown: Overlay) -> Any:
        """Return what `SummaryWriter.add_image` would write, which knows PNG alone."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        encoded = io.BytesIO()
        shown.drawn().save(encoded, shown.file_type, quality=90)
        width, height = shown.picture.size
        return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())

    def show(self, name: str, rows: Rows, pictures: Sequence[Any], step: int) -> None:
        """Send pictures and their texts."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for number, (row, picture) in enumerate(zip(rows, pictures, strict=True), start=1):
            tag = f"{name}/{number}"
            self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)
            text = "\n".join(f"{title}: {cell}" for title, cell in zip(COLUMNS[2:], _cells(row), strict=True))
            self._writer.add_text(tag, _verbatim(text), step)


def _box_data(box: Any, number: int) -> dict[str, Any]:
    min_x, min_y, max_x, max_y = box.box_shown_px
    return {
        "position": {"minX": min_x, "minY": min_y, "maxX": max_x, "maxY": max_y},
        "domain": "pixel",
        "class_id": number,
        "box_caption": box.label,
        "scores": {} if box.iou is None else {"iou": round(box.iou, 4)},
    }


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a rollout as the cells of `COLUMNS` after the first two."""
    question = "\n".join([row["question"], *(f"{chr(65 + n)}. {text}" for n, text in enumerate(row["options"]))])
    texts = (row["id"], question, row["response"], row["answer"], row["predicted_answer"])
    return (*texts, row["score"], row.get("advantage"), json.dumps(row["parts"]))


def _verbatim(text: str) -> str:
    """Return Markdown that shows a text as it is: TensorBoard would take a model's words for markup."""
    return "\n".join(f"    {line}" for line in text.splitlines())
