"""verl's data set with images that stay encoded until a rollout needs them."""

import bisect
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from vgr_rl.data.images import decode_image
from vgr_rl.data.schema import IMAGE_TAG
from vgr_rl.errors import ConfigError


class EvidenceDataset(RLHFDataset):
    """Rows of our parquet schema (`vgr_rl.data.schema`).

    A message's image part is `{"type": "image", "image": {"bytes": …} or {"path": …}}`, which
    `process_multi_modal_info` decodes. Image paths are relative to the parquet's folder. Only the processor resizes:
    verl's own path resizes in `qwen_vl_utils` first, and the frame of the boxes would no longer be the one computed
    from the processor.
    """

    def _read_files_and_tokenize(self) -> None:
        frames = []
        for file in self.data_files:
            frame = datasets.load_dataset("parquet", data_files=str(file))["train"]
            folder = str(Path(file).resolve().parent)
            frames.append(frame.add_column("image_root", [folder] * len(frame)))
        self.dataframe = datasets.concatenate_datasets(frames) if frames else datasets.Dataset.from_list([])
        self._file_ends = list(itertools.accumulate(len(frame) for frame in frames))
        if 0 < self.max_samples < len(self.dataframe):
            self.dataframe = self.dataframe.select(range(self.max_samples))

    def source(self, index: int) -> tuple[str, int]:
        """Return the parquet file and the row in it that sample `index` was read from."""
        file = bisect.bisect_right(self._file_ends, index)
        before = self._file_ends[file - 1] if file else 0
        return str(Path(self.data_files[file]).resolve()), index - before

    def key(self, index: int) -> tuple[str, str]:
        """Return the data source and the id of a sample."""
        return _key(self.dataframe[index]["extra_info"])

    def index_of(self, data_source: str, sample_id: str) -> int:
        """Return where a sample of a data source stands; the first call reads the ids of all.

        Raises:
            ConfigError: if two samples of one data source share an id.
        """
        return self._places[data_source, sample_id]

    @functools.cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        places: dict[tuple[str, str], int] = {}
        for index, extra in enumerate(self.dataframe["extra_info"]):
            key = _key(extra)
            if (first := places.setdefault(key, index)) != index:
                (file, row), (other, other_row) = self.source(index), self.source(first)
                raise ConfigError(
                    f"{file}, row {row}: id={key[1]} is also the id of {other}, row {other_row}, of the data_source "
                    f"{key[0]}; give one of them another (data.train_files)"
                )
        return places

    def image(self, index: int) -> Image.Image:
        """Return the first image of a sample, decoded: the one that its boxes refer to.

        Raises:
            OSError: it cannot be read any more.
        """
        row = self.dataframe[index]
        return decode_image(_encoded(row[self.image_key][0], row["image_root"]))

    def _build_messages(self, example: dict[str, Any], key: str) -> list[dict[str, Any]]:
        root = example.pop("image_root")
        return with_images(example[key], [_encoded(image, root) for image in example.get(self.image_key) or []])

    @classmethod
    async def process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: Any
    ) -> tuple[list[Image.Image] | None, None, None]:
        """Decode the images of a conversation, in order, to RGB at their stored size; no videos, no audio."""
        images = [
            decode_image(part["image"])
            for message in messages
            if isinstance(message["content"], list)
            for part in message["content"]
            if part["type"] == "image"
        ]
        return images or None, None, None


def with_images(prompt: Sequence[Mapping[str, str]], images: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the conversation with its images in place of the `<image>`, each `{"bytes": …}` or `{"path": …}`."""
    waiting = iter(images)
    messages = []
    for message in prompt:
        parts = [part for part in re.split(f"({IMAGE_TAG})", message["content"]) if part]
        content: Any = message["content"]
        if IMAGE_TAG in parts:
            content = [
                {"type": "image", "image": next(waiting)} if part == IMAGE_TAG else {"type": "text", "text": part}
                for part in parts
            ]
        messages.append({"role": message["role"], "content": content})
    return messages


def _key(extra_info: Mapping[str, Any]) -> tuple[str, str]:
    sample = json.loads(extra_info["sample"])
    return sample["data_source"], sample["id"]


def _encoded(image: dict[str, Any], root: str) -> dict[str, Any]:
    if image.get("bytes"):
        return {"bytes": image["bytes"]}
    return {"path": os.path.join(root, image["path"])}
