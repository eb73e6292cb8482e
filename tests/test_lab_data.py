"""A data set in a lab's bucket, or on its file server by ssh, as docs/data.md has it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import lab
from conftest import environment, run_command
from project import commit

FILES, SIZE = 200, 100_000
FOLDER = "data/paper/thumos14"


@pytest.fixture(params=["s3", "ssh"])
def remote(request, clone, tmp_path, monkeypatch):
    """A clone whose remote `lab` is a bucket or a server; DVC's variables for it."""
    needs = {"s3": ("dvc_s3", "boto3", "moto"), "ssh": ("dvc_ssh",)}[request.param]
    why = lab.lacking(*needs, programs=("sshd", "ssh-keygen") if request.param == "ssh" else ())
    if why:
        pytest.skip(why)
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        if request.param == "s3":
            variables = stack.enter_context(lab.bucket())
            address = f"s3://{lab.BUCKET}/dvc"
            options = {"endpointurl": variables["AWS_ENDPOINT_URL"]}
        else:
            (tmp_path / "ssh").mkdir()
            options = stack.enter_context(lab.ssh(tmp_path / "ssh"))
            address = f"ssh://127.0.0.1{tmp_path}/lab"
        run_command(clone, "dvc", "remote", "add", "lab", address)
        for name, value in options.items():
            run_command(clone, "dvc", "remote", "modify", "--local", "lab", name, value)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield Remote(clone, variables, tmp_path / "lab")


@dataclass(frozen=True)
class Remote:
    """A clone, and what its remote holds."""

    clone: Path
    bucket: Mapping[str, str]
    folder: Path

    def files(self) -> int:
        """How many files have arrived."""
        if self.bucket:
            return lab.objects(self.bucket)
        # DVC gives a file its name once it is whole
        return sum(1 for path in self.folder.rglob("*") if re.fullmatch("[0-9a-f]{30}", path.name))

    def not_there(self) -> list[str]:
        """What DVC says that its remote lacks.

        `dvc status --cloud` would say that all is in sync: it leaves out what has a remote of its
        own.
        """
        said = self.dvc("data", "status", "--not-in-remote", "--granular", "--json", FOLDER)
        return json.loads(said).get("not_in_remote", [])

    def dvc(self, *arguments: str) -> str:
        """What a command of DVC says."""
        return run_command(self.clone, "dvc", *arguments).stdout


def test_a_data_set_goes_there_and_comes_back_and_a_push_that_was_killed_is_found(remote):
    folder = remote.clone
    (folder / FOLDER).mkdir(parents=True)
    for i in range(FILES):
        (folder / FOLDER / f"{i}.bin").write_bytes(bytes([i]) * SIZE)
    run_command(folder, "actionformer", "pin", "thumos14", "--remote", "lab")
    # DVC compares with the commit, which has to know of the remote, too
    commit(folder)
    version = yaml.safe_load((folder / "data.dvc").read_text())["outs"][1]["md5"]

    pushing = subprocess.Popen(
        ["dvc", "push", "--jobs", "1", FOLDER],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not remote.files():
        assert pushing.poll() is None
        time.sleep(0.01)
    pushing.kill()
    pushing.wait()
    assert remote.files() < FILES
    assert f"{FOLDER}/" in remote.not_there()
    remote.dvc("push", "--quiet", FOLDER)
    assert not remote.not_there()

    shutil.rmtree(folder / FOLDER)
    shutil.rmtree(folder / ".dvc/cache")
    remote.dvc("pull", "--quiet", FOLDER)
    for i in range(FILES):
        assert (folder / FOLDER / f"{i}.bin").read_bytes() == bytes([i]) * SIZE
    assert yaml.safe_load((folder / "data.dvc").read_text())["outs"][1]["md5"] == version
