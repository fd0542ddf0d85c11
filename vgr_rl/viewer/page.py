"""Write a report as one HTML document."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vgr_rl.data.files import replacing
from vgr_rl.viewer.charts import HEIGHT, WIDTH
from vgr_rl.viewer.pictures import Album, Picture
from vgr_rl.viewer.reports import Curves, Report

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("dom.js", "store.js", "filters.js", "masks.js", "trace.js", "list.js", "browser.js", "charts.js", "live.js")


def write_page(path: Path, report: Report) -> None:
    """Write the page in one step; pictures go to the file one by one."""
    with replacing(path) as temporary:
        _stream(report).dump(str(temporary), encoding="utf-8")


def render(report: Report) -> str:
    """Return the page: one HTML document without scripts or pictures from elsewhere."""
    return "".join(_stream(report))


def render_curves(curves: tuple[Curves, ...]) -> str:
    """Return the section of the curves alone."""
    template = _environment().get_template("curves.html")
    return template.render(curves=curves, chart_width=WIDTH, chart_height=HEIGHT)


def _stream(report: Report) -> Any:
    script = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    sets = json.dumps([each.as_json() for each in report.browser.sets], allow_nan=False, separators=(",", ":"))
    return _environment().get_template("page.html").stream(
        report=report,
        curves=report.curves,
        style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        packed_sets=base64.b64encode(gzip.compress(sets.encode(), mtime=0)).decode(),
        pictures=() if report.live else _pictures(report.browser.album),
        chart_width=WIDTH,
        chart_height=HEIGHT,
        total_seconds=sum(report.seconds.values()),
    )  # fmt: skip


def _pictures(album: Album) -> Iterator[tuple[int, Picture]]:
    for number in album.by_place():
        yield number, album.encode(number)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
