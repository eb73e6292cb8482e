"""Bring a publisher's file: sources in order, resumed where it broke off, checked at the end.

What a file must be is known from up to three places: the md5 published beside an address, the md5
that the pinned version of the data has, and the md5 recorded when a stage had first read the file
to its end (`checksums.json` in the data set's folder).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from actionformer.data.feature_files import members
from actionformer.errors import InputError
from actionformer.files import (
    NO_ROOM,
    atomic_path,
    file_md5,
    files_of,
    not_written,
    put_in_place,
    read_object,
    write_json,
)
from actionformer.params.dataset import File, Source
from actionformer.progress import progress

ATTEMPTS = 5
TIMEOUT = (15, 60)
LONGEST_PAUSE = 60.0
LINE_SECONDS = 30.0
BLOCK = 1 << 22
RECORD = "checksums.json"
# the source of a file that was there before
THERE = "there"


@dataclass(frozen=True)
class Fetched:
    """What a file is and which source gave it; 'there' if it was there before."""

    md5: str
    source: str


def fetch(
    target: Path,
    file: File,
    *,
    known: Mapping[str, str] | None = None,
    mirror: str | None = None,
    name: str = "",
    link: bool = False,
    accepted: bool = False,
    again: str = "the same command",
    remember: Callable[[Fetched], None] = lambda fetched: None,
) -> Fetched:
    """Bring `target` from the first of its sources that has it; an existing file is only checked.

    Args:
        known: what else says which md5 the file must have: where it says so -> md5.
        mirror: folder or http address that holds the same files, tried first.
        name: the file's name under the mirror.
        link: let the file be a symbolic link to that of a mirror on this machine.
        accepted: the caller holds the licences that gated files need.
        again: the command to go on with, for messages.
        remember: is told what came and from where, just before it takes its place.

    Raises:
        InputError: a file that has to be asked for or put there by hand, with what to do; no source
            that gives it, with why each didn't; a wrong md5 or size; too little room on the disk.
    """
    wanted = {"published": file.md5, **(known or {})}
    if target.exists():
        return Fetched(checked(target, wanted, file.size), THERE)
    # one's own mirror first: it is near, and its files are checked like any other's
    sources = [_of_mirror(mirror, name)] if mirror is not None else []
    if mirror is not None:
        check_mirror(mirror)
    automatic = [source for source in file.sources if source.kind != "manual"]
    sources += automatic if accepted or not file.gated else []
    if not sources:
        raise InputError(by_hand(target, file, again))
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in sources:
        part = _part_of(target, source)
        try:
            md5 = _brought(source, part, file, wanted, link=link)
        # ValueError: of an address or a header that is none
        except (InputError, OSError, requests.RequestException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise not_written(target, error) from None
            failures.append(f"{source.kind} {source.address}: {' '.join(str(error).split())}")
            continue
        if target.exists():
            # put there by hand meanwhile: nothing that is there is overwritten
            return Fetched(checked(target, wanted, file.size), THERE)
        path = f" {source.path}" if source.path else ""
        fetched = Fetched(md5, f"{source.kind} {source.address}{path}")
        # before the file is there: whoever finds it does not ask any more where it came from
        remember(fetched)
        put_in_place(part, target)
        _validator(part).unlink(missing_ok=True)
        return fetched
    hint = f"put it at {target} by hand, or run {again} later{_archived(file)}"
    if file.gated:
        hint = by_hand(target, file, again)
    raise InputError(f"{target}: no source gave it ({'; '.join(failures)}); {hint}")


def _part_of(target: Path, source: Source) -> Path:
    """The partial file of a source: what one began another must not go on with."""
    address = f"{source.address}/{source.path}".encode()
    label = hashlib.md5(address, usedforsecurity=False).hexdigest()[:8]
    return target.with_name(f"{target.name}.{label}.part")


def _brought(
    source: Source, part: Path, file: File, wanted: Mapping[str, str], *, link: bool
) -> str:
    """Bring a file from one source to `part`; returns its md5."""
    if link and source.kind == "local":
        found: str | None = _link(_origin(source), part)
    else:
        found = _download(source, part, file, wanted)
    beside = {"published beside it": source.md5}
    if source.member is None:
        return checked(part, {**wanted, **beside}, file.size, found)
    # what is published beside an archive is the archive's md5, not its member's
    checked(part, beside, "unknown")
    _keep_member(part, source.member)
    return checked(part, wanted, file.size)


def by_hand(target: Path, file: File, again: str = "the same command") -> str:
    """What to do about a file that no program may or can bring."""
    known = []
    for source in file.sources:
        note = f" ({source.note})" if source.note else ""
        known.append(f"{source.address}{note}")
    places = "; ".join(known) or "no known source"
    if file.gated and any(source.kind != "manual" for source in file.sources):
        brings = f"If you may have it, `{again} --accepted` brings it from {places}"
        return f"{target}: {file.gated}. {brings}{_archived(file)}"
    asked = f" {file.gated}." if file.gated else ""
    get_it = f"Get it from {places}, then go on with `{again}`{_archived(file)}"
    return f"{target}: has to be put there by hand.{asked} {get_it}"


def _archived(file: File) -> str:
    """Where the same data lie, should the sources be gone."""
    return f"; also archived at {file.archive}" if file.archive else ""


def recorded(folder: Path) -> dict[str, dict[str, str]]:
    """File name -> which source gave it and, once it was read to its end, its md5.

    Of the files of a data set's folder.
    """
    path = folder / RECORD
    return dict(read_object(path)) if path.exists() else {}


def record_source(folder: Path, name: str, source: str) -> None:
    """Remember where a file came from.

    Its md5 isn't yet what the file must have: an archive that came truncated would be right for
    ever, and the whole one wrong.
    """
    entries = recorded(folder)
    if "md5" not in entries.get(name, {}):
        _write_record(folder, entries | {name: {"source": source}})


def record_md5(folder: Path, name: str, md5: str) -> None:
    """Remember what a file was that was read to its end, the first time."""
    entries = recorded(folder)
    known = entries.get(name, {"source": "put there by hand"})
    if "md5" not in known:
        _write_record(folder, entries | {name: {"md5": md5, **known}})


def _write_record(folder: Path, entries: Mapping[str, Mapping[str, str]]) -> None:
    write_json(folder / RECORD, dict(sorted(entries.items())))


def checked(
    path: Path, wanted: Mapping[str, str], size: int | str, found: str | None = None
) -> str:
    """The file's md5, if it is the expected one.

    A partial file with another one is deleted, so that the next attempt begins anew.

    Args:
        found: the md5, where it is known already.
    """
    found_size = path.stat().st_size if path.is_file() else None
    problem = ""
    if isinstance(size, int) and found_size != size:
        problem = f"has {found_size} bytes, published are {size}"
    found = found or file_md5(path)
    for where, md5 in wanted.items():
        if md5 not in ("unknown", found):
            problem = problem or f"md5 is {found}, {where} is {md5}"
    if not problem:
        return found
    if path.suffix == ".part":
        _give_up(path)
        raise InputError(problem)
    raise InputError(f"{path}: {problem}; delete it and fetch it again, or find out which is right")


def check_mirror(mirror: str) -> None:
    """Refuse a mirror that is no folder: each of its files would be asked of the publishers."""
    if not _is_address(mirror) and not Path(mirror).is_dir():
        raise InputError(f"mirror {mirror}: no such folder")


def _is_address(mirror: str) -> bool:
    return mirror.startswith(("http://", "https://"))


def _of_mirror(mirror: str, name: str) -> Source:
    if _is_address(mirror):
        return Source(kind="https", address=f"{mirror.rstrip('/')}/{name}")
    return Source(kind="local", address=mirror, path=name)


def _download(source: Source, part: Path, file: File, wanted: Mapping[str, str]) -> str | None:
    """Bring what lies at an address; its md5, where that is known without reading it again."""
    known = [file.size, source.md5, *wanted.values()]
    is_known = any(fact != "unknown" for fact in known)
    if source.kind != "local":  # whose size is there to be read
        size = file.size if isinstance(file.size, int) else file.estimate or 0
        _needs_room(part, size - (part.stat().st_size if part.exists() else 0))
    match source.kind:
        case "google_drive":
            _google_drive(source.address, part)
        case "google_drive_folder":
            _google_drive_folder(source, part)
        case "https":
            _https(source.address, part, is_known)
        case "hugging_face":
            datasets = "https://huggingface.co/datasets"
            _https(f"{datasets}/{source.address}/resolve/main/{source.path}", part, is_known)
        case "local":
            return _local(_origin(source), part)
        case "manual":
            raise InputError("by hand only")
    return None


# ---------------------------------------------------------------------------------------- a folder


def _origin(source: Source) -> Path:
    """Where a file lies in a mirror on this machine."""
    path = Path(source.address) / (source.path or "")
    # an archive may lie there unpacked
    unpacked = path.with_name(path.name.removesuffix(".zip").removesuffix(".tar.gz"))
    for origin in (path, unpacked):
        if origin.exists():
            return origin
    raise InputError("no such file")


def _link(origin: Path, part: Path) -> str:
    """A symbolic link to a mirror's file or folder, through which nobody writes; its md5."""
    _give_up(part)
    part.symlink_to(origin.resolve())
    return file_md5(origin)


