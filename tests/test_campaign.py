"""A short share of the campaign (`make campaign`), and every damaged file that once got through."""

from __future__ import annotations

import sys

import pytest

from conftest import CHECKOUT, run_command


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(["fuzz", "--cases", "10"], id="damaged files"),
        pytest.param(
            ["kills", "disks", "--kills", "2", "--disks", "2"], id="killed processes, full disks"
        ),
    ],
)
def test_a_share_of_the_campaign_holds(part, tmp_path):
    """In a process of its own, which forks: nothing may have computed in it before."""
    command = [sys.executable, "-m", "campaign", "--seed", "1", "--jobs", "1", "--parts", *part]
    command += ["--out", str(tmp_path)]
    done = run_command(CHECKOUT / "tests", *command, check=False)
    wrong = tmp_path / "wrong.txt"
    assert done.returncode == 0, wrong.read_text() if wrong.exists() else done.stderr
