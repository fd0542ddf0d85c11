"""Held-out evaluation: `python -m vgr_rl.evaluate model=DIR data=FILE.parquet out=DIR`.

`python -m vgr_rl.evaluate score BENCH …` and `table BENCH …` are commands of `benchmarks/command.py`.

Every key is described in `config/evaluation/evaluate.yaml`. That file has a folder of its own because `model` and
`data` are config groups of `vgr_rl.main`, and Hydra would take `model=DIR` for a choice of the group.
"""

import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from vgr_rl.config import entry, recipes, resolvers

if TYPE_CHECKING:
    from vgr_rl.benchmarks.heldout import Evaluation
    from vgr_rl.benchmarks.run import BenchmarkRun

log = logging.getLogger(__name__)


def tasks_from_config(config: DictConfig) -> list["Evaluation"]:
    """Turn the composed configuration into checked tasks, one for each model.

    Raises:
        ValueError: when a required key is missing or a value is out of its range; names the key.
    """
    from vgr_rl.benchmarks.heldout import Evaluation

    values, models = _values_and_models(config)
    if values["url"] is not None:
        raise ValueError(f"url={values['url']} but only a benchmark= can be answered by a server")
    shared = {
        **{key: values[key] for key in ("limit", "seed", "max_new_tokens", "temperature", "top_p", "prefill", "frame")},
        **{key: values[key] for key in ("processor_kwargs", "engine_kwargs", "overwrite")},
        "data": Path(values["data"]),
        "modes": tuple(values["modes"]),
        "concurrency": values["batch"],
        "reward": values["reward"],
    }
    return [Evaluation(model=model, out=out, **shared) for model, out in models]


def benchmark_runs(config: DictConfig) -> list["BenchmarkRun"]:
    """Turn a configuration with a `benchmark` into checked runs, one for each model.

    Raises:
        ValueError: when a required key is missing or a value is out of its range; names the key.
    """
    from vgr_rl.benchmarks import vrt_bench, vrt_run
    from vgr_rl.benchmarks.run import BenchmarkRun
    from vgr_rl.benchmarks.suite import CHOICE, benchmark_name
    from vgr_rl.data import treevgr

    values, models = _values_and_models(config)
    name = benchmark_name(values["benchmark"])
    file = values["system_prompt_file"]
    if file is not None and not Path(file).is_file():
        raise ValueError(f"system_prompt_file={file} does not exist")
    shared = {
        **{key: values[key] for key in ("data", "convention", "limit", "max_new_tokens", "prefill", "frame")},
        **{key: values[key] for key in ("processor_kwargs", "engine_kwargs", "overwrite")},
        **{key: values[key] for key in ("url", "served_name", "api_key_env", "sam2")},
        "benchmark": name,
        "concurrency": values["batch"],
    }

    def prompt(model: str) -> str | None:
        if file is not None:
            return Path(file).read_text(encoding="utf-8").strip()
        if name == vrt_bench.NAME:
            return vrt_run.system_prompt(model)
        return treevgr.SYSTEM_PROMPT if name in CHOICE else None  # samples have their own

    return [BenchmarkRun(model=model, out=out, system_prompt=prompt(model), **shared) for model, out in models]


def _values_and_models(config: DictConfig) -> tuple[dict[str, Any], list[tuple[str, Path]]]:
    """Return the values of all keys, and each model with its folder."""
    for key in ("model", "data", "out"):
        if OmegaConf.is_missing(config, key):
            raise ValueError(f"{key} is not set; run `python -m vgr_rl.evaluate model=DIR data=FILE.parquet out=DIR`")
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    models, outs = _as_list(values.pop("model")), _as_list(values.pop("out"))
    if len(models) != len(outs) or len(set(outs)) != len(outs):
        raise ValueError(f"model={models} and out={outs} but each model needs a folder of its own")
    return values, list(zip(models, map(Path, outs), strict=True))


def _as_list(value: str | list[str]) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


class Bars:
    """One progress bar a mode, with the time that is left; ten lines a mode where there is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Eta

        self._bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Eta(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, mode: str, total: int, done: int) -> None:
        """Add the bar of a mode."""
        self._tasks[mode] = self._bars.add_task(mode, total=total, completed=done)

    def advance(self, mode: str) -> None:
        """Move the bar of a mode by one."""
        self._bars.advance(self._tasks[mode])
        task = self._bars.tasks[self._tasks[mode]]
        done, total = int(task.completed), int(task.total or 0)
        if not self._bars.console.is_terminal and done % max(1, total // 10) == 0:
            log.info("%s: %d of %d items", mode, done, total)


def show(summary: dict[str, Any], out: Path) -> None:
    """Print the summary as a table, and where it was written."""
    from rich.console import Console
    from rich.table import Table

    from vgr_rl.benchmarks.summary import MEASURES

    table = Table(*("", *summary), title=f"{next(iter(summary.values()))['n']} held-out items, mean ± standard error")
    for name in MEASURES:
        cells = ((column[name], column["stderr"][name]) for column in summary.values())
        table.add_row(name, *("-" if mean is None else f"{mean:.3f} ± {error or 0:.3f}" for mean, error in cells))
    console = Console(stderr=True)
    console.print(table)
    console.print(f"rows and summary.json are in {out}")


@hydra.main(version_base="1.3", config_path="config/evaluation", config_name="evaluate")
def _run(config: DictConfig) -> None:
    from vgr_rl.benchmarks.heldout import evaluate

    try:
        if config.benchmark is not None:
            _run_benchmark(config)
            return
        for task in tasks_from_config(config):
            log.info("evaluating %s on %s", task.model, task.data)
            with Bars() as bars:
                summary = evaluate(task, bars)
            show(summary, task.out)
    except ValueError as error:
        log.error("error: %s", error)
        sys.exit(2)


def _run_benchmark(config: DictConfig) -> None:
    from rich.console import Console

    from vgr_rl.benchmarks import vrt_bench, vrt_run
    from vgr_rl.benchmarks.command import score_table
    from vgr_rl.benchmarks.run import run

    for task in benchmark_runs(config):
        log.info("running %s on %s", task.model, task.benchmark)
        with Bars() as bars:
            result = (vrt_run.run if task.benchmark == vrt_bench.NAME else run)(task, bars)
        Console(stderr=True, highlight=False, markup=False).print(score_table(result))
        log.info("predictions.jsonl and result.json are in %s", task.out)


def main() -> None:
    """Run the command; exit code 2 means that the configuration or the data does not fit."""
    from vgr_rl.benchmarks import command

    if sys.argv[1:] and sys.argv[1] in command.COMMANDS:
        sys.exit(command.main(sys.argv[1:]))
    entry.start_logging()
    recipes.register()
    resolvers.register()
    _run()


if __name__ == "__main__":
    main()
