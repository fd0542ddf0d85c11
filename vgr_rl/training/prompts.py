"""A prompt, encoded once for all rollouts of its group and for the policy's update.

Axes in shapes: L prompt tokens, P image patches of the prompt, D features of a patch, I images.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

_TEXT_ONLY_OUTPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What one call of the processor gives.

    Attributes:
        token_ids: L ids, placeholders expanded, prefill included.
        features: The vision inputs of the model, e.g. pixel_values (P, D) and image_grid_thw (I, 3); empty for text.
        position_ids: (4, L) for mRoPE (text, then time, height, width), (L,) otherwise.
        image_ids: I identifiers, new for every encoding: what an inference engine may use as a cache key.
    """

    token_ids: list[int]
    features: dict[str, torch.Tensor]
    position_ids: torch.Tensor
    image_ids: tuple[str, ...]


def extend_position_ids(position_ids: torch.Tensor, count: int) -> torch.Tensor:
    """Append the position ids of `count` text tokens to (4, L) or (L,) position ids: (4, L + count) or (L + count,).

    Every vision axis counts on from the largest position so far, as in the models' own `get_rope_index`; the text axis
    counts on from its last.
    """
    steps = torch.arange(1, count + 1)
    if position_ids.dim() == 1:
        return torch.cat([position_ids, position_ids[-1] + steps])
    text = position_ids[:1, -1:] + steps
    vision = (position_ids[1:].max() + steps).expand(3, -1)
    return torch.cat([position_ids, torch.cat([text, vision])], dim=1)


class PromptEncoder:
    """Turns chat messages and decoded images into model inputs, with one call of the processor."""

    def __init__(
        self,
        processor: Any,
        *,
        prefill: str,
        max_prompt_tokens: int,
        chat_template_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
    ):
        """Wrap a processor.

        Args:
            processor: A Hugging Face processor; verl binds the model's `get_rope_index` to it.
            prefill: Literal text behind the generation prompt, e.g. `<think>`; may be empty.
            max_prompt_tokens: Longest prompt, image tokens and prefill included.
            chat_template_kwargs: Variables for the chat template.
            processor_kwargs: Keyword arguments of every processor call.
        """
        self._processor = processor
        # on its own, as the rest of a response is: what the policy saw in the cold start and sees in a rollout
        self._prefill_ids = processor.tokenizer(prefill, add_special_tokens=False)["input_ids"] if prefill else []
        self._max_prompt_tokens = max_prompt_tokens
        self._chat_template_kwargs = dict(chat_template_kwargs or {})
        self._processor_kwargs = dict(processor_kwargs or {})

    def encode(self, messages: Sequence[dict[str, Any]], images: Sequence[Image.Image]) -> EncodedPrompt:
        """Encode one prompt.

        Args:
            messages: Chat messages; image parts are `{"type": "image", ...}` and are filled from `images` in order.
            images: Decoded RGB images at their stored size. Only the processor resizes.

        Raises:
            ValueError: The prompt is longer than `data.max_prompt_length`.
        """
        text = self._processor.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **self._chat_template_kwargs
        )
        output = self._processor(
            text=[text], images=list(images) or None, return_tensors="pt", **self._processor_kwargs
        )
        token_ids = output["input_ids"][0].tolist() + self._prefill_ids
        if len(token_ids) > self._max_prompt_tokens:
            raise ValueError(
                f"data.max_prompt_length={self._max_prompt_tokens} but a prompt with images of "
                f"{[image.size for image in images]} pixels needs {len(token_ids)} tokens; raise it or lower the "
                "processor's max_pixels"
            )
        return EncodedPrompt(
            token_ids=token_ids,
            features={name: value for name, value in output.items() if name not in _TEXT_ONLY_OUTPUTS},
            position_ids=extend_position_ids(self._position_ids(output), len(self._prefill_ids)),
            image_ids=tuple(uuid.uuid4().hex for _ in images),
        )

    def _position_ids(self, output: Any) -> torch.Tensor:
        input_ids = output["input_ids"]
        text = torch.arange(input_ids.shape[1])
        if not hasattr(self._processor, "get_rope_index"):
            return text
        kwargs = {name: output.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        if "mm_token_type_ids" in output:
            kwargs["mm_token_type_ids"] = output["mm_token_type_ids"]
        vision, _ = self._processor.get_rope_index(
            input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **kwargs
        )
        return torch.cat([text.unsqueeze(0), vision[:, 0]])
