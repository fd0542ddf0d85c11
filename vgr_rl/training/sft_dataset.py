"""The data set of the cold start, given to verl's SFT trainer through `data.custom_cls`.

It replaces verl's own for three reasons: images are resized by the processor alone (verl resizes once before, with
other limits), each image is processed once a sample instead of twice, and tokens and positions are those of a rollout.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vgr_rl.data.images import decode_image
from vgr_rl.data.schema import SftRow
from vgr_rl.training.chat_encoding import ChatEncoder
from vgr_rl.training.sft_rows import SftTable


class ColdStartDataset(Dataset):
    """Conversations with images, encoded when they are asked for.

    An item is `input_ids` [l], `loss_mask` [l], `position_ids` [4, l] (text, then time, height, width) and
    `multi_modal_inputs` with `pixel_values` [patches, values] and `image_grid_thw` [images, 3].
    """

    def __init__(
        self,
        parquet_files: str | Sequence[str],
        tokenizer: Any,
        config: Any,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        if processor is None:
            raise ValueError("model.path has no processor; a vision-language checkpoint is needed")
        files = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        self.table = SftTable(files, max_samples)
        self.processor = processor
        self.max_length = config.max_length
        self.encoder = ChatEncoder(processor, config.prefill or "", config.loss_on_prefill)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.table[index]
        return self.item(row, [decode_image(image) for image in row.images], self.table.name(index))

    def item(self, row: SftRow, images: list[Image.Image], name: str) -> dict[str, Any]:
        """Return the item of a row with decoded images; errors call it `name`."""
        image_processor = self.processor.image_processor
        vision = dict(image_processor(images=images, return_tensors="pt"))
        tokens = vision["image_grid_thw"].prod(dim=-1) // image_processor.merge_size**2
        encoded = self.encoder.encode(row.messages, tokens.tolist())
        if len(encoded.input_ids) > self.max_length:
            raise ValueError(f"data.max_length={self.max_length} but {name} has {len(encoded.input_ids)} tokens")
        input_ids = torch.tensor(encoded.input_ids)
        return {
            "input_ids": input_ids,
            "loss_mask": torch.tensor(encoded.loss_mask),
            "position_ids": self._position_ids(input_ids, vision["image_grid_thw"]),
            "multi_modal_inputs": vision,
        }

    def _position_ids(self, input_ids: Tensor, image_grid_thw: Tensor) -> Tensor:
        is_image = (input_ids == self.processor.image_token_id).long()
        vision_positions, _ = self.processor.get_rope_index(  # bound to the processor by verl, from the model's class
            input_ids=input_ids[None],
            attention_mask=torch.ones_like(input_ids)[None],
            image_grid_thw=image_grid_thw,
            mm_token_type_ids=is_image[None],
        )
        return torch.cat([torch.arange(len(input_ids))[None], vision_positions[:, 0]])
