"""ShareGPT conversations in LLaMA-Factory's layout, from json, jsonl or parquet, made SFT rows of ours.

Layouts read: `conversations` [{from: human|gpt|system, value}] with an optional `system` string, or `messages`
[{role, content}]; `images` is a list of paths, or of {"bytes": …, "path": …}.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgr_rl.data.convert import Conversion
from vgr_rl.data.images import upright_size
from vgr_rl.data.records import RowError
from vgr_rl.data.schema import ImageRef, Message, SftRow, image_bytes, image_path
from vgr_rl.grounding.frames import Frame, ImageGeometry
from vgr_rl.grounding.geometry import ResizeRule

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_BOX = re.compile(r"(<box>\s*\[)(\d+),(\d+),(\d+),(\d+)(\]\s*</box>)")


def read_conversations(
    path: str | Path,
    image_root: str | Path | None = None,
    skip_bad: bool = False,
    rule: ResizeRule | None = None,
    frame: Frame = "orig_px",
) -> Conversion:
    """Read the conversations of a json, jsonl or parquet file; iterate over the result for the `SftRow`s.

    Relative image paths are looked up in `image_root`, which is the file's own folder unless it is given.
    With a `rule` the boxes are rewritten from pixels of the stored image to `frame`.

    Raises:
        DataError: while iterating, after the last row, listing the rows that cannot be used (unless `skip_bad`).
    """
    root = Path(path).parent if image_root is None else Path(image_root)

    def make(index: int, raw: dict[str, Any]) -> SftRow:
        row = to_row(raw, f"{Path(path).stem}-{index}", root)
        return row if rule is None else in_frame(row, rule, frame)

    return Conversion(path, make, skip_bad)


def to_row(raw: dict[str, Any], default_id: str, image_root: Path) -> SftRow:
    """Convert one conversation; image paths become absolute.

    Raises:
        RowError: naming the field that is absent or wrong.
    """
    images = [_image(image, image_root) for image in raw.get("images") or ()]
    messages = list(_messages(raw))
    if not messages or messages[-1]["role"] != "assistant":
        raise RowError(
            "conversations", [m["role"] for m in messages], "must end with a turn of gpt, the response to learn"
        )
    if raw.get("system"):
        messages.insert(0, {"role": "system", "content": str(raw["system"])})
    return SftRow(str(raw.get("id") or default_id), messages, images)


def in_frame(row: SftRow, rule: ResizeRule, frame: Frame) -> SftRow:
    """Rewrite the boxes of the responses from pixels of the (first) stored image to the model's frame.

    The published sets hold absolute pixels of the stored image; a model reads them in its own frame.

    Raises:
        RowError: if the image cannot be read or has a shape that the processor refuses.
    """
    if frame == "orig_px" or not row.images:
        return row
    try:
        geometry = rule.geometry(upright_size(row.images[0]))
    except ValueError as error:
        raise RowError("images[0]", row.images[0]["path"], str(error)) from error
    messages = [
        {**m, "content": rewrite_boxes(m["content"], geometry, frame)} if m["role"] == "assistant" else m
        for m in row.messages
    ]
    return SftRow(row.id, messages, row.images)


def rewrite_boxes(text: str, geometry: ImageGeometry, frame: Frame) -> str:
    """Rewrite every well-formed `<box>[x1,y1,x2,y2]</box>` of a text from orig_px to `frame`; the rest stays."""

    def rewritten(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = map(float, match.groups()[1:5])
        return f"{match[1]}{','.join(map(str, geometry.written((x1, y1, x2, y2), frame)))}{match[6]}"

    return _BOX.sub(rewritten, text)


def _messages(raw: dict[str, Any]) -> Iterator[Message]:
    turns = raw.get("conversations") or raw.get("messages")
    if not isinstance(turns, list):
        raise RowError("conversations", turns, "must be a list of turns (or messages)")
    for index, turn in enumerate(turns):
        role, content = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if role not in _ROLES:
            raise RowError(f"conversations[{index}].from", role, f"is not one of {', '.join(_ROLES)}")
        if not isinstance(content, str) or not content:
            raise RowError(f"conversations[{index}].value", content, "must be a text")
        yield {"role": _ROLES[role], "content": content}


def _image(image: Any, root: Path) -> ImageRef:
    if isinstance(image, dict):
        if image.get("bytes") is not None:
            return image_bytes(image["bytes"])
        image = image.get("path")
    if not isinstance(image, str) or not image:
        raise RowError("images", image, "is not a path")
    return image_path((root / image).resolve())
