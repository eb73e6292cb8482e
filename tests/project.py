"""A copy of the project in a repository of its own, for tests that edit it or use it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from actionformer.params.files import merged
from conftest import CHECKOUT, environment

ROW, OTHER = "hacs_slowfast", "thumos14_i3d"
ROWS = [ROW, OTHER]


def project(folder: Path) -> Path:
    """A copy of the project, in a repository of its own, whose rows are trained for one epoch."""
    copy = folder / "project"
    for name in ("workflow", "params", "src"):
        shutil.copytree(
            CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("Snakefile", "requirements.lock", "environment.yml"):
        shutil.copy(CHECKOUT / name, copy / name)
    shorten(copy / "params")
    git(copy, "init", "--quiet")
    commit(copy)
    return copy


def shorten(params: Path) -> None:
    """Let every demo row of a params folder be trained for one epoch."""
    path = params / "editions/demo.yaml"
    edition = yaml.safe_load(path.read_text())
    edition["all_experiments"]["training"] |= {
        "schedule_epochs": 1,
        "warmup_epochs": 1,
        "first_eval_epoch": 0,
    }
    for row in edition["experiments"].values():
        row.pop("training", None)
    path.write_text(yaml.safe_dump(edition))


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(copy: Path) -> str:
    """Commit everything; returns the commit."""
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--allow-empty", "--message", "state")
    return git(copy, "rev-parse", "HEAD")


class Place:
    """A working folder and the copy of the project that works in it."""

    def __init__(self, folder: Path, copy: Path) -> None:
        self.folder, self.copy = folder, copy

    def run(
        self, *command: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {"PYTHONPATH": str(self.copy / "src"), **variables}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def command(self, *extra: str, config: tuple[str, ...] = ()) -> list[str]:
        call = ["snakemake", "--snakefile", f"{self.copy}/Snakefile", "--cores", "2", *extra]
        return [*call, "--config", f"params={self.copy}/params", f"rows={','.join(ROWS)}", *config]

    def snakemake(
        self, *extra: str, config: tuple[str, ...] = (), check: bool = True, **variables: str
    ):
        return self.run(*self.command(*extra, config=config), check=check, **variables)

    def planned(self, *extra: str, config: tuple[str, ...] = ()) -> dict[str, int]:
        """Rule -> how many of its jobs a call would run, of those of rows and tables."""
        said = self.snakemake("-n", *extra, config=config).stdout
        if "Nothing to be done" in said:
            return {}
        stats = said[said.index("Job stats:") :]
        jobs = {}
        for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.M):
            if name not in ("total", "all", "page", "report_page", "track"):
                jobs[name] = int(count)
        return jobs

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text of the project, which must be there."""
        path = self.copy / file
        text = path.read_text()
        assert old in text, f"{file} holds no {old!r}"
        path.write_text(text.replace(old, new))

    def params(self, file: str, **parts: dict[str, object]) -> None:
        """Set values in a params file."""
        path = self.copy / "params" / file
        path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), parts)))

    def seed(self, row: str, seed: int = 0) -> Path:
        return self.folder / f"results/demo/{row}/seed{seed}"

    def read(self, row: str, name: str):
        return json.loads((self.seed(row) / name).read_text())
