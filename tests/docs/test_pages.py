"""Links lead somewhere, commands can be typed, and blocks of Python are Python."""

import argparse
import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from rewards import __main__ as rewards_command
from scripts.docs.config_reference import CONFIG
from scripts.docs.pages import ROOT, Block, blocks, pages
from vgr_rl import doctor, merge, prepare, report
from vgr_rl.benchmarks import command as benchmarks
from vgr_rl.config import recipes, resolvers, search_path
from vgr_rl.diagnosis.finding import anchor
from vgr_rl.judge import __main__ as judge

BLOCKS = [block for page in pages() for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
PYTHON = [block for block in BLOCKS if block.language == "python"]
ARGPARSE: dict[str, Any] = {
    "rewards": rewards_command.main,
    "vgr_rl.doctor": doctor.main,
    "vgr_rl.judge": judge.main,
    "vgr_rl.merge": merge.main,
    "vgr_rl.prepare": prepare.main,
    "vgr_rl.report": report.main,
}
HYDRA = {
    "vgr_rl.main": (".", "main"),
    "vgr_rl.sft": ("sft", "sft"),
    "vgr_rl.evaluate": ("evaluation", "evaluate"),
}
GROUPS = {
    "vgr_rl.main": {"recipe", "model", "data", "reward", "judge", "hardware"},
    "vgr_rl.sft": {"recipe", "hardware"},
    "vgr_rl.evaluate": {"recipe"},
}
PROGRAMS = {
    "bash",
    "python",
    "ray",
    "pip",
    "ruff",
    "mypy",
    "pytest",
    "docker",
    "sbatch",
    "tensorboard",
    "vllm",
    "wandb",
    ".",
    "cat",
    "END",
    "{",
}
GENERATED = {ROOT / "docs" / "reference" / f"{name}.md" for name in ("config", "metrics", "rewards")}


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        place, _, heading = unquote(target).partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.exists() or path in GENERATED, target
        assert not heading or heading in anchors(path), target


def lines(block: Block) -> list[str]:
    """Return the commands of a block, each in one line; what feeds a program's input is none."""
    text = re.sub(r"<<'(\w+)'.*?^\1$", "", block.text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}: {block.text[:30].strip()}")
def test_a_shell_block_is_one_and_calls_what_exists(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for line in lines(block):
        for words in commands(line):
            assert words[0] in PROGRAMS, line
            if words[:2] == ["python", "-m"]:
                assert importlib.util.find_spec(words[2]) is not None, line
            elif words[0] in ("bash", "python"):
                assert (ROOT / words[1]).is_file() or words[1] in files_of_pages(), line


def files_of_pages() -> set[str]:
    return {block.file for block in BLOCKS if block.file}


def commands(line: str) -> list[list[str]]:
    """Split a line at `&&` and `;`, without comments, variables and redirections."""
    found: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("&&", ";", "|"):
            found.append([])
        else:
            found[-1].append(word)
    return [[word for word in words if not re.match(r"^[A-Z_]+=", word)] for words in found if words]


def calls(modules: Any) -> list[tuple[str, list[str]]]:
    """Return the calls of some modules in all blocks, each once."""
    found: dict[tuple[str, ...], None] = {}
    for block in SHELL:
        for line in lines(block):
            for words in commands(line):
                if words[:2] == ["python", "-m"] and words[2] in modules:
                    arguments = words[3 : words.index("<")] if "<" in words else words[3:]
                    found[(words[2], *arguments)] = None
    return [(name, list(arguments)) for name, *arguments in found]


class Parsed(Exception):
    pass


def stopped_after(parse: Any) -> Any:
    def parse_and_stop(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    return parse_and_stop


BENCHMARK_CALLS = [
    (benchmarks.main, words) for _, words in calls({"vgr_rl.evaluate"}) if words[0] in benchmarks.COMMANDS
]


@pytest.mark.parametrize(
    "main, arguments",
    [*((ARGPARSE[name], words) for name, words in calls(ARGPARSE)), *BENCHMARK_CALLS],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_the_arguments_of_a_command_are_accepted(
    main: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stopped_after(getattr(argparse.ArgumentParser, name)))
    with pytest.raises(Parsed):
        main(arguments)


@pytest.mark.slow
def test_overrides_are_of_keys_that_exist() -> None:
    for module in (recipes, resolvers, search_path):
        module.register()
    for name, words in calls(HYDRA):
        if words and words[0] in benchmarks.COMMANDS:
            continue
        given = [
            word for word in words if not word.startswith("--") and word not in ("job", "recipe=…", *own_recipes())
        ]
        groups = tuple(word for word in given if word.partition("=")[0] in GROUPS[name])
        config = composed(*HYDRA[name], *groups)
        for override in OverridesParser.create().parse_overrides([word for word in given if word not in groups]):
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=override.is_add())


@functools.cache
def composed(folder: str, name: str, *groups: str) -> DictConfig:
    """Return a configuration that refuses keys that it does not have; composing takes a second."""
    with initialize_config_dir(str(CONFIG / folder), version_base="1.3"):
        config = compose(name, overrides=list(groups))
    OmegaConf.set_struct(config, True)
    return config


def own_recipes() -> set[str]:
    return {f"recipe={Path(file).stem}" for file in files_of_pages() if file.startswith("recipes/")}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}: {block.text[:30].strip()}")
def test_a_block_of_python_is_python(block: Block) -> None:
    compile(block.text, block.page, "exec")


def quick_commands(block: Block) -> list[str]:
    """Return what a tutorial has typed, without what trains, looks at a run or needs a hub."""
    if block.language != "bash":
        return []
    typed = [block.text] if "<<" in block.text else lines(block)
    return [command for command in typed if not re.search(r"runs/|Qwen/", command)]


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_runs_up_to_its_training(tutorial: Path, tmp_path: Path) -> None:
    found = blocks(tutorial)
    counts = ["--train", "64", "--val", "16", "--heldout", "4", "--sft", "4", "--sft-val", "4"]
    prepare.main(["tiny", "--out", str(tmp_path / "runs" / "data" / "tiny"), *counts])  # runs would make more
    for block in found:
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    refusals = [block.text.splitlines() for block in found if block.language == "text"]
    commands = [command for block in found for command in quick_commands(block)]
    assert len(commands) >= 4
    for command in commands:
        result = subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        said = result.stdout + result.stderr
        assert result.returncode == 0 or any(all(line in said for line in text) for text in refusals), said[-3000:]
