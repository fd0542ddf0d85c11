"""Execute a Dockerfile's steps in a Debian root of debootstrap, and a command in what comes of it, without an engine.

As root, with debootstrap installed (some minutes, 5 GB):

    python -m scripts.docker_root docker/cpu.Dockerfile --root /var/tmp/vgr-root -- python -m vgr_rl.main dry_run=true

One stage of FROM (debian:RELEASE…), RUN, COPY, ENV, WORKDIR, USER and CMD; other instructions are refused. Mounts are
made in a namespace of each step, so that nothing is left behind when one fails. `--env` and `--bind` hand a build what
a host needs to reach its registries: variables by name, and files or folders, read-only.
"""

import argparse
import fnmatch
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger("docker_root")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = """
set -e
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t sysfs -o ro sysfs "$ROOT/sys"
for path in $BIND; do
    if [ -d "$path" ]; then mkdir -p "$ROOT$path"; else mkdir -p "$ROOT$(dirname "$path")"; touch "$ROOT$path"; fi
    mount --bind -o ro "$path" "$ROOT$path"
done
exec chroot --userspec="$WHO" "$ROOT" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a Dockerfile and its arguments."""

    name: str
    text: str


@dataclass(slots=True)
class Build:
    """A root and what instructions before have set."""

    root: Path
    context: Path
    passed: tuple[str, ...] = ()
    bound: tuple[Path, ...] = ()
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    folder: str = "/"
    user: str = "0"

    def step(self, step: Step) -> None:
        """Execute an instruction.

        Raises:
            ValueError: for one that is not known here.
            subprocess.CalledProcessError: if its command fails.
        """
        logger.info("%s %s", step.name, step.text)
        match step.name:
            case "FROM":
                self._from(step.text)
            case "RUN":
                self.run(["/bin/sh", "-c", step.text])
            case "COPY":
                self._copy(shlex.split(step.text))
            case "ENV":
                self.env |= dict(word.split("=", 1) for word in shlex.split(step.text))
            case "WORKDIR":
                self.folder = step.text
                (self.root / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = step.text
            case "CMD":
                pass
            case _:
                raise ValueError(f"{step.name} {step.text}: this script knows no {step.name}")

    def run(self, command: Sequence[str]) -> None:
        """Run a command in the root, as the user and in the folder of the instructions before.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        given = {name: os.environ[name] for name in self.passed if name in os.environ}
        variables = [f"{name}={value}" for name, value in ({"HOME": self._home()} | given | self.env).items()]
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command]
        subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _ENTER, "enter", *variables, *inside],
            env={
                "PATH": os.environ["PATH"],
                "ROOT": str(self.root),
                "WHO": f"{self.user}:{self.user}",
                "BIND": " ".join(map(str, self.bound)),
            },
            check=True,
        )

    def _from(self, image: str) -> None:
        name, _, tag = image.partition(":")
        if name != "debian" or not tag:
            raise ValueError(f"FROM {image}: this script makes roots of debian:RELEASE only")
        if any(self.root.iterdir()):
            raise ValueError(f"--root={self.root} is not empty; name a new folder")
        release = tag.removesuffix("-slim")
        subprocess.run(["debootstrap", "--variant=minbase", release, str(self.root)], check=True)
        for file in ("/etc/resolv.conf", "/etc/hosts"):
            shutil.copy(file, self.root / file[1:])

    def _copy(self, words: Sequence[str]) -> None:
        options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
        *sources, target = (word for word in words if not word.startswith("--"))
        if unknown := options.keys() - {"chown"}:
            raise ValueError(f"COPY {shlex.join(words)}: this script knows no {', '.join(sorted(unknown))}")
        owner = int(options.get("chown", "0"))
        folder = self.root / self.folder.lstrip("/")
        files = list(context_files(self.context))
        for source in sources:
            found = list(_below(files, source))
            if not found:
                raise ValueError(f"COPY {source}: no such file in the context (.dockerignore leaves it out?)")
            base = Path(source) if (self.context / source).is_dir() else Path(source).parent
            for file in found:
                place = folder / target / file.relative_to(base)
                for parent in reversed(place.relative_to(folder).parents[:-1]):
                    if not (folder / parent).exists():
                        (folder / parent).mkdir()
                        os.chown(folder / parent, owner, owner)
                shutil.copy(self.context / file, place)
                os.chown(place, owner, owner)

    def _home(self) -> str:
        for line in (self.root / "etc" / "passwd").read_text().splitlines():
            fields = line.split(":")
            if self.user in (fields[0], fields[2]):
                return fields[5]
        raise ValueError(f"USER {self.user}: /etc/passwd has no such user")


def read_dockerfile(text: str) -> list[Step]:
    """Return the instructions of a Dockerfile, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    words = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [
        Step(name.upper(), " ".join(rest.split()) if name.upper() != "RUN" else rest.strip()) for name, rest in words
    ]


def context_files(context: Path) -> Iterator[Path]:
    """Yield the files that a build sees: what git tracks or would, less what .dockerignore leaves out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=context,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rules = [line for line in (context / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for name in sorted(filter(None, listed.split("\0"))):
        if (context / name).is_file() and _kept(name, rules):
            yield Path(name)


def _kept(name: str, rules: Iterable[str]) -> bool:
    """Say whether the last rule that fits a path or a folder above it keeps it."""
    path, kept = Path(name), True
    above = [str(path), *(str(folder) for folder in path.parents if str(folder) != ".")]
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        named = [Path(place).name for place in above] if "**/" in rule else above
        if any(fnmatch.fnmatchcase(place, pattern) for place in named):
            kept = rule.startswith("!")
    return kept


def _below(files: Iterable[Path], source: str) -> Iterator[Path]:
    return (file for file in files if source in (".", str(file)) or Path(source) in file.parents)


def main() -> int:
    """Build, then run the command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="folder to make the root in; new or empty")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="variable that steps see")
    parser.add_argument(
        "--bind", action="append", type=Path, default=[], help="file or folder that steps see, read-only"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="`-- COMMAND …`, run in the root at the end")
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if os.geteuid() != 0:
        parser.error("only root can make a root of its own")
    args.root.mkdir(parents=True, exist_ok=True)
    build = Build(args.root.resolve(), Path(__file__).parents[1], tuple(args.env), tuple(args.bind))
    for step in read_dockerfile(args.dockerfile.read_text(encoding="utf-8")):
        build.step(step)
    if command:
        logger.info("%s", shlex.join(command))
        build.run(command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
