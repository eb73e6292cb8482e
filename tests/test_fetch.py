"""Fetching from a local server that misbehaves, from mirrors, and through DVC's remotes."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import yaml

from actionformer import provenance
from actionformer.commands.main import main
from actionformer.data import checksums, download, partial_file, plan
from actionformer.data import fetch as module
from actionformer.data.checksums import record_md5, record_source, recorded
from actionformer.data.fetch import Fetched, fetch
from actionformer.errors import InputError
from actionformer.files import md5
from actionformer.files.md5 import file_md5
from actionformer.params.dataset import File, Source
from actionformer.params.files import load_experiment, published_rows
from conftest import CHECKOUT, contents, run_command

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()
PAGE = (
    "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="abc">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1-2-3">'
    "</form></body></html>"
)


class Handler(BaseHTTPRequestHandler):
    """What `/how/name` does is told by `how`.

    The content is the class's, or the file `name` below its folder.
    """

    calls: list[tuple[str, str | None]]
    folder: Path | None
    content: bytes

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        how, _, name = self.path.split("?")[0].lstrip("/").partition("/")
        self.calls.append((self.path, asked))
        count = sum(path == self.path for path, _ in self.calls)
        content = self.content if self.folder is None else (self.folder / name).read_bytes()
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.headers.get("If-Range", tag) != tag:
            asked = None
        if how in ("busy", "slow-down") and count == 1:
            self.send_response(503 if how == "busy" else 429)
            self.send_header("Retry-After", "7")
            self.end_headers()
            return
        if how in ("loop", "nowhere"):
            self.send_response(302)
            self.send_header("Location", self.path if how == "loop" else "http://[::1")
            self.end_headers()
            return
        if how == "page" or (how == "uc" and "confirm" not in self.path):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(PAGE.encode())
            return
        if how == "wrong":
            content = content[:-1] + b"?"
        if how == "deaf":
            asked = None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if how != "endless":
            self.send_header(
                "Content-Length", "many" if how == "odd" else str(len(content) - start)
            )
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "application/octet-stream")
        if how != "untold":
            self.send_header("ETag", tag)
        if how in ("uc", "download"):
            self.send_header("Content-Disposition", 'attachment; filename="f.bin"')
        self.end_headers()
        cuts = how == "endless" or (how in ("cut", "deaf", "untold") and count < 3)
        self.wfile.write(content[start : start + len(content) // 3] if cuts else content[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses asked for, none of them taken."""
    asked: list[float] = []
    monkeypatch.setattr(download.time, "sleep", asked.append)
    return asked


@pytest.fixture
def server(pauses) -> Iterator[str]:
    Handler.calls, Handler.folder, Handler.content = [], None, CONTENT
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


def source(address: str, **more: str) -> Source:
    return Source(kind="https", address=address, **more)


@pytest.mark.parametrize("path", ["/whole", "/cut", "/busy", "/slow-down", "/deaf"])
def test_a_file_arrives_whole_and_nothing_else_stays(server, tmp_path, path):
    fetched = fetch(tmp_path / "f.bin", File(sources=[source(server + path)], md5=MD5))
    assert fetched == Fetched(MD5, f"https {server}{path}")
    assert (tmp_path / "f.bin").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]
    starts = []
    for _, asked in Handler.calls:
        starts.append(int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0)
    if path == "/cut":
        # each attempt goes on where the last broke off
        assert 0 == starts[0] < starts[1] < starts[2]


def test_pauses_grow_or_are_what_the_server_asks(server, tmp_path, pauses):
    fetch(tmp_path / "a", File(sources=[source(server + "/slow-down")]))
    assert pauses == [7.0]
    fetch(tmp_path / "b", File(sources=[source(server + "/cut")]))
    assert pauses[1:] == [1.0, 1.0]  # each attempt came further


