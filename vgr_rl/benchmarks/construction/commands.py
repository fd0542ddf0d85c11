"""The commands that make a benchmark like TreeBench. docs/benchmarks.md describes them."""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vgr_rl.data.command_line import Subparsers, add_out

logger = logging.getLogger("vgr_rl.prepare")


def add_commands(commands: Subparsers) -> None:
    """Add the commands."""
    _add_images(commands)
    _add_questions(commands)
    consensus = commands.add_parser("bench-consensus", help="questions that not too many models answer right")
    consensus.set_defaults(make=filter_consensus)
    consensus.add_argument("--data", type=Path, required=True, help="TSV of questions")
    text = "a file of predictions for each model, as `vgr_rl.evaluate benchmark=treebench` writes them"
    consensus.add_argument("--predictions", type=Path, required=True, nargs="+", help=text)
    text = "most models that may be right about a question that is kept (all but one)"
    consensus.add_argument("--most-right", type=int, help=text)
    add_out(consensus, "TSV to write; NAME.decisions.jsonl beside it says why each question was kept or not")
    review = commands.add_parser("bench-review", help="a table and contact sheets for people to review questions")
    review.set_defaults(make=make_review)
    review.add_argument("--data", type=Path, required=True, help="TSV of questions")
    add_out(review, "folder for review.csv and the sheets")
    reviewed = commands.add_parser("bench-import", help="the benchmark, from a table that people reviewed")
    reviewed.set_defaults(make=take_review)
    reviewed.add_argument("--data", type=Path, required=True, help="TSV of questions that was reviewed")
    reviewed.add_argument("--review", type=Path, required=True, help="review.csv with verdicts")
    reviewed.add_argument("--partial", action="store_true", help="leave out questions without a verdict")
    add_out(reviewed, "TSV to write, in TreeBench's format")


def make_images(args: argparse.Namespace) -> None:
    """Draw pictures with many objects."""
    from vgr_rl.benchmarks.construction.detections import sample_dense
    from vgr_rl.benchmarks.store import write_text

    fewest, _, most = args.boxes.partition("-")
    if not (fewest.isdecimal() and most.isdecimal() and 1 <= int(fewest) <= int(most)) or args.count < 1:
        raise ValueError(f"--boxes={args.boxes} --count={args.count}: two numbers such as 20-100 and at least 1 needed")
    root = args.image_root or (args.input if args.input.is_dir() else args.input.parent)
    pictures = sample_dense(args.input, root, (int(fewest), int(most)), args.count, args.seed)
    lines = [json.dumps(each._asdict() | {"image": str(each.image.absolute())}) for each in pictures]
    write_text(args.out, "".join(f"{line}\n" for line in lines))
    logger.info("%s: %d pictures", args.out, len(lines))


def make_questions(args: argparse.Namespace) -> None:
    """Let a model write questions about pictures."""
    from vgr_rl.benchmarks.construction.candidates import PROMPTS, Generation, Prompts
    from vgr_rl.benchmarks.endpoint import Endpoint

    for name in ("each", "max_new_tokens", "concurrency"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}={getattr(args, name)} but at least 1 is needed")
    prompts = Prompts.read(args.prompts or PROMPTS, args.categories.split(",") if args.categories else ())
    drawn = {name: getattr(args, name) for name in ("each", "temperature", "max_new_tokens", "concurrency", "seed")}
    generation = Generation(_pictures(args.input), prompts, **drawn)
    counts = generation.run(Endpoint(args.url, args.model, "", args.api_key_env), args.out)
    for reason, count in counts.most_common():
        logger.info("%6d %s", count, reason)


