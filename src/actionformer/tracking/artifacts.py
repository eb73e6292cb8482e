"""Files of a run folder as artifacts of its run: large ones are links, where that can be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from mlflow.tracking import MlflowClient

from actionformer.files.md5 import file_md5
from actionformer.tracking.store import tag_of

# bytes from which an artifact is a hard link, where the store lies here
LINKED_FROM = 1_000_000


def upload(client: MlflowClient, run_id: str, files: Sequence[Path], folder: str = "") -> None:
    """Those of these files that are there, into a folder of a run's artifacts.

    Of those that the run has, as a tag of it tells, what has changed since.
    """
    known = json.loads(tag_of(client, run_id, "artifacts") or "{}")
    found = dict(known)
    for path in files:
        if path.exists():
            name = f"{folder}/{path.name}" if folder else path.name
            found[name] = file_md5(path)
            if known.get(name) != found[name]:
                _log_file(client, run_id, path, folder)
    if found != known:
        client.set_tag(run_id, "artifacts", json.dumps(found))


def _log_file(client: MlflowClient, run_id: str, path: Path, folder: str) -> None:
    """A file as an artifact; where the store lies here a large one is a second name of the file.

    Nothing writes into a large file of a run: a new one takes its place. What a person may edit is
    small, and copied.
    """
    address = urlparse(client.get_run(run_id).info.artifact_uri)
    if path.stat().st_size >= LINKED_FROM and address.scheme in ("", "file"):
        target = Path(address.path) / folder / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if linked(path, target):
            return
    client.log_artifact(run_id, str(path), folder or None)


def linked(path: Path, target: Path) -> bool:
    """Give a file a second name, in the place of what lies there; not across disks."""
    beside = target.with_name(f".{target.name}.link")
    try:
        beside.unlink(missing_ok=True)
        # a rename of a second name onto the first would do nothing, and leave both
        if target.exists() and target.samefile(path):
            return True
        beside.hardlink_to(path)
        beside.replace(target)
    except OSError:
        return False
    return True
