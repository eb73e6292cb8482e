"""Environments that Snakemake deploys: the jobs run in them, and the program is the checkout's. Its
workflow catalog.

conda and apptainer are stand-ins here: a conda that makes virtual environments, an apptainer whose
images are folders with a `bin`. What Snakemake asks of them, and what runs then, is real.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from actionformer import layout
from actionformer.files.reading import read_object
from actionformer.params.yaml_files import read_yaml
from conftest import CHECKOUT, environment, run_command
from test_result_cache import SHORT

CALL = (
    *("snakemake", "--snakefile", str(CHECKOUT / "Snakefile"), "--cores", "2", "--config"),
    *("rows=thumos14_i3d", "seeds=0", "released=false", f"set={','.join(SHORT)}"),
)

# no further than there
DETECTED = ("--until", "detect")

CONDA = """#!/bin/bash
# a conda that makes virtual environments
here=$(dirname "$(dirname "$(readlink -f "$0")")")
case "$1 $2" in
    "info --json") echo '{"conda_prefix": "'"$here"'", "platform": "linux-64"}' ;;
    "--version ") echo "conda 25.1.0" ;;
    "config --get") echo '{"get": {"channel_priority": "strict"}}' ;;
    "env create")
        while [ "$1" != --prefix ]; do shift; done
        exec MAKE "$2" ;;
    "clean -y") ;;
    *) echo "conda $*: not expected" >&2; exit 1 ;;
esac
"""
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'
APPTAINER = """#!/bin/bash
# an apptainer whose images are folders; of the host a container sees the system's programs alone
[ "$1" = --version ] && { echo "apptainer version 1.3.0"; exit; }
[ "$1" = exec ] || { echo "apptainer $*: not expected" >&2; exit 1; }
echo "$*" >> "$(dirname "$0")/calls"
while [ "$1" != bash ]; do image=$1; shift; done
PATH="$image/bin:/usr/bin:/bin" exec "$@"
"""


def make_environment(folder: Path) -> str:
    """The command that makes an environment with our packages, but without our program."""
    packages = sysconfig.get_path("purelib")
    python = f"python{sysconfig.get_python_version()}"
    script = folder / "make"
    script.write_text(
        f'#!/bin/bash\n{shlex.quote(sys.executable)} -m venv --without-pip "$1"\n'
        f'echo {shlex.quote(packages)} > "$1"/lib/{python}/site-packages/packages.pth\n'
    )
    script.chmod(0o755)
    return shlex.quote(str(script))


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture(scope="module")
def folder(workspace, tmp_path_factory) -> Path:
    """A working folder; Snakemake's conda knows no folder with a quote in its name."""
    return shutil.copytree(workspace, tmp_path_factory.mktemp("work") / "a folder", symlinks=True)


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder with the stand-ins."""
    root = tmp_path / "conda"
    root.mkdir()
    write_program(root / "bin/conda", CONDA.replace("MAKE", make_environment(root)))
    write_program(root / "bin/activate", ACTIVATE)
    write_program(root / "bin/apptainer", APPTAINER)
    return root


def call(folder: Path, programs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    variables = environment()
    variables["PATH"] = f"{programs / 'bin'}{os.pathsep}{variables['PATH']}"
    return subprocess.run(
        [*CALL, *more], cwd=folder, capture_output=True, text=True, env=variables, check=False
    )


def prefixes(folder: Path) -> dict[str, str]:
    """Stage -> the environment in which it ran, as the lineage says."""
    (run,) = (folder / "results/demo").glob("thumos14_i3d*/seed0")
    (session,) = read_object(run / "lineage.json")["trained_by"]
    detected = read_object(layout.manifest(run / "detections.json"))["detected_by"]
    return {
        "train": session["environment"]["prefix"],
        "detect": detected["environment"]["prefix"],
    }


def test_jobs_run_in_the_environment_that_conda_deploys_and_nothing_runs_again_without_it(
    folder, programs
):
    done = call(folder, programs, "--sdm", "conda", *DETECTED)
    assert done.returncode == 0, done.stderr[-3000:]
    (deployed,) = (folder / ".snakemake/conda").glob("*_/")
    found = prefixes(folder)
    assert found == dict.fromkeys(found, str(deployed))
    planned = call(folder, programs, "--dry-run", *DETECTED)
    assert re.search("^total +0$", planned.stdout, re.MULTILINE), planned.stdout


def test_jobs_run_in_the_container(folder, programs, tmp_path):
    image = tmp_path / "image"
    subprocess.run([programs / "make", image], check=True)
    forced = ("--forcerun", "detect", *DETECTED)
    done = call(folder, programs, f"container={image}", "--sdm", "apptainer", *forced)
    assert done.returncode == 0, done.stderr[-3000:]
    assert prefixes(folder)["detect"] == str(image)
    # it sees the checkout, which the working folder need not lie in
    calls = (programs / "bin/calls").read_text().splitlines()
    assert all(f"--bind {CHECKOUT}" in line for line in calls)


def test_a_container_without_a_name_is_one_line(folder, programs):
    done = call(folder, programs, "--sdm", "apptainer")
    assert done.returncode == 1
    assert "name the image of this checkout's Containerfile" in done.stderr


def planned_jobs(folder: Path, snakefile: Path) -> dict[str, int]:
    """How many jobs of which rule a call would run."""
    command = ("snakemake", "--snakefile", str(snakefile), "--dry-run", "--quiet", "rules")
    plan = run_command(folder, *command)
    jobs = re.findall(r"^(\w+) +([0-9]+)$", plan.stdout + plan.stderr, re.MULTILINE)
    return {rule: int(count) for rule, count in jobs if rule not in ("all", "default", "total")}


def test_the_catalog_finds_a_workflow_that_plans_what_ours_does(workspace, tmp_path):
    """It wants workflow/Snakefile, config/README.md and its settings, and deploys a module."""
    ours = planned_jobs(workspace, CHECKOUT / "Snakefile")
    assert ours["train"] == 14
    assert planned_jobs(workspace, CHECKOUT / "workflow/Snakefile") == ours
    deployed = tmp_path / "deployed"
    shutil.copytree(workspace, deployed)
    shutil.copytree(CHECKOUT / "config", deployed / "config")
    (deployed / "Snakefile").write_text(
        "configfile: 'config/config.yaml'\n"
        "module actionformer:\n"
        f"    snakefile: {str(CHECKOUT / 'workflow/Snakefile')!r}\n"
        "    config: config\n"
        "use rule * from actionformer\n"
    )
    assert planned_jobs(deployed, deployed / "Snakefile") == ours


def test_the_catalogs_settings_are_those_that_it_reads():
    settings = read_yaml(CHECKOUT / ".snakemake-workflow-catalog.yml")["usage"]
    assert set(settings) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (CHECKOUT / "config/README.md").exists()
