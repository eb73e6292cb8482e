"""Copies of feature stores on a disk of this machine: its jobs read those, not the shared disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from filelock import FileLock

from actionformer.errors import InputError
from actionformer.files.writing import NoRoom, atomic_path


def near(store: Path, md5: str, scratch: Path) -> tuple[Path, str]:
    """A copy of a store in a folder of this machine, and why it is none where there is no room.

    The first job makes the copy, the others wait for it. It stays: whoever empties the disk after a
    job, as schedulers do, or its owner by hand, empties this, too.

    Args:
        md5: of the store's content, by which the copy is known.
        scratch: may hold variables of the machine, such as $TMPDIR.

    Raises:
        InputError: the folder cannot be written to, or has a variable that is not set.
    """
    folder = _folder_in(scratch)
    copy = folder / f"{md5}.h5"
    size = store.stat().st_size
    try:
        with FileLock(folder / f"{md5}.lock"):
            if not copy.exists() or copy.stat().st_size != size:
                with atomic_path(copy, size) as part:
                    shutil.copyfile(store, part)
    except NoRoom as error:
        return store, f"{error}; reads {store} instead"
    return copy, ""


def _folder_in(scratch: Path) -> Path:
    """The folder of this user's copies, which nobody else can write to."""
    expanded = os.path.expandvars(scratch)
    if not expanded.strip() or "$" in expanded:
        raise InputError(f"{scratch}: a variable that is not set on this machine")
    folder = Path(expanded).expanduser() / f"actionformer-{os.getuid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            raise InputError(f"{folder}: belongs to somebody else, who could change the copies")
    except OSError as error:
        raise InputError(f"{folder}: no folder for copies of stores ({error})") from None
    return folder
