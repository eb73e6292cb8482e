"""Download into a partial file, going on from where it ends: http with Range, Google Drive."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import requests

from actionformer.data import partial_file
from actionformer.errors import InputError
from actionformer.files.writing import write_json
from actionformer.params.dataset import Source

ATTEMPTS = 5
TIMEOUT = (15, 60)
LONGEST_PAUSE = 60.0


# ------------------------------------------------------------------------------------ Google Drive


def google_drive(address: str, part: Path) -> None:
    """A file by its id; gdown answers the virus-scan page that large files come with.

    Raises:
        InputError: Google gave none, and what it answered.
    """
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


def google_drive_folder(source: Source, part: Path) -> None:
    """The file of a folder that the source's path names.

    Raises:
        InputError: Google gave none, and what it answered, or the folder lacks it.
    """
    import gdown

    try:
        listing = gdown.download_folder(id=source.address, skip_download=True, quiet=True)
    except Exception as error:  # whatever Google answered, the next source is tried
        raise InputError(f"{type(error).__name__}: {error}") from None
    wanted = source.path or ""
    for item in listing or []:
        if item.path == wanted or item.path.endswith(f"/{Path(wanted).name}"):
            google_drive(item.id, part)
            return
    raise InputError(f"the folder holds no {wanted}")


# -------------------------------------------------------------------------------------------- http


def https(address: str, part: Path, is_known: bool) -> None:
    """Download with Range from where `part` ends; five attempts without progress, with pauses.

    Args:
        is_known: the file's size or md5, by which half of it would be told from all of it.

    Raises:
        InputError: a web page came instead, or what may be half of the file.
        OSError: the disk's, or one of requests, with what the server answered last.
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


def _https_once(address: str, part: Path, is_known: bool) -> None:
    """One request: for what is missing of a partial file, or for all of it."""
    done = part.stat().st_size if part.exists() else 0
    known = partial_file.told(part) if done else {}
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
            partial_file.give_up(part)
            wrong = f"does not go on from the {done} bytes that were fetched before"
            raise requests.ConnectionError(f"{address}: {wrong}")
        response.raise_for_status()
        _refuse_page(response)
        # a server that ignores Range, or whose file has changed, sends everything again
        resumed = status == 206
        if resumed and (start != done or known.get("total", whole) != whole):
            partial_file.give_up(part)
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
        partial_file.refuse_without_room(part, rest)
        if not resumed:
            write_json(partial_file.validator(part), {"tag": _tag(response), "total": total})
        with part.open("ab" if resumed else "wb") as file:
            blocks = response.iter_content(1 << 16)
            for block in partial_file.shown(blocks, part, total=total, done=done):
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


def _refuse_page(response: requests.Response) -> None:
    """A web page in place of the file: a login, a warning, an error that calls itself 200."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        text = next(response.iter_content(1 << 14), b"").decode("utf-8", "replace")
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        said = json.dumps(" ".join(title[1].split())) if title else "without a title"
        raise InputError(f"sent a web page ({said}) instead of the file")
