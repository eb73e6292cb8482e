"""The whole workflow, ended in every way that a user or a machine may end it, and gone on with."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from campaign import sandbox
from campaign.kills import OVERRIDES, _differences, _left, _litter
from conftest import CHECKOUT, environment

COMMAND = [
    *("snakemake", "--snakefile", str(CHECKOUT / "Snakefile"), "--cores", "2", "--quiet", "all"),
    *("--config", "rows=thumos14_i3d", "seeds=0", f"set={','.join(OVERRIDES)}"),
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)
# how often one workflow is ended
TIMES = 5
NOTHING_LEFT = "Nothing to be done"


class Workflow:
    """A folder with raw data, and what an undisturbed workflow makes of it."""

    def __init__(self, demo: Path, root: Path) -> None:
        self._root, self._demo = root, demo
        folder = self._begun()
        began = time.monotonic()
        done = _run(folder)
        if done.returncode:
            raise AssertionError(done.stderr)
        self.seconds = time.monotonic() - began
        self._expected = sandbox.in_child(_left, folder).result

    def _begun(self) -> Path:
        folder = self._root / "workflow/x"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(self._demo, folder / "data/demo")
        shutil.copy(CHECKOUT / "data.dvc", folder)
        return folder

    def ended(self, number: int, seed: int) -> str:
        """End a workflow several times, go on with it, and say what is wrong then."""
        rng = random.Random(f"{seed} {number}")
        folder = self._begun()
        for _ in range(TIMES):
            _end(folder, rng.choice(SIGNALS), rng.uniform(2, self.seconds))
            # as `make resume` does
            unlocked = subprocess.run(
                [*COMMAND, "--unlock"],
                cwd=folder,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if unlocked.returncode:
                return f"unlock: {unlocked.stderr}"
        done = _run(folder)
        if done.returncode:
            return f"the last call: {done.stderr}"
        planned = _run(folder, "--dry-run")
        if NOTHING_LEFT not in planned.stdout + planned.stderr:
            return f"something is left: {planned.stdout[-500:]} {planned.stderr[-500:]}"
        left = sandbox.in_child(_left, folder).result
        return "; ".join([*_differences(self._expected, left), *_litter(folder)])[-2000:]


def _run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *more]
    if more:
        # quiet, it would not say that nothing is left
        command = [part for part in command if part not in ("--quiet", "all")]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def _end(folder: Path, number: signal.Signals, after: float) -> None:
    """Run the workflow and send it, with all its jobs, a signal after some seconds."""
    process = subprocess.Popen(
        COMMAND,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(timeout=after)
        return
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, number)
    if number == signal.SIGSTOP:
        time.sleep(3)
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(3)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # jobs that a signal to Snakemake alone would have left
    time.sleep(1)
