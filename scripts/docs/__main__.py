"""Build the documentation site: `python -m scripts.docs FOLDER`.

The pages lie where GitHub shows them (README.md, docs/, recipes/); they are copied with the reference pages, which are
made from the code, into a folder of their own, from which Sphinx builds. A warning, such as a link to nowhere, fails.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

from scripts.docs import config_reference, metrics_reference, rewards_reference
from scripts.docs.pages import ROOT, pages

FIGURES = ("docs/**/*.png", "docs/**/*.svg", "docs/conf.py", "docs/redirect/*", "recipes/*/*.png")
REFERENCE = {
    "config.md": config_reference.page,
    "metrics.md": metrics_reference.page,
    "rewards.md": rewards_reference.page,
}

logger = logging.getLogger(__name__)


def build(out: Path) -> int:
    """Build the site and return Sphinx's exit status; when it is 0, the site takes the place of `out`.

    Raises:
        ValueError: when `out` is anything but an earlier site or an empty folder.
    """
    out = out.resolve()
    if out.exists() and not (out / ".buildinfo").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} is no earlier site, and would be replaced by this one; give another FOLDER")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        source, site = Path(folder, "pages"), Path(folder, "site")
        gather(source)
        arguments = ["-b", "html", "-W", "--keep-going", "-q", "-c", str(source / "docs"), "-d", f"{folder}/doctrees"]
        status = build_main([*arguments, str(source), str(site)])
        if status == 0:
            if out.exists():
                shutil.rmtree(out)
            site.rename(out)
    return status


def gather(source: Path) -> None:
    """Copy the pages and write the reference into a folder."""
    for path in [*pages(), *(path for pattern in FIGURES for path in ROOT.glob(pattern))]:
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    reference = source / "docs" / "reference"
    reference.mkdir()
    for name, page in REFERENCE.items():
        (reference / name).write_text(page(), encoding="utf-8")


def main() -> None:
    """Run the command line entry."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m scripts.docs", description="Build the documentation site.")
    parser.add_argument("out", type=Path, help="folder of the site; an earlier site in it is replaced")
    out = parser.parse_args().out
    try:
        status = build(out)
    except ValueError as error:
        parser.error(str(error))
    if status == 0:
        logger.info("site: %s", (out / "index.html").resolve())
    sys.exit(status)


if __name__ == "__main__":
    main()
