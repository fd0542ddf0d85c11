"""What a checkpoint says about itself without loading its weights: family, frame, resize rule, vision tokens."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgr_rl.errors import ConfigError
from vgr_rl.grounding.frames import FRAMES, Frame, model_frame
from vgr_rl.grounding.geometry import ResizeRule

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
VISION_TOKEN_KEYS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def is_local(path: str) -> bool:
    """Say whether a model is meant as a folder: it exists, its parent does, or it has not the form of a hub id."""
    folder = Path(path).expanduser()
    return folder.exists() or not _HUB_ID.fullmatch(path) or ("/" in path and folder.parent.is_dir())


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The facts about a vision-language checkpoint that the trainer needs before workers start.

    Attributes:
        path: folder or hub id.
        model_type: Hugging Face model family, such as `qwen2_5_vl`.
        architecture: class name of the checkpoint.
        frame: frame of the boxes the model writes.
        resize_rule: how its image processor resizes.
        vision_token_ids: tokens that stand for pixels and must never be sampled.
        hf_config: the whole config as a plain dictionary.
    """

    path: str
    model_type: str
    architecture: str
    frame: Frame
    resize_rule: ResizeRule
    vision_token_ids: tuple[int, ...]
    hf_config: dict[str, Any]

    @classmethod
    def load(
        cls, path: str, frame: str = "auto", min_pixels: int | None = None, max_pixels: int | None = None
    ) -> "ModelSpec":
        """Read config and image processor of a checkpoint.

        Args:
            path: folder or hub id (`model.path`).
            frame: one of the frames, or `auto` to decide by family (`model.frame`).
            min_pixels: overrides the processor's smallest area, square pixels (`model.min_pixels`).
            max_pixels: overrides its largest area (`model.max_pixels`).

        Raises:
            ConfigError: no checkpoint there, not a vision-language one, or a family whose frame is unknown.
        """
        from transformers import AutoConfig, AutoImageProcessor

        from vgr_rl.segment import auto

        folder = os.path.expanduser(path)
        if is_local(path) and not (Path(folder) / "config.json").is_file():
            hint = f"; did you mean {trained}?" if (trained := Path(path) / "model").is_dir() else ""
            raise ConfigError(f"model.path={path} but there is no config.json in that folder{hint}")
        auto.register(folder)
        try:
            hf_config = AutoConfig.from_pretrained(folder)
            image_processor = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.path={path} is no folder here, and could not be read as a hub id of a vision-language "
                f"checkpoint: {error}"
                if not Path(folder).exists()
                else f"model.path={path} cannot be read as a vision-language checkpoint: {error}"
            ) from error
        token_ids = tuple(int(getattr(hf_config, key)) for key in VISION_TOKEN_KEYS if hasattr(hf_config, key))
        if not token_ids:
            raise ConfigError(f"model.path={path} ({hf_config.model_type}) has no image tokens: not a vision model")
        if frame != "auto" and frame not in FRAMES:
            raise ConfigError(f"model.frame={frame} but expected auto or one of {', '.join(FRAMES)}")
        family = getattr(hf_config, "vlm_config", hf_config).model_type
        try:
            resolved: Frame = model_frame(family) if frame == "auto" else frame  # type: ignore[assignment]
            rule = ResizeRule.from_image_processor(image_processor)
            rule = ResizeRule(rule.factor, min_pixels or rule.min_pixels, max_pixels or rule.max_pixels)
        except ValueError as error:
            raise ConfigError(f"model.path={path}: {error}") from error
        architectures = hf_config.architectures or ["unknown"]
        return cls(path, hf_config.model_type, architectures[0], resolved, rule, token_ids, hf_config.to_dict())