def filter_consensus(args: argparse.Namespace) -> None:
    """Keep the questions that at most so many models answer right."""
    from vgr_rl.benchmarks.choice_score import grade
    from vgr_rl.benchmarks.predictions import read_predictions
    from vgr_rl.benchmarks.store import write_text
    from vgr_rl.benchmarks.treebench import TREEBENCH
    from vgr_rl.benchmarks.tsv import read_tsv, write_tsv
    from vgr_rl.data.filters.decisions import keep_consensus

    models = len(args.predictions)
    most_right = models - 1 if args.most_right is None else args.most_right
    if not 0 <= most_right < models:
        raise ValueError(f"--most-right={most_right} but with {models} models it must be 0 to {models - 1}")
    items = TREEBENCH.load(args.data)
    right: dict[str, list[bool]] = {item.key: [] for item in items}
    for file in args.predictions:
        read = read_predictions(file, list(right))
        if read.missing:
            raise ValueError(f"{file} lacks {len(read.missing)} questions of {args.data}, the first {read.missing[0]}")
        for graded in grade(items, read.by_key, TREEBENCH, "authors"):
            right[graded.item.key].append(bool(graded.correct))
    decisions = keep_consensus(right, most_right)
    lines = [json.dumps({"index": key, **asdict(each), "right": right[key]}) for key, each in decisions.items()]
    write_text(args.out.with_suffix(".decisions.jsonl"), "".join(f"{line}\n" for line in lines))
    kept = [row for row in read_tsv(args.data) if decisions[row["index"]].kept]
    if not kept:
        raise ValueError(f"--most-right={most_right} keeps none of {len(items)} questions; raise it")
    logger.info("%s: %d of %d questions kept", args.out, write_tsv(args.out, kept), len(items))


def make_review(args: argparse.Namespace) -> None:
    """Write what people need to review questions."""
    from vgr_rl.benchmarks.construction.review import export_review

    logger.info("%s: %d questions to review", args.out, export_review(args.data, args.out))


def take_review(args: argparse.Namespace) -> None:
    """Write the benchmark that people kept."""
    from vgr_rl.benchmarks.construction.review import import_review

    logger.info("%s: %d questions", args.out, import_review(args.data, args.review, args.out, args.partial))


def _pictures(file: Path) -> list[Any]:
    from vgr_rl.benchmarks.construction.detections import Picture

    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [
            Picture(row["id"], Path(row["image"]), tuple(map(tuple, row["boxes_orig_px"])), tuple(row["names"]))
            for row in rows
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--input={file} is not what bench-images writes: {error!r}") from error


def _add_images(commands: Subparsers) -> None:
    images = commands.add_parser("bench-images", help="pictures with many objects, from detection data")
    images.set_defaults(make=make_images)
    text = "COCO's instances_*.json, or a folder with the json files of SA-1B"
    images.add_argument("--input", type=Path, required=True, help=text)
    images.add_argument("--image-root", type=Path, help="folder with the pictures (the input's)")
    images.add_argument("--boxes", default="20-200", help="fewest and most objects of a picture (20-200)")
    images.add_argument("--count", type=int, required=True, help="how many pictures are drawn by lot")
    images.add_argument("--seed", type=int, default=0, help="of the lot (0)")
    add_out(images, "jsonl to write")


def _add_questions(commands: Subparsers) -> None:
    questions = commands.add_parser("bench-questions", help="candidate questions, by a model behind a server")
    questions.set_defaults(make=make_questions)
    questions.add_argument("--input", type=Path, required=True, help="jsonl of bench-images")
    questions.add_argument("--url", required=True, help="base URL of an OpenAI-compatible server, with /v1")
    questions.add_argument("--model", required=True, help="what the server calls the model")
    questions.add_argument("--api-key-env", help="environment variable with the server's key")
    questions.add_argument("--prompts", type=Path, help="YAML file with `prompt` and `categories`, in place of ours")
    questions.add_argument("--categories", help="some of TreeBench's categories, separated by commas (all)")
    questions.add_argument("--each", type=int, default=1, help="questions of a category about a picture (1)")
    questions.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (1.0)")
    questions.add_argument("--max-new-tokens", type=int, default=8192, help="responses are cut here (8192)")
    questions.add_argument("--concurrency", type=int, default=16, help="requests in flight (16)")
    questions.add_argument("--seed", type=int, default=0, help="of the responses and the order of the options (0)")
    add_out(questions, "TSV to write, in TreeBench's format; what is wrong with others is in the folder NAME.responses")
