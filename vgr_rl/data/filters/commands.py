"""The commands `filter-hard` and `filter-variance`."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgr_rl.data.command_line import Subparsers, add_out
from vgr_rl.data.filters.decisions import keep_hard, keep_spread

if TYPE_CHECKING:
    from vgr_rl.benchmarks.serve import ServedModel
    from vgr_rl.data.filters.answers import Answers, Sampling
    from vgr_rl.data.filters.run import Decide

_HARD: dict[str, dict[str, Any]] = {"accuracy": {}}


def add_commands(commands: Subparsers) -> None:
    """Add the commands."""
    hard = commands.add_parser("filter-hard", help="keep the RL samples that a model gets wrong")
    hard.set_defaults(make=filter_hard)
    _add_shared(hard, samples=4)
    hard.add_argument("--k", type=int, default=1, help="look at pass@k (1)")
    hard.add_argument("--max-pass", type=float, default=0.5, help="keep what has at most this pass@k (0.5)")

    spread = commands.add_parser("filter-variance", help="keep the RL samples whose rewards spread most within a group")
    spread.set_defaults(make=filter_variance)
    _add_shared(spread, samples=8)
    _add_top(spread)
    spread.add_argument("--rewards", default="treevgr", help="treevgr, vrt, or a YAML file with `terms` (treevgr)")

    run = commands.add_parser("filter-rollouts", help="the same by the rewards that a run of vgr_rl.main gave")
    run.set_defaults(make=filter_rollouts)
    _add_files(run)
    run.add_argument("--run", type=Path, required=True, help="run directory; a learning rate of 0 left its model alone")
    _add_top(run)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", type=Path, required=True, nargs="+", help="parquet files of RL samples")
    add_out(parser, "parquet to write; a folder of that name beside it says why each sample was kept or not")


def _add_top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--top", type=int, required=True, help="how many to keep, by the rewards' standard deviation")


def _add_shared(parser: argparse.ArgumentParser, samples: int) -> None:
    _add_files(parser)
    parser.add_argument("--model", required=True, help="folder or hub id of the model that is asked")
    parser.add_argument("--url", help="ask an OpenAI-compatible server, not vLLM in this process; base URL with /v1")
    parser.add_argument("--served-name", help="what that server calls the model (--model)")
    parser.add_argument("--api-key-env", help="environment variable with that server's key")
    parser.add_argument("--samples", type=int, default=samples, help=f"responses to each sample ({samples})")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (1.0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="share of the probability to draw from (1.0)")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="responses are cut here (1024)")
    parser.add_argument(
        "--max-prompt-tokens",
        type=int,
        default=8192,
        help="longer prompts are not asked (8192, or what the model can read)",
    )
    parser.add_argument("--max-pixels", type=int, help="largest area of an image; as model.max_pixels in training")
    parser.add_argument("--prefill", default="<think>", help="what responses begin with; '' where servers cannot")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--concurrency", type=int, default=64, help="responses, or requests, in flight (64)")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that vLLM splits the model over (1)")


def filter_hard(args: argparse.Namespace) -> None:
    """Keep what a model gets wrong, by the accuracy term of the training reward."""
    if not 1 <= args.k <= args.samples or not 0 <= args.max_pass <= 1:
        raise ValueError(
            f"--k={args.k} --samples={args.samples} --max-pass={args.max_pass}: 1 <= k <= samples and a share from 0 "
            "to 1 are needed"
        )
    _filter(args, {"terms": _HARD}, lambda graded: keep_hard(graded, args.k, args.max_pass))


def filter_variance(args: argparse.Namespace) -> None:
    """Keep the samples whose rewards spread most within a group."""
    from rewards.presets import PRESETS

    if args.top < 1 or args.samples < 2:
        raise ValueError(f"--top={args.top} --samples={args.samples}: at least 1 and at least 2 are needed")
    rewards = {"terms": PRESETS[args.rewards]} if args.rewards in PRESETS else _rewards_of(args.rewards)
    _filter(args, rewards, lambda graded: keep_spread(graded, args.top))


def filter_rollouts(args: argparse.Namespace) -> None:
    """Keep the samples whose rewards in a training run spread most within a group."""
    from vgr_rl.data.filters.rollouts import filter_by_run
    from vgr_rl.data.filters.run import Selection
    from vgr_rl.data.validate import require_samples

    if args.top < 1:
        raise ValueError(f"--top={args.top} but at least 1 is needed")
    require_samples(args.input, knob="--input")
    filter_by_run(Selection(args.input, args.out), args.run, lambda graded: keep_spread(graded, args.top))


def _rewards_of(file: str) -> dict[str, Any]:
    import yaml

    from rewards.presets import load_rewards

    load_rewards(file)  # says what is wrong with it
    return yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))


def _filter(args: argparse.Namespace, rewards: dict[str, Any], decide: "Decide") -> None:
    from vgr_rl.benchmarks.serve import ServedModel
    from vgr_rl.benchmarks.store import fingerprint
    from vgr_rl.data.filters.answers import Sampling
    from vgr_rl.data.filters.run import FilterRun, Selection
    from vgr_rl.data.validate import require_samples
    from vgr_rl.training.grading import Grader, build_rewards

    for name in ("samples", "max_new_tokens", "max_prompt_tokens", "concurrency", "tensor_parallel"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}={getattr(args, name)} but at least 1 is needed")
    require_samples(args.input, knob="--input")
    pixels = {"max_pixels": args.max_pixels} if args.max_pixels else {}
    model = ServedModel.load(args.model, prefill=args.prefill, processor_kwargs=pixels)
    sampling = Sampling(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Sampling)})
    sampling = dataclasses.replace(
        sampling, max_prompt_tokens=min(args.max_prompt_tokens, model.context - args.max_new_tokens)
    )
    grader = Grader(build_rewards(rewards), model.resize, model.frame, args.prefill).at(0.0)
    settings = {
        **{name: value for name, value in dataclasses.asdict(sampling).items() if name != "concurrency"},
        "input": [fingerprint(file) for file in args.input],
        "model": fingerprint(Path(args.model)) if Path(args.model).is_dir() else args.model,
        "served_name": args.served_name,
        "prefill": args.prefill,
        "max_pixels": model.resize.max_pixels,
        "rewards": rewards,
    }
    answers = _answers(args, model, sampling, pixels)
    FilterRun(Selection(args.input, args.out), model, grader, sampling, settings).run(answers, decide)


def _answers(args: argparse.Namespace, model: "ServedModel", sampling: "Sampling", pixels: dict[str, int]) -> "Answers":
    from vgr_rl.benchmarks.endpoint import Endpoint
    from vgr_rl.data.filters.answers import InProcess, Remote
    from vgr_rl.data.schema import read_samples

    if args.url:
        endpoint = Endpoint(args.url, args.served_name or args.model, args.prefill, args.api_key_env, pixels)
        return Remote(endpoint, sampling)
    most = max(len(row.images) for file in args.input for row in read_samples(file))
    engine = {"tensor_parallel_size": args.tensor_parallel, "mm_processor_kwargs": pixels or None}
    return InProcess(model, sampling, most, engine)
