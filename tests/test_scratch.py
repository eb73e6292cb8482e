"""Copies of feature stores on a disk of the machine that a job runs on."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actionformer.commands.main import main
from actionformer.data.scratch import near
from actionformer.errors import InputError
from actionformer.files.md5 import file_md5

ROW = (
    *("thumos14_i3d", "--set", "data.videos=4"),
    *("training.schedule_epochs=1", "training.warmup_epochs=1"),
)


@pytest.fixture
def store(tmp_path) -> Path:
    path = tmp_path / "shared/i3d.h5"
    path.parent.mkdir()
    path.write_bytes(b"features" * 1000)
    return path


def test_the_first_job_copies_and_the_others_read_that(store, tmp_path):
    copy, why_not = near(store, "0" * 32, tmp_path / "scratch")
    assert why_not == ""
    assert copy.is_relative_to(tmp_path / "scratch")
    assert file_md5(copy) == file_md5(store)
    before = copy.stat().st_mtime_ns
    assert near(store, "0" * 32, tmp_path / "scratch") == (copy, "")
    assert copy.stat().st_mtime_ns == before


def test_of_jobs_that_come_at_once_one_copies_and_the_others_wait(store, tmp_path, monkeypatch):
    copied, copy = [], shutil.copyfile

    def slowly(source: Path, target: Path) -> None:
        copied.append(target)
        time.sleep(0.3)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", slowly)
    with ThreadPoolExecutor(4) as jobs:
        found = list(jobs.map(lambda _: near(store, "0" * 32, tmp_path / "scratch"), range(4)))
    assert len(copied) == 1
    assert len(set(found)) == 1
    assert file_md5(found[0][0]) == file_md5(store)


def test_other_features_have_another_copy(store, tmp_path):
    first, _ = near(store, "0" * 32, tmp_path)
    store.write_bytes(b"others")
    second, _ = near(store, "1" * 32, tmp_path)
    assert first != second
    assert second.read_bytes() == b"others"


def test_what_a_killed_job_has_left_is_copied_anew(store, tmp_path):
    copy, _ = near(store, "0" * 32, tmp_path)
    copy.write_bytes(b"half of it")
    assert near(store, "0" * 32, tmp_path) == (copy, "")
    assert file_md5(copy) == file_md5(store)


def test_the_folder_may_be_a_variable_of_the_machine(store, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "node"))
    copy, _ = near(store, "0" * 32, Path("$NODE_DISK"))
    assert copy.is_relative_to(tmp_path / "node")
    with pytest.raises(InputError, match=r"\$NO_DISK/x: a variable that is not set"):
        near(store, "0" * 32, Path("$NO_DISK/x"))


def test_without_room_the_shared_store_is_read_and_it_says_so(store, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    chosen, why_not = near(store, "0" * 32, tmp_path / "scratch")
    assert chosen == store
    assert f"reads {store} instead" in why_not


def test_a_folder_that_cannot_be_made_is_one_line(store, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="no folder for copies of stores"):
        near(store, "0" * 32, tmp_path / "file")


def test_a_training_and_a_detection_read_the_copy_and_find_the_same(tree):
    for command in (("convert", "thumos14"), ("pack", "thumos14", "i3d")):
        assert main([*command]) == 0
    assert main(["train", *ROW]) == 0
    assert main(["detect", *ROW]) == 0
    (run,) = Path("results/demo").glob("*/seed0")
    found = file_md5(run / "detections.json")
    shutil.rmtree(run)
    assert main(["train", *ROW, "--scratch", "scratch"]) == 0
    (copy,) = Path("scratch", f"actionformer-{os.getuid()}").glob("*.h5")
    assert file_md5(copy) == file_md5(Path("build/demo/thumos14/i3d.h5"))
    # it is the copy that is read: of a damaged one there is a line
    assert main(["detect", *ROW, "--scratch", "scratch"]) == 0
    assert file_md5(run / "detections.json") == found
    copy.write_bytes(bytes(copy.stat().st_size))
    assert main(["detect", *ROW, "--scratch", "scratch"]) == 1