def _local(origin: Path, part: Path) -> str:
    """Copy a file, or a folder of features, of a mirror on this machine; returns its md5."""
    if origin.is_file():
        _needs_room(part, origin.stat().st_size)
        return _copied(origin, part)
    _needs_room(part, sum(item.stat().st_size for item in files_of(origin)))
    # a mirror may have gained files, or lost some: what is there of an earlier call is made anew
    _give_up(part)
    digest = hashlib.md5(usedforsecurity=False)
    for item in progress(files_of(origin), _file_of(part), unit="file"):
        name = item.relative_to(origin)
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        digest.update(f"{name.as_posix()} {_copied(item, part / name)}\n".encode())
    return digest.hexdigest()


def _copied(origin: Path, part: Path) -> str:
    """Copy a file, going on from where `part` ends; its md5, of what is read on the way."""
    status = origin.stat()
    told = {"size": status.st_size, "mtime": status.st_mtime_ns}
    validator = _validator(part)
    if _told(part) != told:
        part.unlink(missing_ok=True)
        write_json(validator, told)
    digest = hashlib.md5(usedforsecurity=False)
    with origin.open("rb") as there, part.open("a+b") as here:
        here.seek(0)
        done = 0
        while block := here.read(BLOCK):
            digest.update(block)
            done += len(block)
        there.seek(done)
        blocks = iter(lambda: there.read(BLOCK), b"")
        for block in _shown(blocks, _file_of(part), total=status.st_size, done=done):
            digest.update(block)
            here.write(block)
        here.flush()
        os.fsync(here.fileno())
    validator.unlink()
    return digest.hexdigest()


