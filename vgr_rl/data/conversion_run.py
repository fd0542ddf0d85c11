"""One conversion as a command: progress, output, skipped rows and data card."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vgr_rl.data.card import DataCard
from vgr_rl.data.command_line import logger, write
from vgr_rl.data.convert import CHUNK_ROWS, Conversion, Kept, Make, Outcome
from vgr_rl.data.records import row_count, rows_and_errors
from vgr_rl.data.resume import ChunkStore
from vgr_rl.data.schema import write_samples
from vgr_rl.data.validate import DataError

_NOT_IN_CARD = ("make", "what", "out", "workers")  # what does not change the rows


def convert_samples(
    args: argparse.Namespace, make: Make, steps: Sequence[str] = (), records: Sequence[Any] | None = None
) -> None:
    """Convert a source to RL samples; as `convert`."""

    def writer(rows: Iterable[Any], path: Path) -> int:
        return write_samples(rows, path, args.split)

    convert(args, make, writer, steps, records)


def convert(
    args: argparse.Namespace,
    make: Make,
    writer: Callable[..., int],
    steps: Sequence[str] = (),
    records: Sequence[Any] | None = None,
) -> None:
    """Convert a source to `args.out`, and write the list of skipped rows and the data card beside it.

    Run again after it was killed, it goes on behind the rows that were converted.

    Args:
        args: options of the command: what, input, hub_split (without `records`), out, skip_bad, workers, seed.
        make: converts one row.
        writer: writes the rows to a path and returns how many.
        steps: the filters that `make` applies, in order.
        records: the source's rows, when they are not those of `args.input`.
    """
    options = {name: str(value) for name, value in vars(args).items() if name not in _NOT_IN_CARD and value is not None}
    card = DataCard(args.what, options, steps, args.seed)
    store = ChunkStore.beside(args.out, args.input, make, options)
    if len(store):
        logger.info("%s: about %d rows were converted before this run", args.out, len(store) * CHUNK_ROWS)
    with _conversion(args, make, records, card.add, args.skip_bad, store) as rows:
        try:
            write(args.out, writer, rows)
        except DataError:  # the source was read to its end
            store.remove()
            raise
    listing = args.out.with_suffix(".skipped.jsonl")
    rows.write_skipped(listing)
    if rows.problems:
        logger.warning("%d rows skipped, listed in %s", len(rows.problems), listing)
    card.write(args.out)
    store.remove()
    logger.info("%s: data card", args.out.with_suffix(".card.md"))


def kept_rows(args: argparse.Namespace, make: Make) -> Iterator[Kept]:
    """Yield what a conversion would keep, without writing it; bad rows are left to the conversion itself."""
    with _conversion(args, make, None, lambda index, outcome: None, True) as rows:
        yield from rows.kept()


@contextmanager
def _conversion(
    args: argparse.Namespace,
    make: Make,
    records: Sequence[Any] | None,
    observe: Callable[[int, Outcome], None],
    skip_bad: bool,
    store: ChunkStore | None = None,
) -> Iterator[Conversion]:
    """Give a conversion that shows its progress when a person watches."""
    if args.workers < 1:
        raise ValueError(f"--workers={args.workers} must be at least 1")
    total = row_count(args.input) if records is None else len(records)
    raw = rows_and_errors(args.input, args.hub_split) if records is None else records
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{args.input.name}: rows", total=total)

        def observed(index: int, outcome: Outcome) -> None:
            observe(index, outcome)
            progress.update(task, completed=index + 1)

        yield Conversion(args.input, make, skip_bad, records=raw, workers=args.workers, store=store, observe=observed)
