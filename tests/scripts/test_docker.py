"""The images' files are sound, and the script that executes their steps reads them as an engine would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.docker_root import Build, Step, context_files, read_dockerfile

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def test_hadolint_finds_nothing() -> None:
    command = [Path(sys.executable).parent / "hadolint", *FILES]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(FILES) == 2 and (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_image_is_made_by_the_install_script_and_runs_as_no_root(file: Path) -> None:
    steps = read_dockerfile(file.read_text())
    stack = "gpu" if "cuda" in file.name else "cpu"
    (install,) = [step.text for step in steps if "install.sh" in step.text and step.name == "RUN"]
    assert install.endswith(f"bash scripts/install.sh {stack}")
    last = max(place for place, step in enumerate(steps) if step.name == "FROM")
    assert [step.text for step in steps[last:] if step.name == "USER"] == ["1000"]
    assert steps[-1] == Step("CMD", '["python", "-m", "vgr_rl.main", "--help"]')


def test_an_image_has_the_code_and_nothing_else() -> None:
    files = set(map(str, context_files(ROOT)))
    assert {"pyproject.toml", "requirements/gpu.lock", "recipes/tiny/grpo.yaml", "vgr_rl/main.py"} <= files
    folders = {name.split("/")[0] for name in files if "/" in name}
    assert folders == {"recipes", "requirements", "rewards", "scripts", "vgr_rl"}
    assert not any("__pycache__" in name for name in files)


def test_files_are_copied_as_docker_copies_them(tmp_path: Path) -> None:
    build = Build(tmp_path, ROOT)
    owner = f"--chown={os.getuid()}"
    build.step(Step("WORKDIR", "/opt/app"))
    build.step(Step("COPY", f"{owner} pyproject.toml LICENSE ./"))
    build.step(Step("COPY", f"{owner} vgr_rl/cpu vgr_rl/cpu/"))
    build.step(Step("COPY", f"{owner} rewards/__init__.py rewards/"))
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    in_cpu = {f"opt/app/{file}" for file in context_files(ROOT) if file.parent == Path("vgr_rl/cpu")}
    assert copied == {"opt/app/pyproject.toml", "opt/app/LICENSE", "opt/app/rewards/__init__.py"} | in_cpu
    with pytest.raises(ValueError, match="COPY tests: no such file in the context"):
        build.step(Step("COPY", f"{owner} tests ."))
    with pytest.raises(ValueError, match="this script knows no from"):
        build.step(Step("COPY", "--from=base a b"))
    with pytest.raises(ValueError, match="HEALTHCHECK NONE: this script knows no HEALTHCHECK"):
        build.step(Step("HEALTHCHECK", "NONE"))


def test_compose_starts_both_images_without_keys_of_its_own() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert {name: service["build"]["dockerfile"] for name, service in services.items()} == {
        file.stem: str(file.relative_to(ROOT)) for file in FILES
    }
    assert all(service["environment"] == ["WANDB_API_KEY", "HF_TOKEN"] for service in services.values())


@pytest.mark.slow
def test_the_gpu_lock_resolves_without_conflict_to_what_it_says(tmp_path: Path) -> None:
    for name in ("requirements", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    result = subprocess.run(
        ["bash", "scripts/lock.sh", "gpu"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    committed = (ROOT / "requirements" / "gpu.lock").read_text()
    assert (tmp_path / "requirements" / "gpu.lock").read_text() == committed