def _file_of(part: Path) -> str:
    """The name of the file that a partial file becomes."""
    return part.name.rsplit(".", 2)[0]


def _needs_room(part: Path, more: int) -> None:
    """Refuse what doesn't fit before it begins."""
    free = shutil.disk_usage(part.parent).free
    if more > free:
        raise InputError(
            f"needs {more / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free in {part.parent}"
        )


def _keep_member(part: Path, member: str) -> None:
    """Replace an archive by one of its files."""
    for item in members(part):
        if item.name == member:
            content = item.read()
            with atomic_path(part) as small:
                small.write_bytes(content)
            return
    _give_up(part)
    raise InputError(f"the archive holds no {member}")


# ------------------------------------------------------------------------------------ Google Drive


def _google_drive(address: str, part: Path) -> None:
    """A file by its id; gdown answers the virus-scan page that large files come with."""
    import gdown

    try:
        gdown.download(
            id=address,
            output=str(part),
            resume=True,
            retries=ATTEMPTS,
            timeout=TIMEOUT[1],
            quiet=not sys.stderr.isatty(),
        )
    except Exception as error:  # whatever Google answered, the next source is tried
        raise InputError(f"{type(error).__name__}: {error}") from None
    if not part.exists():
        raise InputError("Google Drive gave no file")


def _google_drive_folder(source: Source, part: Path) -> None:
    import gdown

    try:
        listing = gdown.download_folder(id=source.address, skip_download=True, quiet=True)
    except Exception as error:  # whatever Google answered, the next source is tried
        raise InputError(f"{type(error).__name__}: {error}") from None
    wanted = source.path or ""
    for item in listing or []:
        if item.path == wanted or item.path.endswith(f"/{Path(wanted).name}"):
            _google_drive(item.id, part)
            return
    raise InputError(f"the folder holds no {wanted}")


# -------------------------------------------------------------------------------------------- http


def _https(address: str, part: Path, is_known: bool) -> None:
    """Download with Range from where `part` ends; five attempts without progress, with pauses.

    Args:
        is_known: the file's size or md5, by which half of it would be told from all of it.
    """
    attempt = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        pause = 2.0**attempt
        try:
            _https_once(address, part, is_known)
            return
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ):
            attempt += 1
            if attempt == ATTEMPTS:
                raise
        except requests.HTTPError as error:
            attempt += 1
            if attempt == ATTEMPTS or error.response.status_code not in (429, 500, 502, 503, 504):
                raise
            asked = error.response.headers.get("Retry-After", "")
            pause = max(pause, float(asked)) if re.fullmatch("[0-9]{1,9}", asked) else pause
        if part.exists() and part.stat().st_size > before:
            attempt = 0
        time.sleep(min(pause, LONGEST_PAUSE))


