"""Feature files of every kind become the same store; packing goes on after an interruption."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer.data import features as stores
from actionformer.data import members
from actionformer.data.feature_files import Form
from actionformer.data.features import FeatureStore, pack
from actionformer.errors import InputError
from conftest import run_command

ARRAYS = {
    f"v{i}": np.random.default_rng(i).standard_normal((i + 2, 3)).astype(np.float16)
    for i in range(4)
}


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def as_npz(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, feats=array, stride=np.array(4))
    return buffer.getvalue()


def as_pt(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(array), buffer)
    return buffer.getvalue()


def as_h5(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[f"p_{name}"] = array
    return buffer.getvalue()


FORMS: dict[str, dict[str, bytes]] = {
    "npy": {f"folder/p_{name}.npy": as_npy(array) for name, array in ARRAYS.items()},
    "npz": {f"p_{name}.npz": as_npz(array) for name, array in ARRAYS.items()},
    "pt": {f"deep/er/p_{name}.pt": as_pt(array) for name, array in ARRAYS.items()},
    "h5": {"features/all.h5": as_h5(ARRAYS), "readme.txt": b"x"},
    "two h5": {
        "train.h5": as_h5(dict(list(ARRAYS.items())[:2])),
        "valid.h5": as_h5(dict(list(ARRAYS.items())[2:])),
    },
}


def in_folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def in_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def in_tar(mode: str) -> Callable[[Path, dict[str, bytes]], Path]:
    def write(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, mode) as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write


CONTAINERS = {
    "folder": in_folder,
    "zip": in_zip,
    "tar": in_tar("w"),
    "tar.gz": in_tar("w:gz"),
    "tar.bz2": in_tar("w:bz2"),
}


@pytest.fixture(scope="module")
def md5(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("reference")
    return pack(in_zip(folder / "f", FORMS["npy"]), folder / "f.h5", dim=3, prefix="p_")["md5"]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_every_container_gives_the_same_store(form, container, tmp_path, md5):
    """Whatever the file is called: another source may give another archive under one name."""
    source = CONTAINERS[container](tmp_path / "features.zip", FORMS[form])
    manifest = pack(source, tmp_path / "f.h5", dim=3, prefix="p_")
    assert (manifest["videos"], manifest["md5"]) == (4, md5)
    store = FeatureStore(tmp_path / "f.h5")
    assert store.lengths == {name: len(array) for name, array in ARRAYS.items()}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(store[name][:], array)
        assert store[name].dtype == array.dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.h5", "f.json", "features.zip"]


def test_a_single_h5_file_is_a_source_of_its_own(tmp_path, md5):
    (tmp_path / "tsp.h5").write_bytes(as_h5(ARRAYS))
    assert pack(tmp_path / "tsp.h5", tmp_path / "f.h5", dim=3, prefix="p_")["md5"] == md5


@pytest.mark.parametrize(("given_", "kept"), [("f2", "f2"), ("f4", "f4"), ("f8", "f4")])
def test_the_publishers_precision_is_kept_double_becomes_single(given_, kept, tmp_path):
    source = in_folder(tmp_path / "in", {"v.npy": as_npy(np.ones((5, 3), given_))})
    pack(source, tmp_path / "f.h5", dim=3)
    assert FeatureStore(tmp_path / "f.h5")["v"].dtype == np.dtype(kept)


class Unwanted:
    def __reduce__(self):
        return os.system, ("touch loaded",)


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Unwanted()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def pickled_pt() -> bytes:
    buffer = io.BytesIO()
    torch.save({"feats": Unwanted()}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [("v.pkl", pickle.dumps(Unwanted())), ("v.npy", object_array()), ("v.pt", pickled_pt())],
)
def test_pickles_are_refused_with_the_line_that_converts_them_elsewhere(
    name, content, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source = in_zip(tmp_path / "f.zip", {name: content})
    with pytest.raises(
        InputError, match=r"video 'v' .*where you trust it: python -c .*numpy\.save"
    ) as refused:
        pack(source, tmp_path / "f.h5", dim=3)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.zip"]


def test_the_line_that_converts_a_pickle_does(tmp_path):
    path = tmp_path / "v.pkl"
    path.write_bytes(pickle.dumps([[1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(InputError) as refused:
        pack(tmp_path, tmp_path / "f.h5", dim=2)
    code = str(refused.value).split('python -c "')[1].split('" FILE')[0]
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "v.pkl.npy"), [[1, 2], [3, 4]])


def saved(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


def huge_h5() -> bytes:
    """An h5 file of a few hundred bytes whose data set says that it has 10**15 values."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("v", shape=(10**9, 10**6), dtype="f4", chunks=(1, 10**4))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "flipped", [pytest.param(place, id=f"byte {place}") for place in range(64, 1100, 61)]
)
def test_a_flipped_byte_in_a_tensors_file_is_noticed_or_changes_nothing(flipped, tmp_path):
    """torch ignores the checksums of its archives."""
    array = np.random.default_rng(0).normal(size=(60, 3)).astype("f4")
    content = bytearray(as_pt(array))
    content[flipped] ^= 0x10
    folder = in_folder(tmp_path / "f", {"v.pt": bytes(content)})
    try:
        pack(folder, tmp_path / "f.h5", dim=3)
    except InputError:
        return
    np.testing.assert_array_equal(FeatureStore(tmp_path / "f.h5")["v"], array)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"v.npz": as_npz(np.zeros((2, 4), "f4"))}, r"shape \(2, 4\), expected \(steps, 3\)"),
        (
            {
                "a/v.npy": FORMS["npy"]["folder/p_v0.npy"],
                "b/v.npy": FORMS["npy"]["folder/p_v0.npy"],
            },
            "'v' occurs twice",
        ),
        ({"v.pt": as_pt(np.zeros((0, 3), "f4"))}, "0 steps"),
        ({"v.h5": b"\x89HDF\r\n\x1a\n" + bytes(100)}, "not a complete h5 file"),
        ({"v.npz": as_npz(np.zeros((2, 3), "f4"))[:100]}, "not a complete array"),
        ({"v.npy": as_npy(np.zeros((2, 3), "i4"))}, "of type int32"),
        ({"readme.txt": b"x"}, "no features in it"),
        ({"__MACOSX/._v.npy": b"\x00\x05\x16\x07"}, "no features in it"),
        ({"v.npy": b"<html>"}, "not an npy or npz file"),
        ({"missing_files.txt": b"\xff\xfe"}, "missing_files.txt: not readable as UTF-8"),
        # finite, until it becomes single precision
        ({"v.npy": as_npy(np.full((2, 3), 1e300))}, "such as single precision cannot hold"),
        ({"v.npy": as_npy(np.zeros((2, 3), "f4")) + bytes(12)}, "promises 24 bytes, it holds 36"),
        ({"v.npy": as_npy(np.zeros((9, 3), "f4"))[:-12]}, "promises 108 bytes, it holds 96"),
        ({"v.pt": saved(torch.zeros((2, 3), device="meta"))}, "a meta tensor of torch.float32"),
        ({"v.pt": saved(torch.zeros(2, 3).to(torch.float8_e4m3fn))}, "of torch.float8_e4m3fn"),
        ({"v.h5": huge_h5()}, "holds 4,000,000.0 GB, expected at most 2 GB"),
    ],
)
def test_what_is_no_feature_array_is_named(members, words, tmp_path):
    with pytest.raises(InputError, match=words):
        pack(in_zip(tmp_path / "f.zip", members), tmp_path / "f.h5", dim=3)
    assert [path.name for path in tmp_path.iterdir()] == ["f.zip"]


