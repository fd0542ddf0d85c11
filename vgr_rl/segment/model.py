"""R-Sa2VA (arXiv 2512.05091): a vision-language model whose `[SEG]` tokens are decoded to masks by SAM2.

The last layer's hidden state AT a `[SEG]` is projected to one prompt of SAM2's mask decoder, after the empty point that
SAM2 itself puts where there are no points. SAM2's image encoder is frozen and knows nothing of the text: what it makes
of a picture serves every `[SEG]` of every response about it.

Shapes: B responses, L tokens, S `[SEG]` of all of them, I images, d the language model's width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    Sam2Config,
    Sam2Model,
)
from transformers.models.auto import CONFIG_MAPPING

from vgr_rl.grounding.trace import SEG
from vgr_rl.segment.auto import SPECIAL_TOKENS


class RSa2VAConfig(PreTrainedConfig):
    """Configuration of the parts.

    Attributes:
        vlm_config: of the vision-language model.
        sam2_config: of SAM2.
        seg_token_id: the id of `[SEG]`.
        multimask: whether a mask is the one of the decoder's three that it rates best, as in the released model, or
            its single one, which suits a decoder that starts without training.
    """

    model_type = "r_sa2va"
    sub_configs = {"vlm_config": AutoConfig, "sam2_config": Sam2Config}  # noqa: RUF012

    vlm_config: Any = None
    sam2_config: Any = None
    seg_token_id: int = 0
    multimask: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Make configurations of dictionaries."""
        if self.vlm_config is None:
            self.vlm_config = {"model_type": "qwen3_vl"}
        if isinstance(self.vlm_config, dict):
            self.vlm_config = CONFIG_MAPPING[self.vlm_config["model_type"]](**self.vlm_config)
        if not isinstance(self.sam2_config, PreTrainedConfig):
            self.sam2_config = Sam2Config(**(self.sam2_config or {}))
        super().__post_init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """Return the language model's configuration."""
        return self.vlm_config.get_text_config(*args, **kwargs)

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the head's weights are those of the embedding."""
        return bool(self.vlm_config.tie_word_embeddings)

    @property
    def vision_config(self) -> PreTrainedConfig:
        """Configuration of the vision tower."""
        return self.vlm_config.vision_config

    @property
    def image_token_id(self) -> int:
        """Token that stands for a patch of an image."""
        return int(self.vlm_config.image_token_id)

    @property
    def video_token_id(self) -> int:
        """Token that stands for a patch of a video."""
        return int(self.vlm_config.video_token_id)

    @property
    def vision_start_token_id(self) -> int:
        """Token before an image."""
        return int(self.vlm_config.vision_start_token_id)

    @property
    def vision_end_token_id(self) -> int:
        """Token after an image."""
        return int(self.vlm_config.vision_end_token_id)


_PIXELS = 2**20  # of the masks that are decoded at a time: what the decoder keeps of each is dozens of times as large

ImageFeatures = tuple[Tensor, ...]
"""What SAM2's frozen encoder makes of images: maps `[I, channels, height, width]`, the finest first."""


