"""SLURM as one node on this machine, for `test_cluster.py`: Debian's packages, run as root.

    apt-get install slurmd slurmctld slurm-client munge
    python tests/slurm_node.py start
    python tests/slurm_node.py stop

Its configuration lies where SLURM looks for it, since jobs lose SLURM_CONF on their way. One that
lies there already is never touched: that is somebody's cluster.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

# by which the tests know that they may submit jobs here
CLUSTER = "actionformer_test"
CONFIG = Path("/etc/slurm/slurm.conf")
STATE = Path("/run/actionformer-slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "squeue", "scontrol")
PATIENCE = 30.0


def is_running() -> bool:
    """Does a node of these tests answer?"""
    if shutil.which("sinfo") is None:
        return False
    told = subprocess.run(["sinfo", "--version"], capture_output=True, check=False)
    if told.returncode or not CONFIG.exists() or f"ClusterName={CLUSTER}\n" not in _config():
        return False
    state = subprocess.run(
        ["sinfo", "--noheader", "--format", "%T"], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() in ("idle", "mixed", "allocated")


def start() -> str:
    """Start the node; says what became of it.

    Raises:
        SystemExit: no root, a program is missing, or a configuration is there.
    """
    if is_running():
        raise SystemExit("SLURM: a node of other tests runs here already")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.getuid() != 0 or missing:
        raise SystemExit(f"SLURM: needs root and {', '.join(missing or PROGRAMS)}")
    if CONFIG.exists() and f"ClusterName={CLUSTER}\n" not in _config():
        raise SystemExit(f"{CONFIG}: is there already, of another cluster, and stays as it is")
    shutil.rmtree(STATE, ignore_errors=True)
    for folder in (STATE / "controller", STATE / "node", CONFIG.parent):
        folder.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text(_text())
    if subprocess.run(["munge", "--no-input"], capture_output=True, check=False).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon], check=True)
    began = time.monotonic()
    while not is_running():
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"SLURM: does not answer; its logs are in {STATE}")
        time.sleep(0.5)
    return "SLURM: one node runs"


def stop() -> str:
    """End the node and take its configuration away."""
    for name in ("slurmd", "slurmctld"):
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == name:
                process.terminate()
    if CONFIG.exists() and f"ClusterName={CLUSTER}\n" in _config():
        CONFIG.unlink()
    return "SLURM: ended"


def _config() -> str:
    return CONFIG.read_text(encoding="utf-8")


def _text() -> str:
    """One node with all cores and most of the memory, without accounting, as clusters have it."""
    host = socket.gethostname().partition(".")[0]
    megabytes = int(psutil.virtual_memory().total / 2**20 * 0.9)
    lines = {
        "ClusterName": CLUSTER,
        "SlurmctldHost": host,
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        # cgroups are not to be had in a container
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "ReturnToService": "2",
        "StateSaveLocation": str(STATE / "controller"),
        "SlurmdSpoolDir": str(STATE / "node"),
        "SlurmctldPidFile": str(STATE / "slurmctld.pid"),
        "SlurmdPidFile": str(STATE / "slurmd.pid"),
        "SlurmctldLogFile": str(STATE / "slurmctld.log"),
        "SlurmdLogFile": str(STATE / "slurmd.log"),
        "NodeName": f"{host} CPUs={os.cpu_count()} RealMemory={megabytes} State=UNKNOWN",
        "PartitionName": "main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


if __name__ == "__main__":
    print({"start": start, "stop": stop}[sys.argv[1]]())
