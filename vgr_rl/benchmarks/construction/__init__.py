"""A benchmark like TreeBench, from pictures with boxes (arXiv 2507.07999): what is done between its people.

The commands are `bench-images`, `bench-questions`, `bench-consensus`, `bench-review` and `bench-import` of
`python -m vgr_rl.prepare`; every file of questions is in TreeBench's format.
"""

from vgr_rl.benchmarks.construction.commands import add_commands

__all__ = ["add_commands"]
