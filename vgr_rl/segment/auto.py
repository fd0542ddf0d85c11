"""R-Sa2VA for transformers' Auto classes; imports neither them nor torch until a folder holds such a model."""

import json
from pathlib import Path

from vgr_rl.grounding.trace import SEG

MODEL_TYPE = "r_sa2va"
SPECIAL_TOKENS = (SEG, "<p>", "</p>", "<vp>", "</vp>")
"""What its tokenizer has beside its vision-language model's."""


def is_r_sa2va(model: str | Path) -> bool:
    """Say whether a model is a local folder with an R-Sa2VA."""
    config = Path(model).expanduser() / "config.json"
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE


def register(model: str | Path | None = None) -> None:
    """Teach the Auto classes R-Sa2VA, if the folder `model` holds one (or whatever it holds, for None)."""
    if model is not None and not is_r_sa2va(model):
        return
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vgr_rl.segment.model import RSa2VA, RSa2VAConfig

    AutoConfig.register(MODEL_TYPE, RSa2VAConfig, exist_ok=True)
    AutoModelForImageTextToText.register(RSa2VAConfig, RSa2VA, exist_ok=True)
