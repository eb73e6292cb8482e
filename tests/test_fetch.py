"""Fetching against a local server that cuts off, is busy, or gives other bytes than published."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from actionformer.data import fetch as module
from actionformer.data.fetch import fetch
from actionformer.errors import InputError
from actionformer.experiment import File, Source

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/whole gives the file; /cut breaks off twice, then goes on where asked; /busy answers 503 once."""

    calls: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.calls.append((self.path, asked))
        count = sum(path == self.path for path, _ in self.calls)
        if self.path == "/busy" and count == 1:
            self.send_error(503)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = start + 300_000 if self.path == "/cut" and count < 3 else len(CONTENT)
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    Handler.calls = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


def source(address: str, **more: str) -> Source:
    return Source(kind="https", address=address, **more)


@pytest.mark.parametrize("path", ["/whole", "/cut", "/busy"])
def test_a_file_arrives_whole(server, tmp_path, path):
    fetch(tmp_path / "f.bin", File(sources=[source(server + path)], md5=MD5))
    assert (tmp_path / "f.bin").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]
    if path == "/cut":
        starts = [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for _, asked in Handler.calls]
        assert 0 == starts[0] < starts[1] < starts[2]  # each attempt goes on where the last broke off


def test_other_bytes_than_published_are_refused_and_the_next_source_is_tried(server, tmp_path):
    wrong = source(server + "/whole", md5="0" * 32)
    with pytest.raises(InputError, match=f"md5 is {MD5}, published is 0000"):
        fetch(tmp_path / "f.bin", File(sources=[wrong]))
    assert list(tmp_path.iterdir()) == []
    fetch(tmp_path / "f.bin", File(sources=[wrong, source(server + "/whole", md5=MD5)]))
    assert (tmp_path / "f.bin").exists()


def test_a_gated_file_says_what_to_do(tmp_path):
    file = File(gated="sign the licence at X", sources=[Source(kind="manual", address="https://example.org")])
    with pytest.raises(InputError, match=r"f\.bin: .*by hand.*sign the licence at X.*https://example\.org"):
        fetch(tmp_path / "f.bin", file)


def test_an_unreachable_source_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError, match=r"no source gave it .*127\.0\.0\.1"):
        fetch(tmp_path / "f.bin", File(sources=[source("http://127.0.0.1:9/f.bin")]))