class RSa2VAOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        logits: of the next token, `[B, L, vocabulary]`.
        masks: logits of the masks, `[S, height, width]`, in the order of the responses and of their `[SEG]`.
        image_of_mask: which image each mask belongs to, `[S]`.
        image_features: what SAM2 made of the images; None if nothing was to be decoded.
    """

    logits: Tensor
    masks: Tensor
    image_of_mask: Tensor
    image_features: ImageFeatures | None = None


class RSa2VA(PreTrainedModel):
    """The model; `save_pretrained` and `from_pretrained` take all parts as one folder."""

    config_class = RSa2VAConfig
    base_model_prefix = "vlm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: RSa2VAConfig) -> None:
        super().__init__(config)
        self.vlm = AutoModelForImageTextToText.from_config(config.vlm_config)
        self.projector = _projector(config)
        self.sam2 = Sam2Model(config.sam2_config)
        self.post_init()

    @classmethod
    def from_parts(cls, vlm: PreTrainedModel, sam2: Sam2Model, tokenizer: Any, multimask: bool = True) -> "RSa2VA":
        """Compose the model of two trained parts, which become its own, and a new projector.

        `SPECIAL_TOKENS` are added to the tokenizer, and rows to the embeddings where they have no room for them.
        """
        tokenizer.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
        if len(tokenizer) > vlm.get_input_embeddings().num_embeddings:
            vlm.resize_token_embeddings(len(tokenizer))
        config = RSa2VAConfig(
            vlm_config=vlm.config.to_dict(),
            sam2_config=sam2.config.to_dict(),
            seg_token_id=tokenizer.convert_tokens_to_ids(SEG),
            multimask=multimask,
        )
        with torch.device("meta"):
            model = cls(config)
        model.vlm, model.sam2 = vlm, sam2.to(vlm.device, vlm.dtype)
        model.projector = _projector(config).to(vlm.device, vlm.dtype)
        return model

    @classmethod
    def from_checkpoints(
        cls, vlm: str | Path, sam2: str | Path, dtype: torch.dtype = torch.bfloat16
    ) -> tuple["RSa2VA", ProcessorMixin]:
        """Load the parts from folders or the hub, such as Qwen3-VL-4B-Instruct and sam2-hiera-large.

        Returns:
            The model, and the processor with `SPECIAL_TOKENS` in its tokenizer.
        """
        processor = AutoProcessor.from_pretrained(vlm)
        language = AutoModelForImageTextToText.from_pretrained(vlm, dtype=dtype)
        return cls.from_parts(language, Sam2Model.from_pretrained(sam2), processor.tokenizer), processor

    @property
    def picture_side(self) -> int:
        """Side of the pictures that SAM2 takes, pixels."""
        return int(self.sam2.config.prompt_encoder_config.image_size)

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's embedding."""
        return self.vlm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        return self.vlm.get_output_embeddings()

    def freeze(self, train_decoder: bool) -> None:
        """Let the projector train and, in SFT, the mask decoder, and nothing else; adapters come on top of it."""
        self.requires_grad_(False)
        self.projector.requires_grad_(True)
        self.sam2.mask_decoder.requires_grad_(train_decoder)

    def forward(
        self,
        input_ids: Tensor,
        image_of_seg: Tensor | None = None,
        image_features: ImageFeatures | None = None,
        sam2_pixels: Tensor | None = None,
        masks_only: bool = False,
        **vlm_inputs: Any,
    ) -> RSa2VAOutput:
        """Read prompts with responses, and decode every `[SEG]` of the responses.

        Args:
            input_ids: `[B, L]`; or `[1, L]` of all responses, one behind the other.
            image_of_seg: at each `[SEG]` of a response the image it is about, -1 at any other token, `[B, L]`: a
                `[SEG]` of a prompt is no mask. None decodes nothing.
            image_features: of the first images, from `embed_images`.
            sam2_pixels: the other images, for `embed_images`; without any image nothing may be decoded, and the mask
                decoder, which has to be frozen, does not run.
            masks_only: whether to leave out the logits of the next token, which are then of no token.
            vlm_inputs: what else the processor gives: attention_mask, pixel_values, image_grid_thw.
        """
        hidden = self.vlm.model(input_ids=input_ids, **vlm_inputs).last_hidden_state
        logits = self.vlm.lm_head(hidden[:, :0] if masks_only else hidden)
        if image_of_seg is None:
            return RSa2VAOutput(logits, hidden.new_zeros(0, 0, 0), input_ids.new_zeros(0))
        given = [] if image_features is None else [image_features]
        given += [] if sam2_pixels is None else [self.embed_images(sam2_pixels)]
        features = tuple(torch.cat(level) for level in zip(*given, strict=True)) if given else None
        rows, columns = (image_of_seg >= 0).nonzero(as_tuple=True)
        image_of_mask = image_of_seg[rows, columns]
        masks = self.decode_masks(hidden[rows, columns], features, image_of_mask)
        return RSa2VAOutput(logits, masks, image_of_mask, features)

    @torch.no_grad()
    def embed_images(self, pixels: Tensor) -> ImageFeatures:
        """Run SAM2's image encoder, once for each image.

        Args:
            pixels: from `sam2_pixels`, `[I, 3, side, side]`.
        """
        return tuple(self.sam2.vision_encoder(pixels.to(next(self.sam2.parameters()))).fpn_hidden_states)

    def decode_masks(self, seg_states: Tensor, features: ImageFeatures | None, image_of_seg: Tensor) -> Tensor:
        """Decode hidden states of `[SEG]` to logits of masks, `[S, height, width]`.

        Args:
            seg_states: `[S, d]`.
            features: of the images; None without any, when S is 0.
            image_of_seg: which image each belongs to, `[S]`.
        """
        if not len(seg_states):  # a worker without [SEG] runs what the others train, and has gradients of 0
            idle = seg_states.new_zeros(1, seg_states.shape[1])
            if features is None:
                return self.projector(idle.to(next(self.projector.parameters())))[:0, None]
            return self.decode_masks(idle, features, image_of_seg.new_zeros(1))[:0]
        assert features is not None, "a [SEG] to decode is about an image"
        prompts = self.projector(seg_states.to(next(self.projector.parameters())))
        finest, fine, coarse = features
        decoder = self.sam2.mask_decoder
        maps = (decoder.conv_s0(finest), decoder.conv_s1(fine), coarse)
        count = max(1, _PIXELS // (4 * coarse.shape[-1]) ** 2)
        parts = zip(prompts.split(count), image_of_seg.split(count), strict=True)
        return torch.cat([self._decode(own, [level[image] for level in maps]) for own, image in parts])

    def _decode(self, prompts: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Decode `[n, width]` prompts, each about an image of its own, to `[n, height, width]`."""
        sam2, decoder = self.sam2, self.sam2.mask_decoder
        decoder.dynamic_multimask_via_stability = False  # would take masks in inference that training never asked for
        points = prompts.new_zeros(1, 1, 1, 2)
        empty, dense = sam2.prompt_encoder(points, points.new_full((1, 1, 1), -1, dtype=torch.int32), None, None)
        finest, fine, coarse = maps
        masks, ious, _, _ = decoder(
            image_embeddings=coarse + sam2.no_memory_embedding.reshape(1, -1, 1, 1),
            image_positional_embeddings=sam2.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=torch.cat([empty[0].expand(len(prompts), -1, -1), prompts[:, None]], 1)[:, None],
            dense_prompt_embeddings=dense,
            multimask_output=self.config.multimask,
            high_resolution_features=[finest, fine],
        )
        best = ious[:, 0].argmax(-1)
        return masks[torch.arange(len(prompts), device=best.device), 0, best]


def _projector(config: RSa2VAConfig) -> nn.Sequential:
    width, prompt = config.get_text_config().hidden_size, config.sam2_config.prompt_encoder_config.hidden_size
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, prompt))
