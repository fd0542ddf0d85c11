"""Make data sets and tiny models: `python -m vgr_rl.prepare <what> --help`."""

import argparse
import logging
from collections.abc import Sequence

from vgr_rl.benchmarks import construction, vrt_samples
from vgr_rl.data import commands, filters, segment_commands, tiny_commands, vrt_commands


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make what it asks for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m vgr_rl.prepare", description=__doc__)
    subparsers = parser.add_subparsers(dest="what", required=True, metavar="what")
    for module in (tiny_commands, commands, vrt_commands, segment_commands, vrt_samples, filters, construction):
        module.add_commands(subparsers)
    args = parser.parse_args(arguments)
    try:
        args.make(args)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
