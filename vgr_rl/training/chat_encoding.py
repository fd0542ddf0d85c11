"""A conversation with images as the token ids that the next stage will see, with a mask of what carries loss.

The response is tokenised as a rollout meets it: prompt, prefill and the rest each on their own, ended by the end token,
without the newline that chat templates put after it. Loss falls on what the policy would sample: every assistant turn
from its first token to its end token, with or without the prefill.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and loss mask of one conversation, both of its length; the mask holds 0 and 1."""

    input_ids: list[int]
    loss_mask: list[int]

    def count(self, token_id: int) -> int:
        """Return how often a token stands under loss."""
        return sum(mask for token, mask in zip(self.input_ids, self.loss_mask, strict=True) if token == token_id)


@dataclass(frozen=True, slots=True)
class ChatEncoder:
    """Encodes conversations for one checkpoint.

    Attributes:
        processor: Hugging Face processor with `tokenizer`, a chat template and `image_token`.
        prefill: literal text that starts every response and is tokenised on its own; may be empty.
        loss_on_prefill: whether the prefill's tokens carry loss.
    """

    processor: Any
    prefill: str
    loss_on_prefill: bool

    def encode(self, messages: Sequence[dict[str, str]], image_tokens: Sequence[int]) -> Encoded:
        """Tokenise one conversation.

        Args:
            messages: role and content; the content of a user turn holds `<image>` where an image stands.
            image_tokens: number of tokens of each image, in order.

        Raises:
            ValueError: images and placeholders do not match, or the chat template rewrites earlier turns.
        """
        tokenizer, image_token = self.processor.tokenizer, self.processor.image_token
        counts = list(image_tokens)
        input_ids: list[int] = []
        loss_mask: list[int] = []
        for text, has_loss in self._pieces(messages):
            parts = text.split(image_token)
            if len(parts) - 1 > len(counts) or (has_loss and len(parts) > 1):
                raise ValueError(f"{image_token!r} stands in the text; write {IMAGE_PLACEHOLDER} in a user's turn")
            expanded = parts[0] + "".join(image_token * counts.pop(0) + part for part in parts[1:])
            ids = tokenizer(expanded, add_special_tokens=False)["input_ids"]
            input_ids += ids
            loss_mask += [int(has_loss)] * len(ids)
        if counts:
            raise ValueError(f"{len(image_tokens)} images but {len(image_tokens) - len(counts)} {IMAGE_PLACEHOLDER}")
        return Encoded(input_ids, loss_mask)

    def _pieces(self, messages: Sequence[dict[str, str]]) -> list[tuple[str, bool]]:
        end = self.processor.tokenizer.eos_token
        chat = [{"role": message["role"], "content": _parts(message["content"])} for message in messages]
        done, pieces = "", []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self.processor.apply_chat_template(chat[:turn], add_generation_prompt=True, tokenize=False)
            if not prompt.startswith(done):
                raise ValueError(f"the chat template rewrites turns before turn {turn}; keep one response a row")
            response = message["content"]
            pieces.append((prompt[len(done) :], False))
            if self.prefill and response.startswith(self.prefill):
                pieces.append((self.prefill, self.loss_on_prefill))
                response = response.removeprefix(self.prefill)
            pieces.append((response + end, True))
            done = prompt + message["content"] + end
        return pieces


def _parts(content: str) -> list[dict[str, str]]:
    return [
        {"type": "image"} if part == IMAGE_PLACEHOLDER else {"type": "text", "text": part}
        for part in re.split(f"({IMAGE_PLACEHOLDER})", content)
        if part
    ]