def test_a_member_of_a_tar_that_nobody_reads_is_bounded_too(tmp_path, monkeypatch):
    """It is decompressed on the way to the next one: 1.9 GB of zeros cost a minute."""
    monkeypatch.setattr(members, "LARGEST", 1000)
    source = tmp_path / "f.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for name, content in (("notes.txt", bytes(2000)), ("v.npy", as_npy(np.ones((2, 3), "f4")))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match=r"f\.tar\.gz: notes\.txt: "):
        pack(source, tmp_path / "f.h5", dim=3)


PACKS_AND_LOSES_A_CTRL_C = """
import os, signal, sys
from actionformer.commands.main import main
from actionformer.data import features

# what a shell starts in the background ignores Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)

class Swallowing:
    def __del__(self):  # an exception in here is printed and forgotten, as in h5py's callbacks
        os.kill(os.getpid(), signal.{signal})

add = features._Partial.add
def added(partial, video, array_TC):
    add(partial, video, array_TC)
    if len(partial.digests) == 3:
        Swallowing()

features._Partial.add = added
sys.exit(main(["pack", "hacs", "slowfast"]))
"""


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_ctrl_c_that_gets_lost_ends_packing_all_the_same(signal, code, demo_data, tmp_path):
    shutil.copytree(demo_data / "hacs", tmp_path / "data/demo/hacs")
    program = PACKS_AND_LOSES_A_CTRL_C.format(signal=signal)
    done = run_command(tmp_path, sys.executable, "-c", program, check=False)
    assert done.returncode == code, done.stderr
    assert "goes on from here" in done.stderr
    journal = json.loads((tmp_path / "build/demo/hacs/.slowfast.h5.partial.json").read_text())
    assert len(journal["digests"]) == 3
    run_command(tmp_path, "actionformer", "pack", "hacs", "slowfast")


