"""The tokens that only the processor may write: image and video placeholders and their boundaries."""

from typing import Any

_PLACEHOLDER_NAMES = ("image", "video", "vision_start", "vision_end")
_PLACEHOLDER_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_pad|>", "<|vision_start|>", "<|vision_end|>")


def banned_token_ids(processor: Any) -> list[int]:
    """Return the ids that a policy must neither sample nor give probability to, sorted; empty for a text model.

    A sampled placeholder has no image behind it, so the k-th run of placeholders no longer pairs with the k-th image:
    the forward pass of the update crashes, hundreds of steps into a run. The ids are banned in the rollouts and in the
    actor's log-probs alike; otherwise the two would be different distributions.

    Args:
        processor: A Hugging Face processor with a `tokenizer`, or None.
    """
    if processor is None:
        return []
    ids = {getattr(processor, f"{name}_token_id", None) for name in _PLACEHOLDER_NAMES}
    vocabulary = processor.tokenizer.get_vocab()
    ids |= {vocabulary.get(token) for token in _PLACEHOLDER_TOKENS}
    return sorted(int(token_id) for token_id in ids if token_id is not None)
