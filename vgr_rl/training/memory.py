"""The sizes of a model and the formulas for the memory it takes (docs/memory.md). Estimates, not promises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2}
COMPONENTS = ("vision", "language", "head")
_MOMENTS = 2  # of Adam

Parts = Mapping[str, int]
"""Bytes by part."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """The sizes of a vision-language model that the formulas need.

    Attributes:
        layers: decoder layers.
        hidden: width of the decoder.
        feed_forward: width of its feed-forward layers; of a mixture, of the experts that a token visits.
        vocabulary: tokens.
        kv_width: width of the keys (and of the values) that a layer caches for a token.
        q_width: width of its queries.
        vision_layers: layers of the vision tower.
        vision_hidden: its width.
        vision_feed_forward: width of its feed-forward layers.
        patches: patches of an image that become one token.
    """

    layers: int
    hidden: int
    feed_forward: int
    vocabulary: int
    kv_width: int
    q_width: int
    vision_layers: int
    vision_hidden: int
    vision_feed_forward: int
    patches: int

    @classmethod
    def of(cls, hf_config: Any) -> "Shapes":
        """Read them from a Hugging Face config of the Qwen-VL families."""
        text, vision = hf_config.get_text_config(), hf_config.vision_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        experts = getattr(text, "num_experts_per_tok", 0)
        vision_hidden = getattr(vision, "embed_dim", vision.hidden_size)
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            feed_forward=experts * text.moe_intermediate_size if experts else text.intermediate_size,
            vocabulary=text.vocab_size,
            kv_width=head * text.num_key_value_heads,
            q_width=head * text.num_attention_heads,
            vision_layers=vision.depth,
            vision_hidden=vision_hidden,
            vision_feed_forward=getattr(vision, "intermediate_size", 4 * vision_hidden),
            patches=vision.spatial_merge_size**2,
        )

    def adapters(self, rank: int) -> int:
        """Return how many parameters LoRA of this rank adds to the decoder's linear layers."""
        attention = 2 * (self.hidden + self.q_width) + 2 * (self.hidden + self.kv_width)
        return rank * self.layers * (attention + 3 * (self.hidden + self.feed_forward))

    def largest_unit(self, counts: Mapping[str, int]) -> int:
        """Return the parameters that FSDP gathers at a time: a decoder layer, or the embeddings."""
        embeddings = self.vocabulary * self.hidden
        return max(embeddings, (counts["language"] - embeddings) // self.layers)

    def cache_a_token(self, value_bytes: int) -> int:
        """Return the bytes of keys and values that the rollout engine keeps for a token."""
        return 2 * self.layers * self.kv_width * value_bytes

    def activations(self, tokens: int, image_tokens: int, value_bytes: int, checkpointing: bool) -> int:
        """Return the bytes that a forward pass keeps for its backward pass, without the logits.

        A layer keeps 16 x hidden + 4 x feed_forward values a token; with gradient checkpointing its input alone, and
        one layer at a time is computed again.
        """
        decoder = _kept(tokens, self.layers, self.hidden, self.feed_forward, checkpointing)
        patches = image_tokens * self.patches
        vision = _kept(patches, self.vision_layers, self.vision_hidden, self.vision_feed_forward, checkpointing)
        return (decoder + vision) * value_bytes

    def logits(self, tokens: int, value_bytes: int) -> int:
        """Return the bytes of the logits, their gradient and their log-softmax in float32."""
        return tokens * self.vocabulary * (2 * value_bytes + 4)


@dataclass(frozen=True, slots=True)
class Training:
    """How a model is trained, as far as memory depends on it.

    Attributes:
        workers: processes that FSDP shards over.
        lora_rank: of the adapters that train; 0: the weights train.
        frozen: components that do not train.
        state_bytes: of a stored weight, a gradient and a moment.
        value_bytes: of a value in the forward pass.
        tokens: of a micro-batch.
        image_tokens: how many of these stand for images.
        checkpointing: whether layers are computed again in the backward pass.
        beside_adapters: parameters that train with or without adapters; None: no others do with adapters, and what is
            not frozen does without.
    """

    workers: int
    lora_rank: int
    frozen: frozenset[str]
    state_bytes: int
    value_bytes: int
    tokens: int
    image_tokens: int
    checkpointing: bool
    beside_adapters: int | None = None

    def state(self, shapes: Shapes, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the bytes of a worker's shard of the weights, the gradients and Adam's moments."""
        total, adapters = sum(counts.values()), shapes.adapters(self.lora_rank)
        if self.beside_adapters is not None:
            trained = adapters + self.beside_adapters
        else:
            trained = adapters or sum(count for part, count in counts.items() if part not in self.frozen)
        return {
            "weights": (total + adapters) * self.state_bytes // self.workers,
            "gradients": trained * self.state_bytes // self.workers,
            "optimiser": trained * self.state_bytes * _MOMENTS // self.workers,
        }

    def one_pass(self, shapes: Shapes, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the bytes that a forward and backward pass takes of a worker."""
        unit = shapes.largest_unit(counts) if self.workers > 1 else 0
        return {
            "gathered layers": 2 * unit * self.value_bytes,  # one computes while the next one arrives
            "activations": shapes.activations(self.tokens, self.image_tokens, self.value_bytes, self.checkpointing),
            "logits": shapes.logits(self.tokens, self.value_bytes),
        }


def value_bytes(dtype: Any) -> int:
    """Return the bytes of a value of a number type, by its name in a configuration; 2 for one not known here."""
    return BYTES.get(str(dtype), 2)


def _kept(tokens: int, layers: int, hidden: int, feed_forward: int, checkpointing: bool) -> int:
    layer = tokens * (16 * hidden + 4 * feed_forward)
    return layers * tokens * hidden + layer if checkpointing else layers * layer


def human(count: int) -> str:
    """Return a number of bytes with a unit, such as `1.5 GiB`."""
    value: float = count
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def count_parameters(hf_config: Any) -> dict[str, int]:
    """Count the parameters of a checkpoint by component (`vision`, `language`, `head`) without its weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(hf_config)
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[parameter_component(name)] += parameter.numel()
    return counts


def count_language_model(hf_config: Any) -> int:
    """Count the parameters of a language model's checkpoint without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config)
    return sum(parameter.numel() for parameter in model.parameters())


def parameter_component(name: str) -> str:
    """Return the component that a parameter belongs to, by its name in the Hugging Face model.

    `vision` is the vision tower with its merger (R-Sa2VA: and SAM2), `head` the output embedding, `language` the rest.
    """
    if "visual" in name or name.startswith("sam2."):
        return "vision"
    return "head" if name.removeprefix("vlm.").startswith("lm_head") else "language"
