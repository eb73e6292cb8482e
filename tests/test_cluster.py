"""The paper edition's 42 trainings on a cluster: SLURM, as one node of `slurm_node.py`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import slurm_node
from conftest import CHECKOUT, assert_same_tensors, environment, run_command
from project import Place, project

PROFILE = CHECKOUT / "workflow/profiles/slurm"
PREEMPTED = "thumos14_i3d"
CALL = (
    *("snakemake", "--snakefile", CHECKOUT / "Snakefile", "--profile", PROFILE),
    *(
        "--config",
        f"rows={PREEMPTED}",
        "released=false",
        "gpu=0",
        "scratch=$NODE_DISK/$SLURMD_NODENAME",
    ),
)
# seconds until the first look at jobs; the next is ten later
OFTEN = ("--slurm-init-seconds-before-status-checks", "2")
LONGEST = 600.0

has_plugin = find_spec("snakemake_executor_plugin_slurm") is not None
is_plain_path = shlex.quote(str(CHECKOUT)) == str(CHECKOUT)
slurm_can_run = has_plugin and is_plain_path and slurm_node.is_running()
needs_slurm = pytest.mark.skipif(
    not slurm_can_run,
    reason="no SLURM: make env EXTRAS=slurm, and as root tests/slurm_node.py start; in a checkout "
    "without spaces and quotes in its path",
)


@pytest.fixture(scope="module", autouse=True)
def under_way(request):
    """A call on the cluster, which mostly waits: it goes on while the first tests of this file run.

    Its process, and the thread that preempts its training.
    """
    if not slurm_can_run:
        yield None
        return
    workspace = request.getfixturevalue("workspace")
    call = [str(part) for part in (*CALL, "--jobs", "4", *OFTEN)]
    variables = environment(NODE_DISK=str(workspace / "disk of the node"))
    with (workspace / "call.log").open("w") as log, ThreadPoolExecutor(1) as beside:
        running = subprocess.Popen(
            call, cwd=workspace, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield running, beside.submit(preempt, workspace, running)
        finally:
            running.kill()
            # where no test has waited for it, its jobs would go on
            subprocess.run(["scancel", "--me"], check=True)


@pytest.fixture(scope="module")
def cluster(workspace, under_way):
    """A working folder whose row went through SLURM, its training preempted once."""
    running, preemption = under_way
    preempted_after = preemption.result(LONGEST)
    running.wait(LONGEST)
    assert running.returncode == 0, (workspace / "call.log").read_text()[-3000:]
    return workspace, preempted_after


def preempt(folder: Path, running: subprocess.Popen) -> int:
    """Send a training back into the queue, as whoever has precedence does; the epoch it was in."""
    history = folder / f"results/demo/logs/train/{PREEMPTED}-seed0.log"
    began = time.monotonic()
    while running.poll() is None and time.monotonic() - began < LONGEST:
        epochs = epochs_of(history)
        if len(epochs) >= 2:
            (job,) = jobs_of("train", PREEMPTED)
            subprocess.run(["scontrol", "requeue", job], check=True)
            start_again(job)
            return epochs[-1]
        time.sleep(0.1)
    raise AssertionError(f"no training to preempt: {(folder / 'call.log').read_text()[-3000:]}")


def start_again(job: str) -> None:
    """Let a job that was sent back begin at once: SLURM would hold it for two minutes."""
    was_waiting = False
    for _ in range(600):
        listed = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
        state = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.strip()
        if state == "PENDING":
            was_waiting = True
            # it may have begun meanwhile
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
        elif was_waiting:
            return
        time.sleep(0.1)
    raise AssertionError(f"job {job} does not begin again: {state}")


def jobs_of(rule: str, row: str) -> list[str]:
    """Numbers of the jobs of a rule that run for a row."""
    listed = subprocess.run(
        ["squeue", "--noheader", "--states=RUNNING", "--format=%i %k"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = []
    for line in listed.stdout.splitlines():
        number, _, comment = line.partition(" ")
        if f"rule_{rule}_" in comment and row in comment:
            found.append(number)
    return found


def epochs_of(log: Path) -> list[int]:
    """The epochs that a log tells of, in its order."""
    if not log.exists():
        return []
    return [int(found) for found in re.findall(r"^epoch (\d+)/", log.read_text(), re.M)]


@pytest.mark.skipif(not has_plugin, reason="make env EXTRAS=slurm")
def test_a_checkout_that_executors_cannot_name_in_a_script_is_refused_at_once(tree):
    place = Place(tree, project(tree / "it's a folder"))
    profile = str(place.copy / "workflow/profiles/slurm")
    done = place.snakemake("--profile", profile, "--dry-run", check=False)
    assert done.returncode != 0
    words = "no path of the checkout or its environment may have a space or a quote"
    assert words in done.stdout + done.stderr


# ------------------------------------------------------------------------------------ what is asked


@pytest.fixture
def asked(tree):
    """Says how a training is submitted: `sbatch` writes down what it is given, and refuses it."""
    made = ("build/demo/audit/thumos14_i3d.json", "--cores", "2")
    run_command(tree, "snakemake", "--snakefile", str(CHECKOUT / "Snakefile"), *made)
    programs = tree / "programs"
    programs.mkdir()
    stand_ins = {
        "sbatch": 'echo "$@" >> asked; exit 1',
        "sacctmgr": "echo lab",
        "sinfo": "echo main*",
    }
    for name, text in stand_ins.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    def ask(*config: str, **variables: str) -> list[str]:
        (tree / "asked").unlink(missing_ok=True)
        path = f"{programs}{os.pathsep}{environment()['PATH']}"
        subprocess.run(
            [
                *("snakemake", "--snakefile", CHECKOUT / "Snakefile", "--profile", PROFILE),
                "results/demo/thumos14_i3d/seed0/model.pt",
                *("--config", "released=false", *config),
            ],
            cwd=tree,
            env=environment(PATH=path, **variables),
            capture_output=True,
            check=False,
        )
        first, *again = (tree / "asked").read_text().splitlines()
        assert len(again) == 1  # restart-times
        return shlex.split(first)

    return ask


@pytest.mark.skipif(not has_plugin, reason="make env EXTRAS=slurm")
def test_a_training_asks_for_a_gpu_and_for_what_its_row_and_edition_need(asked):
    options = asked()
    assert "--gpus=1" in options
    assert "--requeue" in options
    assert options[options.index("--mem") + 1] == "3000"
    assert options[options.index("-t") + 1] == "60"
    assert options[options.index("-p") + 1] == "main"
    assert "-A" not in options


@pytest.mark.skipif(not has_plugin, reason="make env EXTRAS=slurm")
def test_account_and_partitions_are_variables_and_a_cluster_may_have_no_gpu(asked):
    told = {"ACTIONFORMER_ACCOUNT": "lab", "ACTIONFORMER_PARTITION": "long"}
    options = asked("gpu=0", **told)
    assert options[options.index("-A") + 1] == "lab"
    assert options[options.index("-p") + 1] == "long"
    assert not any("--gpus" in option for option in options)
    options = asked(**told, ACTIONFORMER_GPU_PARTITION="a100")
    assert options[options.index("-p") + 1] == "a100"


# ----------------------------------------------------------------------------- what a cluster does


@needs_slurm
def test_a_preempted_training_goes_on_to_the_weights_of_an_undisturbed_one(cluster, tmp_path):
    folder, after = cluster
    log = folder / f"results/demo/logs/train/{PREEMPTED}-seed0.log"
    gone_on = re.search(r"^goes on after epoch (\d+)/24$", log.read_text(), re.M)
    assert gone_on is not None, log.read_text()
    # whatever was trained when it was seen, and what it trained until the signal came
    assert int(gone_on[1]) >= after
    assert epochs_of(log) == list(range(int(gone_on[1]) + 1, 25))
    quiet = tmp_path / "quiet"
    shutil.copytree(folder / "build", quiet / "build")
    shutil.copytree(folder / "data", quiet / "data")
    run_command(quiet, "actionformer", "train", PREEMPTED, "--device", "cpu")
    weights = []
    for place in (folder, quiet):
        path = place / f"results/demo/{PREEMPTED}/seed0/model.pt"
        weights.append(torch.load(path, weights_only=True)["state_dict"])
    assert_same_tensors(*weights)


@needs_slurm
def test_what_went_through_slurm_leaves_nothing_to_be_done(cluster):
    folder, _ = cluster
    planned = run_command(folder, *map(str, CALL), "--dry-run")
    assert "Nothing to be done" in planned.stdout + planned.stderr
    assert (folder / f"results/demo/{PREEMPTED}/README.md").exists()


@needs_slurm
def test_short_jobs_run_where_snakemake_does_and_long_ones_on_nodes(cluster):
    folder, _ = cluster
    submitted = set(re.findall(r"/slurm_logs/rule_(\w+)/", (folder / "call.log").read_text()))
    # a variable that is set on nodes alone
    node = socket.gethostname().partition(".")[0]
    assert len(list((folder / "disk of the node" / node).glob("*/*.h5"))) == 1
    assert submitted == {"pack", "audit", "train", "detect", "evaluate", "draw"}
