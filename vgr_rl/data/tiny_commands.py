"""The commands `tiny`, `tiny-model` and `tiny-judge`: data and models of the tiny world."""

import argparse
import itertools
import json
from dataclasses import asdict

from vgr_rl.data.command_line import Subparsers, add_out, logger, write
from vgr_rl.tiny.traces import LabelNoise

FAMILIES = ("qwen2_5_vl", "qwen3_vl")


def add_commands(subparsers: Subparsers) -> None:
    """Add the commands."""
    _add_tiny(subparsers)
    _add_model(subparsers)
    _add_judge(subparsers)


def make_tiny(args: argparse.Namespace) -> None:
    """Write the tiny world: train, val, heldout (RL) and sft_train, sft_val and perhaps base (SFT)."""
    from vgr_rl.data.files import replacing
    from vgr_rl.data.schema import write_samples, write_sft
    from vgr_rl.data.tiny_world import rl_rows, sft_rows

    noise = LabelNoise(
        reflective=args.reflective,
        loose_px=args.loose_px,
        jitter=args.jitter,
        jitter_px=args.jitter_px,
        answer=args.answer_noise,
        overlooked=args.overlooked,
        text_only=args.text_only,
    )
    counts = {name: getattr(args, name) for name in ("train", "val", "heldout", "sft", "sft_val", "base")}
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"--{name.replace('_', '-')}={count} must not be negative")
    for split in ("train", "val", "heldout"):
        rows = rl_rows(split, counts[split], args.seed, args.open, args.masks)  # type: ignore[arg-type]
        write(args.out / f"{split}.parquet", write_samples, rows, split)
    lessons = sft_rows("sft", args.sft + args.sft_val, args.seed, args.family, noise)
    write(args.out / "sft_train.parquet", write_sft, itertools.islice(lessons, args.sft))
    write(args.out / "sft_val.parquet", write_sft, lessons)
    if args.base:
        clean = LabelNoise(reflective=args.reflective)
        write(args.out / "base.parquet", write_sft, sft_rows("base", args.base, args.seed, args.family, clean))
    with replacing(args.out / "dataset.json") as temporary:
        facts = {
            "family": args.family,
            "seed": args.seed,
            "open": args.open,
            "masks": args.masks,
            "counts": counts,
            "noise": asdict(noise),
        }
        temporary.write_text(json.dumps(facts, indent=2) + "\n")


def make_tiny_model(args: argparse.Namespace) -> None:
    """Write a tiny model with random weights."""
    from vgr_rl.tiny.model import build_model, save_model

    save_model(build_model(args.family, args.seed), args.family, args.out)
    logger.info("%s: tiny %s with random weights", args.out, args.family)


def make_tiny_judge(args: argparse.Namespace) -> None:
    """Write a tiny text model with random weights."""
    from vgr_rl.tiny.judge_model import save_judge

    save_judge(args.out, args.seed)
    logger.info("%s: tiny judge with random weights", args.out)


def _add_tiny(commands: Subparsers) -> None:
    tiny = commands.add_parser("tiny", help="the tiny world: pictures of shapes, questions, true boxes")
    tiny.set_defaults(make=make_tiny)
    add_out(tiny, "folder for the parquet files")
    tiny.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help="model whose frame the SFT traces use")
    tiny.add_argument("--seed", type=int, default=0, help="seed of the scenes; splits never share a picture")
    for name, default, text in (
        ("train", 4096, "RL samples"),
        ("val", 128, "RL samples for validation while training"),
        ("heldout", 1000, "RL samples for the final evaluation"),
        ("sft", 8192, "cold-start conversations"),
        ("sft-val", 256, "cold-start conversations for the validation loss"),
        ("base", 0, "flawless conversations of the split that trains the shipped base"),
    ):
        tiny.add_argument(f"--{name}", type=int, default=default, help=f"number of {text} ({default})")
    tiny.add_argument("--reflective", type=float, default=0.1, help="share of boxes first written wrong")
    tiny.add_argument("--loose-px", type=int, default=4, help="cold-start boxes are this much too large on each side")
    tiny.add_argument("--jitter", type=float, default=0.6, help="share of cold-start boxes that are moved as well")
    tiny.add_argument("--jitter-px", type=int, default=8, help="largest such move")
    tiny.add_argument("--overlooked", type=float, default=0.7, help="share of cold-start counts that are one too low")
    tiny.add_argument("--answer-noise", type=float, default=0.2, help="share of cold-start answers that are random")
    tiny.add_argument("--open", action="store_true", help="true answers are `option A`: only a judge can tell")
    tiny.add_argument("--masks", action="store_true", help="true objects have their mask beside their box")
    tiny.add_argument("--text-only", action="store_true", help="cold-start conversations name objects without a box")


def _add_model(commands: Subparsers) -> None:
    model = commands.add_parser("tiny-model", help="a tiny model of a family with random weights")
    model.set_defaults(make=make_tiny_model)
    add_out(model, "model folder")
    model.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help="architecture")
    model.add_argument("--seed", type=int, default=0, help="seed of the weights")


def _add_judge(commands: Subparsers) -> None:
    judge = commands.add_parser("tiny-judge", help="a tiny text model with random weights, to try judge=pool with")
    judge.set_defaults(make=make_tiny_judge)
    add_out(judge, "model folder")
    judge.add_argument("--seed", type=int, default=0, help="seed of the weights")
