"""Files of a cold start: parquet as it is, ShareGPT json converted."""

from pathlib import Path

from vgr_rl.data.schema import write_sft
from vgr_rl.data.sharegpt import read_conversations
from vgr_rl.errors import ConfigError
from vgr_rl.training.model_spec import ModelSpec


def to_parquet(file: Path, work_dir: Path, spec: ModelSpec, boxes: str) -> str:
    """Return a parquet file with a data file's rows: itself, or ShareGPT json converted into `work_dir`.

    Args:
        file: .parquet, .json or .jsonl.
        work_dir: folder for the converted file.
        spec: the model, whose frame boxes are rewritten to.
        boxes: orig_px when json files hold pixels of the stored image, model when they hold the model's frame.
    """
    if file.suffix == ".parquet":
        return str(file)
    if file.suffix not in (".json", ".jsonl"):
        raise ConfigError(f"{file} is neither .parquet nor ShareGPT .json or .jsonl (data.train_files, data.val_files)")
    if boxes not in ("orig_px", "model"):
        raise ConfigError(f"data.json_boxes={boxes} but expected orig_px or model")
    target = work_dir / f"{file.stem}.parquet"
    rule = spec.resize_rule if boxes == "orig_px" else None
    try:
        write_sft(read_conversations(file, rule=rule, frame=spec.frame), target)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return str(target)
