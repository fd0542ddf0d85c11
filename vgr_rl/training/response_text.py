"""The text of a response: `[SEG]` and its companions are part of it, the tokens of a chat are not."""

from collections.abc import Sequence
from typing import Any

from vgr_rl.segment.auto import SPECIAL_TOKENS


class ResponseDecoder:
    """Decodes token ids as `skip_special_tokens` does, except that `SPECIAL_TOKENS` of R-Sa2VA are kept.

    Args:
        tokenizer: Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._left_out = {
            token_id
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special and token.content not in SPECIAL_TOKENS
        }

    def __call__(self, token_ids: Sequence[int]) -> str:
        """Return the text of a response."""
        kept = [token_id for token_id in token_ids if token_id not in self._left_out]
        text: str = self._tokenizer.decode(kept, skip_special_tokens=False)
        return text
