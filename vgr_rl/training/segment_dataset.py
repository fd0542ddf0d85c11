"""The data set of R-Sa2VA's cold start: conversations with the true mask of each `[SEG]`."""

from typing import Any

from PIL import Image

from vgr_rl.data.schema import SftRow
from vgr_rl.segment.predict import sam2_pixels
from vgr_rl.training.sft_dataset import ColdStartDataset


class MaskedColdStartDataset(ColdStartDataset):
    """As `ColdStartDataset`, with the first image as SAM2 takes it, and the masks as run lengths.

    An item also has `multi_modal_inputs.sam2_pixels` [1, 3, side, side] and `true_masks`, {"rles": one a `[SEG]`}.
    """

    def item(self, row: SftRow, images: list[Image.Image], name: str) -> dict[str, Any]:
        """Return the item of a row with decoded images; errors call it `name`."""
        item = super().item(row, images, name)
        side = self.processor.config.sam2_config.prompt_encoder_config.image_size  # verl binds the model's config
        item["multi_modal_inputs"]["sam2_pixels"] = sam2_pixels(images[:1], side)
        return {**item, "true_masks": {"rles": row.masks or []}}
