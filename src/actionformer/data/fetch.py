"""Bring a publisher's file: its sources in order, resumed where it broke off, checked before it counts."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path

import requests
from tqdm import tqdm

from actionformer.errors import InputError
from actionformer.experiment import File, Source
from actionformer.files import atomic_path, file_md5

ATTEMPTS = 5
TIMEOUT = (15, 60)


def fetch(target: Path, file: File) -> None:
    """Download `target` from the first of its sources that has it; an existing file is only checked.

    Raises:
        InputError: a gated file, with what to ask for and where to put it; no source reachable; a wrong md5.
    """
    if target.exists():
        _check(target, file.md5)
        return
    automatic = [source for source in file.sources if source.kind != "manual"]
    if not automatic:
        places = "; ".join(f"{s.address}{f' ({s.note})' if s.note else ''}" for s in file.sources) or "no known source"
        raise InputError(
            f"{target}: has to be put there by hand. {file.gated or ''} Get it from {places}, then run again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in automatic:
        # a partial file of its own for every source: what one began another must not go on with
        name = hashlib.md5(f"{source.address}/{source.path}".encode(), usedforsecurity=False).hexdigest()[:8]
        part = target.with_name(f"{target.name}.{name}.part")
        try:
            _download(source, part)
            expected = source.md5 if source.md5 != "unknown" else file.md5
            _check(part, expected)
        except (InputError, OSError, requests.RequestException) as error:
            failures.append(f"{source.kind} {source.address}: {' '.join(str(error).split())}")
            continue
        part.replace(target)
        return
    raise InputError(f"{target}: no source gave it ({'; '.join(failures)}). {file.gated or ''} Put it there by hand")


def _check(path: Path, expected: str) -> None:
    if expected == "unknown":
        return
    found = file_md5(path)
    if found != expected:
        path.unlink() if path.suffix == ".part" else None
        raise InputError(f"{path}: md5 is {found}, published is {expected}; delete it and fetch it again")


def _download(source: Source, part: Path) -> None:
    match source.kind:
        case "google_drive":
            _google_drive(source.address, part)
        case "google_drive_folder":
            _google_drive_folder(source, part)
        case "https":
            _https(source.address, part)
        case "hugging_face":
            _https(f"https://huggingface.co/datasets/{source.address}/resolve/main/{source.path}", part)
        case "local":
            origin = Path(source.address) / (source.path or "")
            with atomic_path(part) as copy:
                shutil.copyfile(origin, copy)
        case "manual":
            raise InputError("by hand only")


def _google_drive(file_id: str, part: Path) -> None:
    import gdown

    try:
        gdown.download(id=file_id, output=str(part), resume=True, retries=ATTEMPTS, quiet=not sys.stderr.isatty())
    except gdown.exceptions.DownloadError as error:
        raise InputError(str(error)) from None
    if not part.exists():
        raise InputError("Google Drive gave no file")


def _google_drive_folder(source: Source, part: Path) -> None:
    import gdown

    try:
        listing = gdown.download_folder(id=source.address, skip_download=True, quiet=True)
    except gdown.exceptions.DownloadError as error:
        raise InputError(str(error)) from None
    wanted = source.path or ""
    found = next(
        (item for item in listing or [] if item.path == wanted or item.path.endswith(f"/{Path(wanted).name}")), None
    )
    if found is None:
        raise InputError(f"the folder holds no {wanted}")
    _google_drive(found.id, part)


def _https(address: str, part: Path) -> None:
    """Download with Range from where `part` ends; five attempts with growing pauses."""
    for attempt in range(ATTEMPTS):
        try:
            _https_once(address, part)
            return
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if attempt == ATTEMPTS - 1:
                raise
        except requests.HTTPError as error:
            status = error.response.status_code
            if attempt == ATTEMPTS - 1 or status not in (429, 500, 502, 503, 504):
                raise
        time.sleep(2**attempt)


def _https_once(address: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    # bytes as they lie on the server: a compressed transfer could not be gone on with
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range", "").endswith(f"/{done}"):
                return
            part.unlink()
            raise requests.ConnectionError(f"{address}: has fewer than the {done} bytes that were fetched before")
        response.raise_for_status()
        resumed = response.status_code == 206
        total = int(response.headers.get("Content-Length", 0)) + (done if resumed else 0)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total or None,
                initial=done if resumed else 0,
                desc=part.name,
                unit="B",
                unit_scale=True,
                disable=not sys.stderr.isatty(),
            ) as bar,
        ):
            for chunk in response.iter_content(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
        if total and part.stat().st_size < total:
            raise requests.ConnectionError(f"{address}: broke off at {part.stat().st_size} of {total} bytes")
