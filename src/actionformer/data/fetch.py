"""Bring a publisher's file: sources in order, resumed where it broke off, checked at the end.

What a file must be is known from up to three places: the md5 published beside an address, the md5
that the pinned version of the data has, and the md5 recorded when a stage had first read the file
to its end (`data.checksums`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actionformer.data import download, partial_file
from actionformer.data.members import members
from actionformer.errors import InputError
from actionformer.files.md5 import file_md5, files_of
from actionformer.files.writing import NO_ROOM, atomic_path, not_written, put_in_place, write_json
from actionformer.params.dataset import File, Source
from actionformer.progress import progress

BLOCK = 1 << 22
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
        part = partial_file.part_of(target, source)
        try:
            md5 = _brought(source, part, file, wanted, link=link)
        # OSError: the library's own errors, too; ValueError: an address or a header that is none
        except (InputError, OSError, ValueError) as error:
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
        partial_file.validator(part).unlink(missing_ok=True)
        return fetched
    hint = f"put it at {target} by hand, or run {again} later{_archived(file)}"
    if file.gated:
        hint = by_hand(target, file, again)
    raise InputError(f"{target}: no source gave it ({'; '.join(failures)}); {hint}")


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
        partial_file.give_up(path)
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
        partial_file.refuse_without_room(part, size - (part.stat().st_size if part.exists() else 0))
    match source.kind:
        case "google_drive":
            download.google_drive(source.address, part)
        case "google_drive_folder":
            download.google_drive_folder(source, part)
        case "https":
            download.https(source.address, part, is_known)
        case "hugging_face":
            datasets = "https://huggingface.co/datasets"
            address = f"{datasets}/{source.address}/resolve/main/{source.path}"
            download.https(address, part, is_known)
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
    partial_file.give_up(part)
    part.symlink_to(origin.resolve())
    return file_md5(origin)


def _local(origin: Path, part: Path) -> str:
    """Copy a file, or a folder of features, of a mirror on this machine; returns its md5."""
    if origin.is_file():
        partial_file.refuse_without_room(part, origin.stat().st_size)
        return _copied(origin, part)
    partial_file.refuse_without_room(part, sum(item.stat().st_size for item in files_of(origin)))
    # a mirror may have gained files, or lost some: what is there of an earlier call is made anew
    partial_file.give_up(part)
    digest = hashlib.md5(usedforsecurity=False)
    for item in progress(files_of(origin), partial_file.name_of(part), unit="file"):
        name = item.relative_to(origin)
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        digest.update(f"{name.as_posix()} {_copied(item, part / name)}\n".encode())
    return digest.hexdigest()


def _copied(origin: Path, part: Path) -> str:
    """Copy a file, going on from where `part` ends; its md5, of what is read on the way."""
    status = origin.stat()
    stamp = {"size": status.st_size, "mtime": status.st_mtime_ns}
    validator = partial_file.validator(part)
    if partial_file.told(part) != stamp:
        part.unlink(missing_ok=True)
        write_json(validator, stamp)
    digest = hashlib.md5(usedforsecurity=False)
    with origin.open("rb") as there, part.open("a+b") as here:
        here.seek(0)
        done = 0
        while block := here.read(BLOCK):
            digest.update(block)
            done += len(block)
        there.seek(done)
        blocks = iter(lambda: there.read(BLOCK), b"")
        for block in partial_file.shown(blocks, part, total=status.st_size, done=done):
            digest.update(block)
            here.write(block)
        here.flush()
        os.fsync(here.fileno())
    validator.unlink()
    return digest.hexdigest()


def _keep_member(part: Path, member: str) -> None:
    """Replace an archive by one of its files."""
    for item in members(part):
        if item.name == member:
            content = item.read()
            with atomic_path(part) as small:
                small.write_bytes(content)
            return
    partial_file.give_up(part)
    raise InputError(f"the archive holds no {member}")