def test_an_interrupted_download_goes_on_in_the_next_call(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    file = File(sources=[source(server + "/cut")], md5=MD5)
    for _ in range(2):
        with pytest.raises(InputError, match="no source gave it"):
            fetch(tmp_path / "f.bin", file)
        assert not (tmp_path / "f.bin").exists()
    fetch(tmp_path / "f.bin", file)
    assert (tmp_path / "f.bin").read_bytes() == CONTENT
    assert Handler.calls[-1][1] is not None


@pytest.mark.parametrize("path", ["/cut", "/untold"])
def test_a_file_that_changes_between_two_attempts_is_not_stitched_together(
    server, tmp_path, monkeypatch, path
):
    """The server says so (ETag), or the size does; a part of another file is given up."""
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    file = File(sources=[source(server + path)])
    with pytest.raises(InputError):
        fetch(tmp_path / "f.bin", file)
    Handler.content = CONTENT[::-1] + b"more"
    for _ in range(3):
        try:
            fetch(tmp_path / "f.bin", file)
            break
        except InputError:
            continue
    assert (tmp_path / "f.bin").read_bytes() == Handler.content
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/loop", "30 redirects"),
        ("/page", 'sent a web page ("Google Drive - Virus scan warning") instead of the file'),
        ("/wrong", f"published is {MD5}"),
        ("/nowhere", "http"),
        ("/odd", "many"),
        ("/endless", f"published is {MD5}"),
    ],
)
def test_what_is_not_the_file_is_refused_and_the_next_source_is_tried(
    server, tmp_path, path, words
):
    with pytest.raises(InputError) as refused:
        fetch(tmp_path / "f.bin", File(sources=[source(server + path)], md5=MD5))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    fetch(
        tmp_path / "f.bin",
        File(sources=[source(server + path), source(server + "/whole")], md5=MD5),
    )
    assert (tmp_path / "f.bin").read_bytes() == CONTENT


def test_half_a_file_that_nothing_would_tell_from_all_of_it_is_refused(server, tmp_path):
    """No length, no published size or md5: it would be recorded, and right for ever."""
    with pytest.raises(InputError, match="half of it would pass for all of it"):
        fetch(tmp_path / "f.bin", File(sources=[source(server + "/endless")]))
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_of_google_drive_comes_through_its_virus_scan_page(
    server, tmp_path, monkeypatch
):
    """gdown asks Google; here its requests go to the local server."""
    send = requests.adapters.HTTPAdapter.send

    def redirected(adapter, request, **options):
        for host in ("https://drive.google.com", "https://drive.usercontent.google.com"):
            request.url = request.url.replace(host, server)
        return send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)
    fetch(tmp_path / "f.bin", File(sources=[Source(kind="google_drive", address="abc")], md5=MD5))
    assert (tmp_path / "f.bin").read_bytes() == CONTENT
    assert [path for path, _ in Handler.calls] == [
        "/uc?id=abc",
        "/download?id=abc&confirm=t&uuid=1-2-3",
    ]


