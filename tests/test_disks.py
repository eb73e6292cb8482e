"""What is said before anything is computed on a disk that would lose it."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from actionformer import disks
from actionformer.commands.main import main
from actionformer.errors import InputError
from actionformer.tracking.store import open_store

Mount = namedtuple("Mount", "device mountpoint fstype opts")


@pytest.fixture
def mount(tmp_path, monkeypatch):
    """Let the current folder, which is a new one, lie on a disk of a kind that has to be named."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def mounted(kind: str, options: str = "rw") -> Path:
        root = Mount("/dev/sda", "/", "ext4", "rw")
        mounts = [root, Mount("host:/home", str(tmp_path), kind, options)]
        monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
        return tmp_path

    return mounted


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "cifs", "fuse.sshfs", "fuse.ceph-fuse"])
def test_mlflows_database_is_refused_on_a_network_file_system(mount, kind, capsys):
    folder = mount(kind)
    words = rf"mlflow.db: on a network file system \({kind}\).*set MLFLOW_TRACKING_URI"
    with pytest.raises(InputError, match=words):
        open_store()
    (folder / "results").mkdir()
    assert main(["track"]) == 1
    assert "set MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert not (folder / "mlflow.db").exists()


def test_a_server_is_asked_wherever_the_folder_lies(mount, monkeypatch, tmp_path_factory):
    mount("nfs4")
    elsewhere = tmp_path_factory.mktemp("local") / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    assert open_store().search_experiments()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "fuse.fuse-overlayfs"])
def test_a_disk_of_this_machine_is_taken(mount, kind):
    mount(kind)
    assert open_store().search_experiments()


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("nfs", "rw,local_lock=all", "local_lock=all"),
        ("nfs4", "rw,local_lock=flock,vers=4.2", "local_lock=flock"),
        ("lustre", "rw,localflock", "localflock"),
        ("nfs4", "rw,local_lock=none", ""),
        ("lustre", "rw,flock", ""),
        ("ext4", "rw,nolock", ""),
    ],
)
def test_locks_that_hold_on_one_machine_alone_are_refused_where_jobs_run_on_several(
    mount, kind, options, named
):
    folder = mount(kind, options)
    assert disks.disk_of(folder / "not/there/yet").local_locks == named
    if named:
        with pytest.raises(InputError, match=f"mounted with {named}"):
            disks.refuse_local_locks(folder)
    else:
        disks.refuse_local_locks(folder)


def test_the_disk_is_that_of_the_innermost_mount(mount):
    folder = mount("nfs4")
    assert disks.disk_of(folder).is_network
    assert not disks.disk_of(folder.parent).is_network
    (folder.parent / "link").symlink_to(folder)
    assert disks.disk_of(folder.parent / "link").is_network
