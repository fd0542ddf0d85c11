"""SAM2 asked with boxes and points: one mask for each, from an embedding that serves all prompts about an image."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor
from transformers import Sam2Model

from vgr_rl.grounding import Rle, Size
from vgr_rl.segment.predict import sam2_pixels, to_rles

Prompt: TypeAlias = tuple[float, ...]
"""A box (x1, y1, x2, y2) or a point (x, y), in pixels of the upright image."""
_TOGETHER = 16  # masks that are held at the image's size; one of 12 megapixels takes 48 MB


class PromptedSam2:
    """A SAM2 model on one device.

    Args:
        model: folder or hub id, such as facebook/sam2-hiera-large.
        device: of torch.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self._model = Sam2Model.from_pretrained(model, dtype=dtype).to(device).eval()
        self._side = int(self._model.config.prompt_encoder_config.image_size)

    @torch.inference_mode()
    def embed(self, pictures: Sequence[Image.Image]) -> list[list[Tensor]]:
        """Run the image encoder on pictures together; return what it makes of each."""
        pixels = sam2_pixels(pictures, self._side).to(self._model.device, self._model.dtype)
        levels = self._model.get_image_embeddings(pixels)
        return [[level[place : place + 1] for level in levels] for place in range(len(pictures))]

    @torch.inference_mode()
    def masks(self, embedding: list[Tensor], size: Size, prompts: Sequence[Prompt]) -> list[Rle]:
        """Return the mask of each prompt about one image, at the image's size.

        Args:
            embedding: of the image, from `embed`.
            size: of the image, pixels.
            prompts: boxes and points.
        """
        found: dict[int, Rle] = {}
        for length in (4, 2):
            places = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
            for start in range(0, len(places), _TOGETHER):
                asked = places[start : start + _TOGETHER]
                logits = self._logits(embedding, size, [prompts[place] for place in asked])
                found |= dict(zip(asked, to_rles(logits, size), strict=True))
        return [found[place] for place in range(len(prompts))]

    def _logits(self, embedding: list[Tensor], size: Size, prompts: Sequence[Prompt]) -> Tensor:
        scale = torch.tensor([self._side / size.width, self._side / size.height])
        corners = torch.tensor(prompts, dtype=torch.float32).view(len(prompts), -1, 2) * scale
        corners = corners.to(self._model.device)[None]  # in bfloat16 they would move by up to 2 pixels of 1024
        if corners.shape[2] == 2:
            asked = {"input_boxes": corners.flatten(2)}
        else:
            asked = {"input_points": corners, "input_labels": corners.new_ones(corners.shape[:3], dtype=torch.int32)}
        logits: Tensor = self._model(image_embeddings=embedding, multimask_output=False, **asked).pred_masks
        return logits[0, :, 0]
