"""A small byte-fallback tokenizer whose words are those of the tiny world and whose numbers are one token each.

It is an ordinary fast tokenizer with Qwen's special tokens. Text that it was not built for (questions about
photographs, numbers out of range) falls back to bytes, so every text survives encoding and decoding unchanged.
"""

from typing import TYPE_CHECKING

from vgr_rl.tiny.world import COLOURS, LETTERS, SHAPES, SIDE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD)

# Every coordinate of a picture of up to 256 px, and every coordinate of the tiny world in thousandths of its side.
INTEGERS = tuple(sorted({*range(257), *(round(1000 * pixel / SIDE) for pixel in range(SIDE + 1))}))

_TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<box>[", " <box>[", "]</box>")
_PIECES = r" ?<box>\[|\]</box>|</?[a-z]+>|\n| ?[A-Za-z]+|\d+| |[^\sA-Za-z0-9]"
_WORDS = """
    system user assistant You are a helpful assistant yes no What colour is the object It on to at left right or of
    How many objects there There are A The Wait this box seems be wrong
"""

# Qwen's chat format without the built-in system prompt of the released models.
CHAT_TEMPLATE = """\
{%- macro content_of(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + content_of(message.content) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def words() -> list[str]:
    """Pieces that have a token of their own, in vocabulary order, special tokens and single bytes left out."""
    plain = dict.fromkeys([*_WORDS.split(), *SHAPES, *COLOURS, *LETTERS])
    spaced = [f" {word}" for word in plain]
    return [*_TAGS, *(word for word in plain if len(word) > 1), *spaced, *(str(n) for n in INTEGERS if n > 9)]


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Build the tokenizer of the tiny models, a `PreTrainedTokenizerFast` with the chat template set."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    encoded = ["".join(piece for piece, _ in byte_level.pre_tokenize_str(word)) for word in words()]
    units = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *encoded]
    vocabulary = {unit: index for index, unit in enumerate(units)}
    assert len(vocabulary) == len(units), "every token is listed once"

    # `ignore_merges` makes a piece that stands in the vocabulary one token; any other piece stays a run of bytes.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
