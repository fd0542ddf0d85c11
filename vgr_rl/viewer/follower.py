"""What a run that goes on has written until now."""

import logging
import time
from pathlib import Path
from typing import Any

from vgr_rl.viewer.browser import rollout_group, rollout_key
from vgr_rl.viewer.page import render_curves
from vgr_rl.viewer.pictures import Album
from vgr_rl.viewer.reports import curves_of
from vgr_rl.viewer.runs import METRIC_FIELDS, ROW_FIELDS, Group, Series, by_prompt, read_config, series
from vgr_rl.viewer.tail import Tail
from vgr_rl.viewer.traces import Json

log = logging.getLogger(__name__)


class Follower:
    """What a run has written until now: its newest rollouts by prompt, and its curves.

    Attributes:
        version: grows with every change.
    """

    def __init__(self, run_dir: Path, samples: int, album: Album) -> None:
        self.run_dir, self.samples, self.album = run_dir, samples, album
        self.version = 0
        self._metrics_file = Tail(run_dir / "metrics.jsonl", METRIC_FIELDS)
        self._samples_file = Tail(run_dir / "samples.jsonl", ROW_FIELDS)
        self._metrics: dict[str, Series] = {}
        self._config: dict[str, Any] = {}
        self._rows: dict[str, Group] = {}
        self._undescribed: dict[str, None] = {}  # keys of rows, by age
        self._bad_rows = 0
        self._changed = False
        self._groups: dict[str, tuple[int, Json]] = {}  # with the version that they are of
        self._fresh_since = self._curves_since = 0
        self._changed_at = ""

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, {} as long as there is none."""
        self._config = self._config or read_config(self.run_dir / "config.yaml")
        return self._config

    @property
    def bad_lines(self) -> int:
        """How many lines of its files cannot be shown."""
        return self._metrics_file.bad_lines + self._samples_file.bad_lines + self._bad_rows

    def poll(self) -> bool:
        """Read a piece of what the run has appended; return whether there is more, which comes before a new version."""
        bad_lines = self.bad_lines
        lines, metrics_fresh = self._metrics_file.read()
        rows, rows_fresh = self._samples_file.read()
        if lines or metrics_fresh:
            self._metrics = series(lines, {} if metrics_fresh else self._metrics)
            self._curves_since = self.version + 1
        if rows_fresh:
            self._rows, self._groups, self._undescribed, self._bad_rows = {}, {}, {}, 0
            self._fresh_since = self.version + 1
        self._add(rows)
        self._changed |= bool(lines or rows) or metrics_fresh or rows_fresh or self.bad_lines > bad_lines
        if self._metrics_file.behind or self._samples_file.behind:
            return True
        if self._changed:
            self._changed = False
            self._changed_at = time.strftime("%H:%M:%S")
            self.version += 1
            self._describe()
        return False

    def _add(self, rows: list[dict[str, Any]]) -> None:
        for group in by_prompt(rows):
            key = rollout_key(group)
            self._rows.setdefault(key, []).extend(group)
            self._undescribed[key] = None
        kept = sum(map(len, self._rows.values()))
        while kept > self.samples and len(self._rows) > 1:
            oldest = next(iter(self._rows))
            kept -= len(self._rows.pop(oldest))
            self._groups.pop(oldest, None)
            self._undescribed.pop(oldest, None)

    def _describe(self) -> None:
        for key in self._undescribed:
            try:
                self._groups[key] = self.version, rollout_group(self._rows[key], self.config, self.album)
            except ValueError as error:  # such as a mask of another size than its picture
                log.warning("a prompt of step %s is left out: %s", self._rows[key][0].get("step"), error)
                self._bad_rows += len(self._rows.pop(key))
                self._groups.pop(key, None)
        self._undescribed = {}

    def since(self, version: int) -> Json:
        """Return what has changed since a version (0: everything), as the page's script takes it."""
        fresh = version < self._fresh_since or version == 0
        return {
            "fresh": fresh,
            "limit": self.samples,
            "groups": [group for changed, group in self._groups.values() if fresh or changed > version],
            "curves": render_curves(curves_of(self._metrics)) if version < self._curves_since else None,
            "text": self._text(),
        }

    def _text(self) -> str:
        if not self.version:
            return f"Waiting for {self.run_dir} to hold a step."
        last_step = max((points[-1][0] for points in self._metrics.values()), default=0)
        told = f"Step {last_step}, last change at {self._changed_at}."
        return f"{told} {self.bad_lines} lines of its files cannot be shown." if self.bad_lines else told
