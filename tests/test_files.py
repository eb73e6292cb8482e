"""Files are written whole or not at all; whatever is wrong with one that is read is one line."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import threading
import warnings
import zipfile
from collections import namedtuple
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer.errors import InputError
from actionformer.files import archives, csv_files, reading, values, writing
from actionformer.files.writing import NoRoom
from actionformer.training import checkpoint

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=12,
)

# ----------------------------------------------------------------------------------------- writing


def test_a_device_is_written_to_and_stays_one(tmp_path):
    """As root, replacing /dev/null would take it away from everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    came = []
    reader = threading.Thread(target=lambda: came.append(pipe.read_text()), daemon=True)
    reader.start()
    writing.write_text(pipe, "text\n")
    reader.join(timeout=10)
    assert came == ["text\n"]
    assert pipe.is_fifo()
    writing.write_text(Path("/dev/null"), "text\n")
    assert Path("/dev/null").is_char_device()


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    writing.write_text(link, "new")
    assert target.read_text() == "precious"
    assert not link.is_symlink()
    assert link.read_text() == "new"


def test_a_folder_is_no_target(tmp_path):
    with pytest.raises(InputError, match="a folder, expected the name of a file"):
        writing.write_text(tmp_path, "text")


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    """A power loss leaves the old file or the new one, under its name."""
    steps = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"
        steps.append(f"sync {kind}")
        fsync(handle)

    def replaced(path, target):
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    writing.write_text(tmp_path / "a", "text")
    assert steps == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("busy", range(3))