def test_a_file_of_another_size_or_too_large_for_the_disk_is_refused(server, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=f"has {len(CONTENT)} bytes, published are 5"):
        fetch(tmp_path / "f.bin", File(sources=[source(server + "/whole")], size=5))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(partial_file.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    for size in ("unknown", len(CONTENT)):
        with pytest.raises(InputError, match=r"needs 0\.0 GB more, 0\.0 GB are free"):
            fetch(tmp_path / "f.bin", File(sources=[source(server + "/whole")], size=size))
    assert list(tmp_path.iterdir()) == []


def test_a_change_since_the_first_use_names_both_md5s(server, tmp_path):
    file = File(sources=[source(server + "/whole")])
    fetched = fetch(tmp_path / "f.bin", file)
    record_source(tmp_path, "f.bin", fetched.source)
    assert recorded(tmp_path) == {"f.bin": {"source": f"https {server}/whole"}}
    record_md5(tmp_path, "f.bin", fetched.md5)
    assert recorded(tmp_path) == {"f.bin": {"md5": MD5, "source": f"https {server}/whole"}}
    other = hashlib.md5(b"other").hexdigest()
    (tmp_path / "f.bin").write_bytes(b"other")
    with pytest.raises(InputError, match=f"md5 is {other}, recorded at its first use is {MD5}"):
        fetch(tmp_path / "f.bin", file, known={"recorded at its first use": MD5})
    assert (tmp_path / "f.bin").read_bytes() == b"other"  # nothing is deleted


def test_one_file_of_an_archive_is_kept(server, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("thumos/annotations/thumos14.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    Handler.folder = tmp_path / "served"
    Handler.folder.mkdir()
    (Handler.folder / "a.tar.gz").write_bytes(buffer.getvalue())
    md5 = hashlib.md5(buffer.getvalue()).hexdigest()
    wanted = source(f"{server}/whole/a.tar.gz", member="thumos/annotations/thumos14.json", md5=md5)
    fetch(tmp_path / "d/t.json", File(sources=[wanted]))
    assert (tmp_path / "d/t.json").read_bytes() == b"{}"
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["t.json"]
    with pytest.raises(InputError, match="the archive holds no other"):
        fetch(tmp_path / "d/o.json", File(sources=[wanted.model_copy(update={"member": "other"})]))


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_a_mirror_is_tried_first_and_then_the_publisher(server, tmp_path, kind):
    mirror = tmp_path / "mirror"
    (mirror / "set").mkdir(parents=True)
    (mirror / "set/f.bin").write_bytes(CONTENT)
    Handler.folder = mirror
    address = str(mirror) if kind == "folder" else f"{server}/whole"
    gated = File(sources=[Source(kind="manual", address="x")], gated="ask for it", md5=MD5)
    fetch(tmp_path / "f.bin", gated, mirror=address, name="set/f.bin")
    assert (tmp_path / "f.bin").read_bytes() == CONTENT
    (mirror / "set/f.bin").write_bytes(b"other")
    (mirror / "publisher").write_bytes(CONTENT)
    fetch(
        tmp_path / "g.bin",
        File(sources=[source(f"{server}/whole/publisher")], md5=MD5),
        mirror=address,
        name="set/f.bin",
    )
    assert (tmp_path / "g.bin").read_bytes() == CONTENT


def test_a_mirror_that_is_not_there_is_named_before_any_publisher_is_asked(server, tmp_path):
    file = File(sources=[source(server + "/whole")])
    with pytest.raises(InputError, match=r"mirror .*nowhere: no such folder"):
        fetch(tmp_path / "f.bin", file, mirror=str(tmp_path / "nowhere"), name="set/f.bin")
    assert not Handler.calls


def folder_of_features(folder):
    """An archive that lies unpacked in a mirror."""
    for name in ("a", "b/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


@pytest.mark.parametrize("name", ["f.zip", "f"], ids=["the archive's name", "without .zip"])
def test_an_unpacked_archive_in_a_mirror_comes_as_a_folder(name, tmp_path):
    there = folder_of_features(tmp_path / "mirror/set" / name)
    mirror = str(tmp_path / "mirror")
    fetched = fetch(tmp_path / "data/f.zip", File(), mirror=mirror, name="set/f.zip")
    assert contents(tmp_path / "data/f.zip") == contents(there)
    assert fetched.md5 == file_md5(there)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["f.zip"]


def test_a_mirrors_file_needs_the_room_that_it_has_itself(tmp_path, monkeypatch):
    """Not what is reckoned of the published one: that of a rehearsal can be a hundredth."""
    there = tmp_path / "mirror/set/f.bin"
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    usage = shutil.disk_usage(tmp_path)
    bring = partial(
        fetch, file=File(estimate=10**12), mirror=str(tmp_path / "mirror"), name="set/f.bin"
    )
    monkeypatch.setattr(partial_file.shutil, "disk_usage", lambda path: usage._replace(free=10**7))
    assert bring(tmp_path / "f.bin").md5 == MD5
    monkeypatch.setattr(partial_file.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"needs 0\.0 GB more"):
        bring(tmp_path / "g.bin")


def test_a_mirrors_file_can_be_linked_to_and_is_never_written_to(tmp_path):
    there = tmp_path / "mirror/set/f.bin"
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    there.chmod(0o444)
    bring = partial(fetch, mirror=str(tmp_path / "mirror"), name="set/f.bin", link=True)
    assert bring(tmp_path / "data/f.bin", File(md5=MD5)).md5 == MD5
    assert (tmp_path / "data/f.bin").readlink() == there
    with pytest.raises(InputError, match="md5 is"):
        bring(tmp_path / "data/g.bin", File(md5="0" * 32))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["f.bin"]
    assert there.read_bytes() == CONTENT


def test_a_partial_file_is_called_as_what_it_becomes():
    file, in_a_folder = Path("set/f.bin.0a1b2c3d.part"), Path("f.0a1b2c3d.part/video.0001.npy")
    assert partial_file.name_of(file) == "f.bin"
    assert partial_file.name_of(in_a_folder) == "video.0001.npy"


@pytest.mark.parametrize("changed", [False, True], ids=["the same", "another one meanwhile"])
def test_a_mirrors_file_goes_on_after_an_interruption(changed, tmp_path, monkeypatch):
    there = tmp_path / "mirror/set/f.bin"
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    monkeypatch.setattr(module, "BLOCK", 1000)
    shown = partial_file.shown

    def interrupted(blocks, *args, **kwargs):
        for count, block in enumerate(shown(blocks, *args, **kwargs)):
            if count == 3:
                raise KeyboardInterrupt
            yield block

    fetch_it = partial(
        fetch, tmp_path / "f.bin", File(), mirror=str(tmp_path / "mirror"), name="set/f.bin"
    )
    with monkeypatch.context() as patch:
        patch.setattr(partial_file, "shown", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_it()
    (part,) = tmp_path.glob("f.bin.*.part")
    assert part.read_bytes() == CONTENT[:3000]
    if changed:
        there.write_bytes(CONTENT[::-1])
    begun = []

    def noted(blocks, what, *, total, done):
        begun.append(done)
        return shown(blocks, what, total=total, done=done)

    monkeypatch.setattr(partial_file, "shown", noted)
    expected = there.read_bytes()
    assert fetch_it().md5 == hashlib.md5(expected).hexdigest()
    assert (tmp_path / "f.bin").read_bytes() == expected
    assert begun == [0 if changed else 3000]
    assert not list(tmp_path.glob("f.bin.*"))


def test_who_finds_the_sources_gone_is_told_of_the_archive(server, tmp_path):
    address = f"{server}/page"
    for gone in (source(address), Source(kind="manual", address=address)):
        file = File(sources=[gone], archive="doi:10.1/x")
        with pytest.raises(InputError, match=r"; also archived at doi:10\.1/x$"):
            fetch(tmp_path / "f.bin", file)


def test_a_gated_file_says_what_to_ask_where_and_the_command_to_go_on_with(server, tmp_path):
    file = File(
        gated="sign the licence at X",
        sources=[Source(kind="manual", address="https://example.org")],
    )
    with pytest.raises(
        InputError,
        match=r"by hand.*sign the licence at X.*https://example\.org.*go on with `do it`",
    ):
        fetch(tmp_path / "f.bin", file, again="do it")
    linked = File(gated="sign the licence at X", sources=[source(server + "/whole")])
    with pytest.raises(
        InputError,
        match=r"sign the licence at X\. If you may have it, `do it --accepted` brings it",
    ):
        fetch(tmp_path / "f.bin", linked, again="do it")
    assert not Handler.calls  # nothing was asked of the server
    fetch(tmp_path / "f.bin", linked, accepted=True)
    assert (tmp_path / "f.bin").read_bytes() == CONTENT


def test_an_unreachable_source_is_one_clear_line(tmp_path, pauses):
    with pytest.raises(InputError, match=r"no source gave it .*127\.0\.0\.1"):
        fetch(tmp_path / "f.bin", File(sources=[source("http://127.0.0.1:9/f.bin")]))
    assert pauses == [1.0, 2.0, 4.0, 8.0]


# --------------------------------------------------------------------------------- whole data sets


def misbehaving(folder: Path, server: str) -> Path:
    """Params with an edition whose files of HACS come from the server.

    Each of its answers is bad in its own way.
    """
    shutil.copytree(CHECKOUT / "params", folder / "params")
    edition = (
        (folder / "params/editions/demo.yaml")
        .read_text()
        .replace("origin: dvc", "origin: publisher")
    )
    (folder / "params/editions/served.yaml").write_text(edition)
    path = folder / "params/datasets/hacs.yaml"
    text, ways = path.read_text(), ["cut", "busy", "slow-down", "deaf"]
    names = re.findall(r"^  (\S+\.(?:json|zip|txt)):", text, re.M)
    head, _, rest = text.partition("\nfiles:\n")
    files = ""
    for i, name in enumerate(names):
        files += f"  {name}:\n    sources:\n"
        files += f"      - {{kind: https, address: {server}/page/{name}}}\n"
        files += f"      - {{kind: https, address: {server}/{ways[i % 4]}/{name}}}\n"
    path.write_text(f"{head}\nfiles:\n{files}features:{rest.partition(chr(10) + 'features:')[2]}")
    return folder


def test_a_data_set_comes_through_a_misbehaving_server_with_the_right_bytes(
    server, tmp_path, demo_data, monkeypatch
):
    Handler.folder = demo_data / "hacs"
    monkeypatch.chdir(misbehaving(tmp_path, server))
    options = ["--edition", "served", "--params", "params"]
    assert main(["fetch", "hacs", *options]) == 0
    root = Path("data/served/hacs")
    fetched = contents(root)
    fetched.pop(checksums.RECORD)
    assert len(fetched) == 4
    for name, content in fetched.items():
        assert content == (demo_data / "hacs" / name).read_bytes(), name
    assert main(["convert", "hacs", *options]) == 0
    assert main(["pack", "hacs", "slowfast", *options]) == 0
    # from now on a change is an error wherever the file is used
    path = Path("data/served/hacs/annotations/HACS_segments_v1.1.1.json")
    path.write_bytes(path.read_bytes() + b" ")
    assert main(["convert", "hacs", *options]) == 1
    assert main(["fetch", "hacs", *options]) == 1


@pytest.fixture
def mirrored(tmp_path, demo_data, monkeypatch) -> Path:
    """A folder whose edition `mirrored` is the demo, brought from a mirror; the mirror."""
    shutil.copytree(CHECKOUT / "params", tmp_path / "params")
    edition = yaml.safe_load((tmp_path / "params/editions/demo.yaml").read_text())
    edition["origin"] = "mirror"
    (tmp_path / "params/editions/mirrored.yaml").write_text(yaml.safe_dump(edition))
    shutil.copytree(demo_data / "hacs", tmp_path / "mirror/hacs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mirror"


def test_a_whole_archive_is_taken_after_one_that_came_truncated(mirrored, capfd):
    """What nobody could read to its end is not what the file must be from then on."""
    name = "features/slowfast101_15fps_stride8_len32_hacs.zip"
    whole = (mirrored / "hacs" / name).read_bytes()
    (mirrored / "hacs" / name).write_bytes(whole[: len(whole) // 2])
    options = ["--edition", "mirrored", "--params", "params"]
    fetch_it = ["fetch", "hacs", *options, "--mirror", str(mirrored), "--files", name]
    assert main(fetch_it) == 0
    assert main(["pack", "hacs", "slowfast", *options]) == 1
    assert "delete it and fetch it again" in capfd.readouterr().err
    (Path("data/mirrored/hacs") / name).unlink()
    (mirrored / "hacs" / name).write_bytes(whole)
    assert main(fetch_it) == 0
    assert main(["pack", "hacs", "slowfast", *options]) == 0
    md5 = hashlib.md5(whole).hexdigest()
    assert recorded(Path("data/mirrored/hacs"))[name]["md5"] == md5


def test_a_plan_knows_the_sizes_of_a_mirror_and_nothing_is_in_the_way_there(mirrored):
    row = load_experiment("hacs_slowfast", "mirrored", params=Path("params"))
    archive = mirrored / "hacs" / row.features.file
    known = plan.needed(row, params=Path("params"), mirror=str(mirrored))
    (features,) = [item for item in known if item.path.name == archive.name]
    assert features.bytes == archive.stat().st_size
    assert features.access() == "open"
    without = plan.needed(row, params=Path("params"))
    (features,) = [item for item in without if item.path.name == archive.name]
    assert features.bytes is None


def test_an_edition_from_a_mirror_alone_never_asks_a_publisher(mirrored, capfd, monkeypatch):
    monkeypatch.setattr(requests, "get", None)
    options = ["--edition", "mirrored", "--params", "params"]
    assert main(["fetch", "hacs", *options]) == 1
    assert "come from a mirror alone: name it with --mirror" in capfd.readouterr().err
    (mirrored / "hacs/annotations/HACS_segments_v1.1.1.json").unlink()
    assert main(["fetch", "hacs", *options, "--mirror", str(mirrored)]) == 1
    said = capfd.readouterr().err
    assert f"--mirror {mirrored}" in said  # the command to go on with
    assert "no such file" in said


def test_a_fetched_file_is_read_once(mirrored, monkeypatch):
    """Its md5 is that of the bytes on their way; who asks later is told."""
    options = ["--edition", "mirrored", "--params", "params"]
    name = "features/slowfast101_15fps_stride8_len32_hacs.zip"
    assert main(["fetch", "hacs", *options, "--mirror", str(mirrored), "--files", name]) == 0
    monkeypatch.setattr(md5, "file_md5", lambda path: pytest.fail(f"reads {path} again"))
    archive = Path("data/mirrored/hacs") / name
    expected = hashlib.md5(archive.read_bytes()).hexdigest()
    assert provenance.source_md5(archive) == expected
    assert main(["pack", "hacs", "slowfast", *options]) == 0


def test_a_file_put_there_by_hand_is_checked_and_recorded_at_its_first_use(
    tmp_path, demo_data, monkeypatch, capfd
):
    """Files that no fetch brought, too; the published md5 counts where there is one."""
    shutil.copytree(CHECKOUT / "params", tmp_path / "params")
    shutil.copytree(demo_data / "hacs", tmp_path / "data/demo/hacs")
    monkeypatch.chdir(tmp_path)
    archive = Path("data/demo/hacs/features/slowfast101_15fps_stride8_len32_hacs.zip")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    assert main(["pack", "hacs", "slowfast"]) == 0
    name = "features/slowfast101_15fps_stride8_len32_hacs.zip"
    assert recorded(Path("data/demo/hacs")) == {name: {"md5": md5, "source": "put there by hand"}}
    # a zip's comment
    archive.write_bytes(archive.read_bytes()[:-2] + (3).to_bytes(2, "little") + b"abc")
    assert main(["pack", "hacs", "slowfast"]) == 1
    assert f"at its first use is {md5}" in capfd.readouterr().err
    Path("data/demo/hacs/checksums.json").unlink()
    params = Path("params/datasets/hacs.yaml")
    params.write_text(
        params.read_text().replace(f"{name}:\n    md5: unknown", f"{name}:\n    md5: {md5}")
    )
    assert main(["pack", "hacs", "slowfast", "--params", "params"]) == 1
    assert f"published is {md5}" in capfd.readouterr().err


def test_the_plan_of_named_rows_has_every_file_its_source_and_what_is_gated(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *published_rows()]) == 0
    said = capsys.readouterr().out
    for row in published_rows():
        experiment = load_experiment(row)
        assert f"{row}, disk: " in said
        assert experiment.features.file in said
    assert "to fetch: " in said
    closed = said.split("no program may or can fetch these alone")[1]
    for word in (
        "ego4d/annotations/moments_train.json",
        "sign the licence",
        "intervideo_mae_huge",
        "Charades_v1_train.csv",
    ):
        assert word in closed


def test_a_dry_run_begins_with_what_is_planned_per_row_on_one_screen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    for row in published_rows():
        (line,) = [line for line in lines if line.split()[:1] == [row]]
        assert "3 of 3" in line
        assert ("licence" in line) == row.startswith(("ego4d", "fineaction_videomae_h"))
    call = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "-n", "--config", "edition=paper"]
    dry = run_command(tmp_path, *call)
    assert dry.stderr.startswith(said)


# --------------------------------------------------------------------------------------------- DVC


def test_a_pinned_data_set_goes_to_a_remote_of_its_own_and_comes_back(clone, tmp_path):
    """docs/data.md: pin the data set, push to a folder, pull over http.

    The demo's store stays as it is, and so does all that is in no version.
    """
    store = sorted(p.name for p in (clone / ".dvc/store").rglob("*"))
    run_command(clone, "dvc", "pull", "--quiet")
    path = clone / "data/paper/thumos14/features/f.zip"
    unpinned = [clone / f"data/{part}/f.zip" for part in ("own", "rehearsal/hacs", "paper/hacs")]
    for file in (path, *unpinned):
        file.parent.mkdir(parents=True)
        file.write_bytes(CONTENT)
    run_command(clone, "dvc", "remote", "add", "lab", str(tmp_path / "lab"))
    lineage = {"pinned": False, "data_version": "none", "files": {}}
    lineage["files"]["data/paper/thumos14/features/f.zip"] = MD5
    looks_up = f"from actionformer import provenance; print(provenance.as_pinned_now({lineage}))"
    assert run_command(clone, sys.executable, "-c", looks_up).stdout.strip() == str(lineage)
    run_command(clone, "actionformer", "pin", "thumos14", "--remote", "lab")
    # a table that is made now says so of a run of before
    version = yaml.safe_load((clone / "data.dvc").read_text())["outs"][1]["md5"]
    now = lineage | {"pinned": True, "data_version": version}
    assert run_command(clone, sys.executable, "-c", looks_up).stdout.strip() == str(now)
    assert "up to date" in run_command(clone, "dvc", "status").stdout
    run_command(clone, "dvc", "push", "--quiet")
    assert sorted(p.name for p in (clone / ".dvc/store").rglob("*")) == store
    shutil.rmtree(clone / "data/paper/thumos14")
    shutil.rmtree(clone / ".dvc/cache")
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "lab")))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{http.server_port}"
    run_command(clone, "dvc", "remote", "modify", "--local", "lab", "url", address)
    run_command(clone, "dvc", "pull", "--quiet", "data/paper/thumos14")
    http.shutdown()
    assert path.read_bytes() == CONTENT
    run_command(clone, "dvc", "remote", "modify", "--local", "lab", "url", str(tmp_path / "lab"))
    run_command(clone, "dvc", "pull", "--quiet", "--force")
    for file in (path, *unpinned):
        assert file.read_bytes() == CONTENT


def test_pinning_keeps_the_demo_in_the_version_where_it_was_never_pulled(clone, tmp_path):
    """And `dvc status` has nothing to say of it then."""
    before = yaml.safe_load((clone / "data.dvc").read_text())["outs"]
    (clone / "data/paper/hacs/features").mkdir(parents=True)
    (clone / "data/paper/hacs/features/f.zip").write_bytes(CONTENT)
    run_command(clone, "dvc", "remote", "add", "lab", str(tmp_path / "lab"))
    for _ in range(2):  # a second time, as after a file was added
        run_command(clone, "actionformer", "pin", "hacs", "--remote", "lab")
        demo, hacs = yaml.safe_load((clone / "data.dvc").read_text())["outs"]
        assert [demo] == before
        assert (hacs["path"], hacs["remote"]) == ("data/paper/hacs", "lab")
    said = run_command(clone, "dvc", "status", "data/paper/hacs").stdout
    assert "up to date" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hacs", "--remote", "lab"), "data/paper/hacs: no such folder; `actionformer fetch hacs`"),
        (("thumos14", "--remote", "lab"), "no remote for your data .*dvc remote add lab ADDRESS"),
        (("thumos14", "--remote", "demo"), "no remote for your data"),
        (("thumos14", "--remote", "lab", "--edition", "demo"), "not yours to pin"),
    ],
)
def test_what_cannot_be_pinned_is_refused_and_the_version_stays(arguments, words, clone):
    (clone / "data/paper/thumos14").mkdir(parents=True)
    before = (clone / "data.dvc").read_text()
    done = run_command(clone, "actionformer", "pin", *arguments, check=False)
    assert done.returncode == 1
    assert re.search(words, done.stderr)
    assert (clone / "data.dvc").read_text() == before


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_file_that_is_put_there_during_its_download_is_kept(server, tmp_path, monkeypatch):
    """What was downloaded does not take its place, even if it is another one."""
    target = tmp_path / "features.zip"
    download = module._download

    def meanwhile(*given):
        md5 = download(*given)
        target.write_bytes(b"by hand")
        return md5

    monkeypatch.setattr(module, "_download", meanwhile)
    fetched = fetch(target, File(sources=[source(f"{server}/plain")]))
    assert target.read_bytes() == b"by hand"
    assert fetched.source == "there"
