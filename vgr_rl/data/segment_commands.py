"""The commands `r-sa2va` and `tiny-masks`: models whose `[SEG]` are masks, and data to try them with."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgr_rl.data.command_line import Subparsers, add_out, logger, write

if TYPE_CHECKING:
    from vgr_rl.segment.model import RSa2VA


def add_commands(commands: Subparsers) -> None:
    """Add the commands."""
    model = commands.add_parser("r-sa2va", help="an R-Sa2VA to train, of its parts or of a published checkpoint")
    model.set_defaults(make=make_model)
    add_out(model, "model folder")
    model.add_argument("--vlm", help="vision-language model, such as Qwen/Qwen3-VL-4B-Instruct")
    model.add_argument("--sam2", help="SAM2, such as facebook/sam2-hiera-large")
    model.add_argument("--published", type=Path, help="folder of a published R-Sa2VA, in place of both")
    tiny = commands.add_parser("tiny-masks", help="the tiny world with masks, and a tiny R-Sa2VA (in OUT/model)")
    tiny.set_defaults(make=make_tiny)
    add_out(tiny, "folder for sft_train, sft_val, train and heldout.parquet, and model/")
    tiny.add_argument("--seed", type=int, default=0, help="seed of the scenes and of the model's new weights")
    for name, default, text in (
        ("sft", 6400, "cold-start conversations"),
        ("sft-val", 128, "cold-start conversations for validation"),
        ("train", 2048, "RL samples"),
        ("heldout", 500, "RL samples for the final evaluation"),
    ):
        tiny.add_argument(f"--{name}", type=int, default=default, help=f"number of {text} ({default})")


def make_model(args: argparse.Namespace) -> None:
    """Write an R-Sa2VA as one model folder."""
    from transformers import AutoProcessor

    from vgr_rl.segment.model import RSa2VA
    from vgr_rl.segment.published import load_published

    if args.published is not None and args.vlm is None and args.sam2 is None:
        save(load_published(args.published), AutoProcessor.from_pretrained(args.published), args.out)
    elif args.published is None and args.vlm is not None and args.sam2 is not None:
        save(*RSa2VA.from_checkpoints(args.vlm, args.sam2), args.out)
    else:
        raise ValueError("give --vlm and --sam2, or --published alone")


def make_tiny(args: argparse.Namespace) -> None:
    """Write the tiny world with masks, and the tiny base with the tiny SAM2."""
    from transformers import AutoModelForImageTextToText, Sam2Model

    from vgr_rl.config.resolvers import asset_path
    from vgr_rl.data.schema import write_samples, write_sft
    from vgr_rl.data.tiny_masks import rl_rows, sft_rows
    from vgr_rl.tiny.segmenter import build_r_sa2va

    base = AutoModelForImageTextToText.from_pretrained(asset_path("base_qwen2_5_vl"))
    sam2 = Sam2Model.from_pretrained(asset_path("sam2"))
    save(*build_r_sa2va("qwen2_5_vl", args.seed, base, sam2), args.out / "model")
    lessons = sft_rows("sft", args.sft + args.sft_val, args.seed)
    write(args.out / "sft_train.parquet", write_sft, itertools.islice(lessons, args.sft))
    write(args.out / "sft_val.parquet", write_sft, lessons)
    for split in ("train", "heldout"):
        count = getattr(args, split)
        write(args.out / f"{split}.parquet", write_samples, rl_rows(split, count, args.seed), split)  # type: ignore[arg-type]


def save(model: "RSa2VA", processor: Any, folder: Path) -> None:
    """Write a model and its processor."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    logger.info("%s: R-Sa2VA with %.1f million parameters", folder, model.num_parameters() / 1e6)