def test_what_killed_processes_left_goes_and_what_another_writes_stays(tmp_path, busy):
    parts = [tmp_path / f".a.json.{number}.part" for number in range(3)]
    other = tmp_path / ".b.json.0.part"
    for path in (*parts, other):
        path.write_text("half")
    with parts[busy].open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing.write_json(tmp_path / "a.json", 1)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.json", parts[busy].name, other.name}
    assert parts[busy].read_text() == "half"
    writing.write_json(tmp_path / "a.json", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", other.name}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_the_place_of_a_temporary_file_is_never_written_through(tmp_path, link):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link(victim, tmp_path / ".a.json.0.part")
    writing.write_json(tmp_path / "a.json", 1)
    assert victim.read_text() == "precious"
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert not (tmp_path / "a.json").is_symlink()


def test_many_may_write_one_file_at_once_and_each_writes_its_own_whole(tmp_path):
    """More than there are names for temporary files: the last one's text, and nothing beside."""
    with ExitStack() as stack:
        for number in range(2 * writing.AT_ONCE):
            part = stack.enter_context(writing.atomic_path(tmp_path / "a"))
            part.write_text(f"text {number} " * 1000)
    assert (tmp_path / "a").read_text() == "text 0 " * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_ends_leaves_the_file_of_the_next_one_alone(tmp_path, monkeypatch):
    """The name of a temporary file is free again as soon as that has moved into its place."""
    target, begun = tmp_path / "a", []
    second = writing.atomic_path(target)

    def meanwhile(folder):
        monkeypatch.undo()
        begun.append(second.__enter__())
        begun[0].write_text("second")

    # what comes right after the move
    monkeypatch.setattr(writing, "sync_folder", meanwhile)
    writing.write_text(target, "first")
    assert target.read_text() == "first"
    second.__exit__(None, None, None)
    assert target.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_where_files_cannot_be_locked_they_are_written_all_the_same(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(writing.fcntl, "flock", unsupported)
    writing.write_json(tmp_path / "a.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_write_looks_at_no_other_file_of_its_folder(tmp_path, monkeypatch):
    """With 20,000 files in a folder a look at each would cost more than all else of a write."""
    listed = []
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, lambda *given: listed.append(given))
    writing.write_json(tmp_path / "a.json", 1)
    assert not listed


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda place: usage(9, 9, 2_000_000))
    with pytest.raises(NoRoom, match=r"a: needs 5\.0 MB, 2\.0 MB are free there; free some"):
        writing.write_bytes(path, bytes(5_000_000))
    # and where the size is not known before
    refused = pytest.raises(NoRoom, match=r"a: not written .No space left on device; 2\.0 MB are")
    with refused, writing.atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [item.name for item in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), writing.atomic_path(tmp_path / "a"):
        (tmp_path / "elsewhere").read_text()


def test_a_checkpoint_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    """torch says where in its archive it was, and not what the disk said."""

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "model.pt"
    monkeypatch.setattr(Path, "open", _opening(Full))
    with pytest.raises(NoRoom, match=r"model\.pt: not written"):
        checkpoint.save(path, {"weights": torch.zeros(4)})


def _opening(kind):
    open_file = Path.open

    def opened(path, mode="r", *more, **named):
        return kind() if mode == "wb" else open_file(path, mode, *more, **named)

    return opened


# ----------------------------------------------------------------------------------------- reading


@given(JSON)
def test_json_is_read_as_python_reads_it(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value))
    assert reading.read_json(path) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('[{"x": {"v": 1, "v": 2}}]', "the key 'v' stands twice"),
        ('{"a" : 1, "a" : 1}', "the key 'a' stands twice"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "4300 digits"),
        ('"\\ud800"', "half of a character"),
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("\x00", "not readable as JSON"),
    ],
)
def test_damaged_json_is_one_line(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        reading.read_json(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2200


def test_a_value_that_looks_like_a_key_is_none(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": ":", "b": "\\":"}')
    assert reading.read_json(path) == {"a": ":", "b": '":'}


@pytest.mark.parametrize("value", [[1], None, "a", 3, True])
def test_what_is_no_object_is_no_object(tmp_path, value):
    path = tmp_path / "a.json"
    writing.write_json(path, value)
    with pytest.raises(InputError, match="expected a JSON object"):
        reading.read_object(path)


def test_an_object_that_lacks_a_key_says_which(tmp_path):
    writing.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(InputError, match="lacks the key 'md5'"):
        reading.read_object(tmp_path / "a.json", "a", "md5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing a, b"),
        ("a\n1\n", "missing b"),
        ("a,b\n", "no line below its header"),
        ("a,b\n1\n", "line 2: expected 2 values"),
        ("a,b\n1,2,3\n", "line 2: expected 2 values"),
        (f"a,b\n1,{'x' * 200_000}\n", "not readable as csv"),
        ('a,b\n1,"2\n', "not readable as csv"),
    ],
)
def test_a_damaged_csv_says_where(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        csv_files.read_table(tmp_path / "a.csv", ("a", "b"))


@pytest.mark.parametrize("value", [3, 3.5, -1, "3", " 3.5 ", "-1e3", ".5"])
def test_numbers_and_their_texts_are_numbers(value):
    assert values.number(value) == float(value)


@pytest.mark.parametrize(
    "value", [True, None, "x", "", "²", "١", "1_0", "nan", "inf", "1e999", [], {}, 10**400, "0x1"]
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"expected a (finite )?number"):
        values.number(value)


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_member_that_occurs_twice_is_refused(tmp_path):
    """Its instances would count twice."""
    path = zip_of(tmp_path / "a.zip", ("a.txt", "one"), ("a.txt", "two"))
    with pytest.raises(InputError, match=r"a\.txt occurs twice"):
        list(archives.read_zip(path, lambda name: True))


def test_a_bomb_is_refused_by_what_it_says_of_its_size(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("a.txt", bytes(archives.LARGEST_TEXT + 1)))
    with pytest.raises(InputError, match=r"holds 200\.0 MB of text, expected at most"):
        list(archives.read_zip(path, lambda name: True))


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 77)])
def test_an_encrypted_member_and_an_unknown_compression_are_one_line(tmp_path, place, value):
    path = zip_of(tmp_path / "a.zip", ("a.txt", "one"))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + place] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: corrupt, truncated or encrypted"):
        list(archives.read_zip(path, lambda name: True))


@pytest.mark.parametrize("text", ["=1+1", "+1", "@cmd", "@x", "\tx"])
def test_a_cell_that_a_spreadsheet_would_run_is_a_text(text):
    """But for "-", with which the names of many videos begin: -0r0HEwAYiQ of ActivityNet."""
    assert csv_files.csv_cell("-0r0HEwAYiQ") == "-0r0HEwAYiQ"
    assert csv_files.csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("cell", ["LongJump", -1.5, 3, None, ""])
def test_other_cells_stay(cell):
    assert csv_files.csv_cell(cell) == cell


def test_a_message_keeps_its_beginning_and_its_end():
    message = str(InputError(f"a.json: label {'x' * 300_000}: expected less"))
    assert message.startswith("a.json: label xxx")
    assert message.endswith("xxx: expected less")
    assert len(message) < 2100