class Cut(BaseException):
    """Ctrl-C, or SIGTERM."""


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_packing_goes_on_after_interruptions_to_the_same_md5(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("cuts")
    source = in_zip(folder / "f.zip", FORMS["npy"])
    whole = pack(source, folder / "whole.h5", dim=3, prefix="p_")
    add = stores._Partial.add
    packed: list[str] = []
    for videos in cuts:
        left = [videos]

        def stop(partial, video, array, left=left):
            if left[0] == 0:
                raise Cut
            left[0] -= 1
            packed.append(video)
            add(partial, video, array)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stores._Partial, "add", stop)
            try:
                pack(source, folder / "f.h5", dim=3, prefix="p_")
                break
            except Cut:
                assert not (folder / "f.h5").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores._Partial, "add", lambda *args: (packed.append(args[1]), add(*args)))
        manifest = pack(source, folder / "f.h5", dim=3, prefix="p_")
    assert manifest == whole
    assert len(packed) >= 4
    if sum(cuts) < 4:
        assert sorted(packed) == sorted(ARRAYS)  # nothing twice


def test_a_partial_store_of_another_source_or_a_damaged_one_is_begun_anew(tmp_path, monkeypatch):
    source = in_zip(tmp_path / "f.zip", FORMS["npy"])
    whole = pack(source, tmp_path / "whole.h5", dim=3, prefix="p_")
    (tmp_path / ".f.h5.partial").write_bytes(b"half-written")
    (tmp_path / ".f.h5.partial.json").write_text(json.dumps({"stamp": "?", "digests": {"v0": "?"}}))
    assert pack(source, tmp_path / "f.h5", dim=3, prefix="p_") == whole
    assert not list(tmp_path.glob(".f.h5*"))


def test_a_journal_that_names_what_the_partial_store_lacks_is_not_trusted(tmp_path):
    source = in_zip(tmp_path / "f.zip", FORMS["npy"])
    whole = pack(source, tmp_path / "whole.h5", dim=3, prefix="p_")
    with h5py.File(tmp_path / ".f.h5.partial", "w") as file:
        file["videos/v0"] = ARRAYS["v0"]
    journal = {
        "stamp": stores._stamp(source, Form(3, "p_")),
        "digests": {"v0": stores._digest(ARRAYS["v0"]), "gone": "?"},
    }
    (tmp_path / ".f.h5.partial.json").write_text(json.dumps(journal))
    assert pack(source, tmp_path / "f.h5", dim=3, prefix="p_") == whole


def test_memory_stays_bounded_whatever_the_archives_size(tmp_path):
    """A compressed archive of 1.5 GB of features packs in a process that takes less than 1 GB."""
    source = tmp_path / "f.tar.gz"
    array = np.zeros((24_000, 1000), np.float32)  # 96 MB, which compress to nothing
    content = as_npy(array)
    with tarfile.open(source, "w:gz", compresslevel=1) as archive:
        for i in range(16):
            info = tarfile.TarInfo(f"v{i}.npy")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    code = """
import re, resource, sys
from pathlib import Path
from actionformer.data.features import pack

pack(Path(sys.argv[1]), Path(sys.argv[2]), dim=1000)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
own = Path("/proc/self/status")
if own.exists():  # on Linux ru_maxrss begins with what the parent had
    peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", own.read_text())[1])
print(peak)
"""
    assert (
        int(
            run_command(
                tmp_path, sys.executable, "-c", code, str(source), str(tmp_path / "f.h5")
            ).stdout
        )
        < 1e9
    )


def test_a_new_store_never_lies_beside_the_manifest_of_an_old_one(tmp_path):
    def cut() -> dict[str, str]:
        raise Cut

    source = in_zip(tmp_path / "f.zip", FORMS["npy"])
    pack(source, tmp_path / "f.h5", dim=3, prefix="p_")
    old = (tmp_path / "f.h5").read_bytes()
    in_zip(source, {"p_v0.npy": as_npy(np.ones((9, 3), "f4"))})
    with pytest.raises(Cut):
        pack(source, tmp_path / "f.h5", dim=3, prefix="p_", sources=cut)
    assert (tmp_path / "f.h5").read_bytes() == old
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            stores._Partial, "add", lambda *args: pytest.fail("packed before, and packed again")
        )
        assert pack(source, tmp_path / "f.h5", dim=3, prefix="p_")["videos"] == 1
