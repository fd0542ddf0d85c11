"""From a picture and a question to text and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vgr_rl.grounding import ImageGeometry, Rle, Size, parse_trace
from vgr_rl.grounding.masks import encode
from vgr_rl.segment.model import ImageFeatures, RSa2VA

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass(frozen=True, slots=True)
class SegmentedResponse:
    """A response with its masks, at the size of the picture.

    Attributes:
        text: the response.
        masks: one for each `[SEG]`.
        reasoning: those before the only answer.
        answer: those inside it.
        length: tokens, with the one that ends it.
        truncated: whether that one is missing.
    """

    text: str
    masks: tuple[Rle, ...]
    reasoning: tuple[Rle, ...]
    answer: tuple[Rle, ...]
    length: int
    truncated: bool


def sam2_picture(picture: Image.Image, side: int) -> Tensor:
    """Resize a picture straight to `side` x `side`, whatever its shape; `[3, side, side]`, uint8."""
    resized = np.array(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).permute(2, 0, 1).contiguous()


def normalised(pictures: Tensor) -> Tensor:
    """Return what SAM2 takes of pictures from `sam2_picture`, `[I, 3, side, side]`, float32."""
    mean, std = (pictures.new_tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (_MEAN, _STD))
    return (pictures.float() / 255 - mean) / std


def sam2_pixels(pictures: Sequence[Image.Image], side: int) -> Tensor:
    """Return what SAM2 takes of pictures, `[I, 3, side, side]`, float32."""
    return normalised(torch.stack([sam2_picture(picture, side) for picture in pictures]))


def to_rles(logits: Tensor, size: Size | None = None) -> list[Rle]:
    """Cut mask logits `[S, height, width]` at 0; as they are, or interpolated to the size of the picture."""
    if not len(logits):
        return []
    if size is not None:
        logits = F.interpolate(logits[:, None].float(), (size.height, size.width), mode="bilinear")[:, 0]
    return encode((logits > 0).cpu().numpy())


@torch.inference_mode()
def predict(
    model: RSa2VA,
    processor: Any,
    picture: Image.Image,
    question: str,
    system_prompt: str = "",
    features: ImageFeatures | None = None,
    **generation: Any,
) -> SegmentedResponse:
    """Answer a question about a picture.

    Args:
        model: the model.
        processor: of its vision-language model, with `SPECIAL_TOKENS` in its tokenizer.
        picture: upright.
        question: the text.
        system_prompt: put before it unless empty.
        features: of the picture, if they are known; see `RSa2VA.embed_images`.
        generation: for `generate`; by default greedy, at most 1024 tokens.
    """
    if features is None:
        features = model.embed_images(sam2_pixels([picture], model.picture_side).to(model.device))
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [*system, {"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[prompt], images=[picture.convert("RGB")], return_tensors="pt").to(model.device)
    end = processor.tokenizer.eos_token_id
    options = {"max_new_tokens": 1024, "do_sample": False, "eos_token_id": end, **generation}
    tokens = model.vlm.generate(**inputs, **options)
    start = inputs["input_ids"].shape[1]
    logits = _masks(model, inputs, tokens, start, features)
    response = tokens[0, start:].tolist()
    ended = response[-1] == end
    text = processor.tokenizer.decode(response[:-1] if ended else response, skip_special_tokens=False)
    size = Size(*picture.size)
    masks = to_rles(logits, size)
    trace = parse_trace(text, ImageGeometry(size, size), "orig_px", masks=masks)
    assert trace.segs == len(masks), "each [SEG] token is one mask"
    reasoning, answer = (tuple(masks[n] for n in chosen) for chosen in (trace.seg_reasoning, trace.seg_answer))
    return SegmentedResponse(text, tuple(masks), reasoning, answer, len(response), not ended)


def _masks(model: RSa2VA, inputs: Any, tokens: Tensor, start: int, features: ImageFeatures) -> Tensor:
    """Read the response once more with the pass that training uses, and decode its masks."""
    is_seg = tokens == model.config.seg_token_id
    is_seg[:, :start] = False
    grown = {
        name: F.pad(value, (0, tokens.shape[1] - start), value=int(name == "attention_mask"))
        for name, value in inputs.items()
        if name in ("attention_mask", "mm_token_type_ids")
    }
    vision = {name: value for name, value in inputs.items() if name not in ("input_ids", *grown)}
    return model(tokens, is_seg.long() - 1, features, **grown, **vision).masks
