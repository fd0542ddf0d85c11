"""What vLLM loads of the policy: of R-Sa2VA the vision-language model, which knows `[SEG]` as a token."""

from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vgr_rl.segment.auto import MODEL_TYPE


def served_part(model: Any, load_format: str, folder: Path) -> Any:
    """Point verl's model configuration at the part that vLLM serves.

    The folder holds no weights: they come from the policy, before the first rollout.

    Args:
        model: verl's `HFModelConfig`, changed in place for R-Sa2VA.
        load_format: `actor_rollout_ref.rollout.load_format`.
        folder: where it is written; made here, and removed by whoever names it.

    Raises:
        ValueError: if vLLM shall read weights of R-Sa2VA.
    """
    if model.hf_config.model_type != MODEL_TYPE:
        return model
    if load_format != "dummy":
        raise ValueError(
            f"actor_rollout_ref.rollout.load_format={load_format} but vLLM gets the weights of R-Sa2VA from the "
            "policy; set it to dummy"
        )
    served = model.hf_config.vlm_config
    served.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[served.model_type]]
    served.save_pretrained(folder)
    model.get_processor().save_pretrained(folder)
    model.hf_config, model.local_path, model.local_hf_config_path = served, str(folder), str(folder)
    return model
