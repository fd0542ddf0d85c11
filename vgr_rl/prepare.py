"""Make data sets and tiny models: `python -m vgr_rl.prepare <what> --help`."""

import argparse
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from vgr_rl.tiny.traces import LabelNoise

logger = logging.getLogger("vgr_rl.prepare")
FAMILIES = ("qwen2_5_vl", "qwen3_vl")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make what it asks for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = _parser().parse_args(arguments)
    try:
        args.make(args)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def make_tiny(args: argparse.Namespace) -> None:
    """Write the tiny world: train, val, heldout (RL) and sft_train, sft_val and perhaps base (SFT)."""
    from vgr_rl.data.files import replacing
    from vgr_rl.data.schema import write_samples, write_sft
    from vgr_rl.data.tiny_world import rl_rows, sft_rows

    noise = LabelNoise(args.reflective, args.loose_px, args.jitter, args.jitter_px, args.answer_noise)
    counts = {name: getattr(args, name) for name in ("train", "val", "heldout", "sft", "sft_val", "base")}
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"--{name.replace('_', '-')}={count} must not be negative")
    for split in ("train", "val", "heldout"):
        _write(args.out / f"{split}.parquet", write_samples, rl_rows(split, counts[split], args.seed), split)
    lessons = sft_rows("sft", args.sft + args.sft_val, args.seed, args.family, noise)
    _write(args.out / "sft_train.parquet", write_sft, itertools.islice(lessons, args.sft))
    _write(args.out / "sft_val.parquet", write_sft, lessons)
    if args.base:
        clean = LabelNoise(reflective=args.reflective)
        _write(args.out / "base.parquet", write_sft, sft_rows("base", args.base, args.seed, args.family, clean))
    with replacing(args.out / "dataset.json") as temporary:
        facts = {"family": args.family, "seed": args.seed, "counts": counts, "noise": asdict(noise)}
        temporary.write_text(json.dumps(facts, indent=2) + "\n")


def make_tiny_model(args: argparse.Namespace) -> None:
    """Write a tiny model with random weights."""
    from vgr_rl.tiny.model import build_model, save_model

    save_model(build_model(args.family, args.seed), args.family, args.out)
    logger.info("%s: tiny %s with random weights", args.out, args.family)


def _write(path: Path, write: Callable[..., int], *parameters: object) -> None:
    count = write(parameters[0], path, *parameters[1:])
    logger.info("%s: %d rows, %.1f MB", path, count, path.stat().st_size / 1e6)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vgr_rl.prepare", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True, metavar="what")

    tiny = commands.add_parser("tiny", help="the tiny world: pictures of shapes, questions, true boxes")
    tiny.set_defaults(make=make_tiny)
    _add_out(tiny, "folder for the parquet files")
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
    tiny.add_argument("--answer-noise", type=float, default=0.3, help="share of cold-start answers that are random")

    model = commands.add_parser("tiny-model", help="a tiny model of a family with random weights")
    model.set_defaults(make=make_tiny_model)
    _add_out(model, "model folder")
    model.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help="architecture")
    model.add_argument("--seed", type=int, default=0, help="seed of the weights")
    return parser


def _add_out(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--out", type=Path, required=True, help=text)


if __name__ == "__main__":
    main()
