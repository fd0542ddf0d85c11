"""A tiny R-Sa2VA folder and its cold-start data."""

from pathlib import Path

from vgr_rl.data.schema import write_sft
from vgr_rl.data.segment_commands import save
from vgr_rl.data.tiny_masks import sft_rows
from vgr_rl.tiny.model import Family
from vgr_rl.tiny.segmenter import build_r_sa2va


def write_segmenter(folder: Path, family: Family = "qwen2_5_vl") -> Path:
    save(*build_r_sa2va(family), folder)
    return folder


def write_mask_data(folder: Path, train: int, val: int) -> None:
    rows = list(sft_rows("sft", train + val, 0))
    write_sft(rows[:train], folder / "train.parquet")
    write_sft(rows[train:], folder / "val.parquet")