def _validator(part: Path) -> Path:
    """Beside a partial file: what tells whether the server still has the file that it began."""
    return part.with_suffix(".validator")


def _told(part: Path) -> dict[str, Any]:
    """What the validator says; nothing where there is none, or a damaged one."""
    try:
        return read_object(_validator(part))
    except InputError:
        return {}


def _give_up(part: Path) -> None:
    """Begin anew next time."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _https_once(address: str, part: Path, is_known: bool) -> None:
    """One request: for what is missing of a partial file, or for all of it."""
    done = part.stat().st_size if part.exists() else 0
    known = _told(part) if done else {}
    # bytes as they lie on the server: a compressed transfer could not be gone on with
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    if done and known.get("tag"):
        # if it is another file now, everything is sent again
        headers["If-Range"] = known["tag"]
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status = response.status_code
        start, whole = _content_range(response)
        if status == 416 and whole == done:
            # nothing is missing
            return
        if status == 416 or (status == 206 and whole is None):
            _give_up(part)
            wrong = f"does not go on from the {done} bytes that were fetched before"
            raise requests.ConnectionError(f"{address}: {wrong}")
        response.raise_for_status()
        _refuse_page(response)
        # a server that ignores Range, or whose file has changed, sends everything again
        resumed = status == 206
        if resumed and (start != done or known.get("total", whole) != whole):
            _give_up(part)
            wrong = f"its file has changed since {done} bytes of it were fetched"
            raise requests.ConnectionError(f"{address}: {wrong}")
        if not resumed:
            done = 0
        length = response.headers.get("Content-Length")
        if length is None and not is_known and not _is_chunked(response):
            wrong = "doesn't say how long the file is, and nobody published its size or md5"
            raise InputError(f"{wrong}: half of it would pass for all of it")
        rest = int(length or 0)
        total = done + rest
        _needs_room(part, rest)
        if not resumed:
            write_json(_validator(part), {"tag": _tag(response), "total": total})
        with part.open("ab" if resumed else "wb") as file:
            blocks = response.iter_content(1 << 16)
            for block in _shown(blocks, _file_of(part), total=total, done=done):
                file.write(block)
        # a second check: the library notices a short answer itself
        came = part.stat().st_size
        if came < total:
            raise requests.ConnectionError(f"{address}: broke off at {came} of {total} bytes")


def _is_chunked(response: requests.Response) -> bool:
    """Does the transfer itself say where it ends?"""
    return response.headers.get("Transfer-Encoding", "").lower() == "chunked"


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte that a server sends, and how many the file has, where it says so."""
    text = response.headers.get("Content-Range", "")
    sizes = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", text)
    if sizes is None:
        return None, None
    return (None if sizes[1] is None else int(sizes[1])), int(sizes[2])


def _tag(response: requests.Response) -> str:
    """What names this version of a file; a weak ETag doesn't promise equal bytes."""
    tag = str(response.headers.get("ETag", ""))
    if not tag or tag.startswith("W/"):
        return str(response.headers.get("Last-Modified", ""))
    return tag


def _shown(blocks: Iterable[bytes], what: str, *, total: int, done: int = 0) -> Iterator[bytes]:
    """Blocks with a bar of size and rate on a terminal; elsewhere a line now and then."""
    on_terminal = sys.stderr.isatty()
    began = told = time.monotonic()
    came = 0
    with tqdm(
        total=total or None,
        initial=done,
        desc=what,
        unit="B",
        unit_scale=True,
        disable=not on_terminal,
    ) as bar:
        for block in blocks:
            yield block
            came += len(block)
            bar.update(len(block))
            now = time.monotonic()
            if not on_terminal and now - told > LINE_SECONDS:
                told, rate = now, came / (now - began)
                of = f" of {total / 1e6:.0f}" if total else ""
                print(
                    f"{what}: {(done + came) / 1e6:.0f}{of} MB, {rate / 1e6:.1f} MB/s",
                    file=sys.stderr,
                    flush=True,
                )


def _refuse_page(response: requests.Response) -> None:
    """A web page in place of the file: a login, a warning, an error that calls itself 200."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        text = next(response.iter_content(1 << 14), b"").decode("utf-8", "replace")
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        said = json.dumps(" ".join(title[1].split())) if title else "without a title"
        raise InputError(f"sent a web page ({said}) instead of the file")
