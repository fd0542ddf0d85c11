"""Merge FSDP shards and verify the result: `python -m vgr_rl.merge CHECKPOINT_DIR OUT [--dtype …] [--overwrite]`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from vgr_rl.errors import ConfigError

logger = logging.getLogger("vgr_rl.merge")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line entry; exit code 2: nothing to merge; 1: the merged model is not the trained one."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m vgr_rl.merge", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoints/global_step_N of a run")
    parser.add_argument("out", type=Path, help="folder to write; it appears complete and verified or not at all")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto: as trained")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT when it exists")
    args = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything that is needed lies in the checkpoint
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("torch.distributed.device_mesh").setLevel(
        logging.ERROR
    )  # shards are read without a process group
    from vgr_rl.training.merge import MergeMismatch, merge_checkpoint

    try:
        report = merge_checkpoint(args.checkpoint, args.out, args.dtype, args.overwrite)
    except ConfigError as error:
        logger.error("error: %s", error)
        sys.exit(2)
    except MergeMismatch as error:
        logger.error("error: %s", error)
        sys.exit(1)
    logger.info("%s: %s", args.out, report)


if __name__ == "__main__":
    main()
