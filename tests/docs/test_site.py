"""The site is built without a warning, with everything in it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rewards.load import BUILT_IN
from scripts.docs.__main__ import build
from scripts.docs.config_reference import CONFIG, comments, page
from scripts.docs.pages import ROOT, pages
from vgr_rl.monitoring.metric_names import METRICS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    assert build(out) == 0
    return out


def text_of(file: Path) -> str:
    return re.sub(r"<[^>]*>", "", file.read_text(encoding="utf-8"))


def test_a_folder_that_is_no_earlier_site_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.md"):
        with pytest.raises(ValueError, match="is no earlier site"):
            build(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_a_build_that_fails_leaves_the_earlier_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pages(text: str) -> Callable[[Path], None]:
        def gather(source: Path) -> None:
            shutil.copytree(ROOT / "docs" / "redirect", source / "docs" / "redirect")
            shutil.copy(ROOT / "docs" / "conf.py", source / "docs")
            (source / "docs" / "index.md").write_text(text)

        return gather

    out = tmp_path / "site"
    for text, status in (("# First", 0), ("# [Broken](nowhere.md)", 1), ("# Third", 0)):
        monkeypatch.setattr("scripts.docs.__main__.gather", pages(text))
        assert build(out) == status
        assert (text if status == 0 else "# First").strip("# ") in (out / "docs" / "index.html").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.slow
def test_every_page_is_there_and_in_the_menu(site: Path) -> None:
    assert "docs/index.html" in (site / "index.html").read_text()
    index = (site / "docs" / "index.html").read_text(encoding="utf-8")
    menu = set(re.findall(r'class="reference internal" href="([^"#]+)"', index))
    for path in pages():
        built = site / path.relative_to(ROOT).with_suffix(".html")
        assert built.is_file()
        if built.name != "index.html":
            assert any((site / "docs" / link).resolve() == built for link in menu), path
    assert (site / "_images" / "architecture.svg").is_file()


@pytest.mark.slow
def test_no_page_needs_the_network(site: Path) -> None:
    for file in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?://[^"]+)"', file.read_text("utf-8"))
        assert loaded == [], file


@pytest.mark.slow
def test_the_reference_has_every_key_metric_and_reward(site: Path) -> None:
    keys, metrics, rewards = (
        text_of(site / "docs" / "reference" / f"{n}.html") for n in ("config", "metrics", "rewards")
    )
    for key in ("run_dir", "guards.min_logprob_correlation", "pictures.every_n_steps", "model.frame", "judge.urls",
                "hardware.env", "data.make", "reward.terms.dual_iou", "launch.rendezvous"):  # fmt: skip
        assert f"{key}\n" in keys, key
    for name in (name for group in METRICS.values() for name in group):
        assert name in metrics.replace("&lt;", "<").replace("&gt;", ">"), name
    assert all(f"\n{name}" in rewards for name in BUILT_IN)
    assert "expression: DualIoU" not in rewards and "schedule" in rewards


def test_a_comment_above_or_behind_a_key_explains_it() -> None:
    text = "# heading\n\na:\n\n  # what b\n  # does\n  b: 1\n  c: 2\nd: 'x  # y'  # what d does\n"
    assert comments(text) == {("a", "b"): "what b does", ("d",): "what d does"}


def test_the_reference_explains_every_key_that_is_explained() -> None:
    reference = page()
    for key, value in yaml.safe_load((CONFIG / "main.yaml").read_text().partition("\nhydra:")[0]).items():
        if key != "defaults":
            assert f"| `{key}` |" in reference
            assert not isinstance(value, dict) or all(f"| `{key}.{inner}` |" in reference for inner in value)
    for key in yaml.safe_load((CONFIG / "evaluation" / "evaluate.yaml").read_text().partition("\nhydra:")[0]):
        assert key == "defaults" or f"| `{key}` |" in reference or f"| `{key}." in reference
