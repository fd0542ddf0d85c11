"""What a run that goes on has written until now."""

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
        self._groups: dict[str, tuple[int, Json]] = {}  # with the version that they are of
        self._fresh_since = self._curves_since = 0
        self._changed_at = ""

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, {} as long as there is none."""
        self._config = self._config or read_config(self.run_dir / "config.yaml")
        return self._config

    def poll(self) -> None:
        """Read what the run has appended."""
        before = self._metrics_file.bad_lines + self._samples_file.bad_lines
        lines, metrics_fresh = self._metrics_file.read()
        rows, rows_fresh = self._samples_file.read()
        bad_lines = self._metrics_file.bad_lines + self._samples_file.bad_lines
        if not (lines or rows or metrics_fresh or rows_fresh or bad_lines > before):
            return
        self.version += 1
        self._changed_at = time.strftime("%H:%M:%S")
        if lines or metrics_fresh:
            self._metrics = series(lines, {} if metrics_fresh else self._metrics)
            self._curves_since = self.version
        if rows_fresh:
            self._rows, self._groups, self._fresh_since = {}, {}, self.version
        self._add(rows)

    def _add(self, rows: list[dict[str, Any]]) -> None:
        for group in by_prompt(rows):
            key = rollout_key(group)
            self._rows.setdefault(key, []).extend(group)
            self._groups[key] = self.version, rollout_group(self._rows[key], self.config, self.album)
        kept = sum(map(len, self._rows.values()))
        while kept > self.samples and len(self._rows) > 1:
            oldest = next(iter(self._rows))
            kept -= len(self._rows.pop(oldest))
            del self._groups[oldest]

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
        bad_lines = self._metrics_file.bad_lines + self._samples_file.bad_lines
        told = f"Step {last_step}, last change at {self._changed_at}."
        return f"{told} {bad_lines} lines of its files cannot be read." if bad_lines else told
