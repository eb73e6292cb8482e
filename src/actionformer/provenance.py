"""Where a number comes from: git commit, version of the data, environment.

Nothing else reads git or DVC's hashes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from actionformer import layout
from actionformer.errors import InputError
from actionformer.files.md5 import cached_md5, remember
from actionformer.files.reading import read_json, read_object
from actionformer.params.files import CHECKOUT, IS_CHECKOUT
from actionformer.params.yaml_files import read_yaml

LOCK_FILE = CHECKOUT / "requirements.lock"


def git_state(checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Commit and whether tracked files differ from it; 'unknown' outside a checkout."""

    def git(*arguments: str) -> str | None:
        if not IS_CHECKOUT:
            return None  # the repository around an installed package is another one
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=checkout, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    # what git doesn't track is data and results: it makes no other program
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or "unknown", "dirty": bool(changed)}


def environment() -> dict[str, Any]:
    """Versions and hardware that can move the last digits of a result."""
    # torch takes seconds, and most of what asks provenance wants md5s
    import numpy
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        # which environment: Snakemake may deploy one of its own
        "prefix": sys.prefix,
        "torch": str(torch.__version__),  # its own type is one that checkpoints refuse
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "lock": lock_md5(),
    }


def refuse_other_checkout(folder: Path = Path(".")) -> None:
    """A copied checkout's environment is that of the original: its code and params would be used.

    Raises:
        InputError: a checkout in the folder that is not the one that this program comes from.
    """
    here = folder.resolve()
    is_checkout = (here / "Snakefile").exists() and (here / "src/actionformer").exists()
    if is_checkout and IS_CHECKOUT and here != CHECKOUT:
        raise InputError(
            f"{here} is a checkout, but this program is {CHECKOUT}'s: nothing that is edited here "
            "would count; `make env` makes an environment of its own here"
        )


# who computed something that does not say it
UNKNOWN: Mapping[str, Any] = {
    "git": {"commit": "unknown", "dirty": False},
    "environment": {"lock": "unknown", "processor": "unknown", "torch": "unknown"},
    "device": "unknown",
}


def who(device: str, arithmetic: str) -> dict[str, Any]:
    """The commit, the environment, the device and its arithmetic that compute now.

    Args:
        arithmetic: `model.precision.effective` of the device.
    """
    told = {"git": git_state(), "environment": environment()}
    return told | {"device": device, "precision": arithmetic}


def trained_by(lineage: Mapping[str, Any], epochs: int) -> list[dict[str, Any]]:
    """Who trained which epochs of a run.

    Runs of before that was kept name only who wrote their lineage last.

    A published checkpoint, which has no seed, was not trained here.
    """
    if "trained_by" in lineage:
        return list(lineage["trained_by"])
    if lineage.get("seed", 0) is None:
        return []
    told = {key: lineage.get(key, UNKNOWN[key]) for key in UNKNOWN}
    return [{"first_epoch": 0, "last_epoch": epochs - 1, **told}]


def evaluated_by(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Who evaluated a run; runs of before that was kept name who wrote their lineage last."""
    told: dict[str, Any] = lineage.get("evaluated_by") or {
        key: lineage.get(key, UNKNOWN[key]) for key in UNKNOWN
    }
    return told


def locks(lineage: Mapping[str, Any]) -> list[str]:
    """md5 of each lock file under which a run was trained and evaluated, each once."""
    evaluated = evaluated_by(lineage)
    found = []
    for session in lineage["trained_by"]:
        found.append(session.get("environment", {}).get("lock", "unknown"))
    found.append(evaluated.get("lock") or evaluated.get("environment", {}).get("lock", "unknown"))
    return list(dict.fromkeys(found))


def commit_text(git: Mapping[str, Any]) -> str:
    """The first digits of a commit, and whether files differed from it."""
    return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}"


def history_text(sessions: Sequence[Mapping[str, Any]]) -> str:
    """Who trained which epochs, counted from 1: 'epochs 1-24: 51fbde0c6c2e, cpu'."""
    parts = []
    for session in sessions:
        first, last = session["first_epoch"] + 1, session["last_epoch"] + 1
        epochs = f"epoch {first}" if first == last else f"epochs {first}-{last}"
        row = f"{session['row']}, " if "row" in session else ""
        parts.append(f"{row}{epochs}: {commit_text(session['git'])}, {device_text(session)}")
    return "; ".join(parts)


def device_text(session: Mapping[str, Any]) -> str:
    """What computed: 'cpu', 'NVIDIA H100, tf32'."""
    precision = session.get("precision", "float32")
    return str(session["device"]) + ("" if precision == "float32" else f", {precision}")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def lock_md5() -> str:
    """md5 of the lock file that the environment was installed from."""
    if not LOCK_FILE.exists():
        return "unknown"
    return hashlib.md5(LOCK_FILE.read_bytes(), usedforsecurity=False).hexdigest()


# ------------------------------------------------------------------------------------ data version


def data_version(files: Iterable[str], checkout: Path = Path(".")) -> str:
    """Which version of the data these files belong to, by their paths from the checkout.

    md5 of each output of `data.dvc` that holds some of them; 'none' where none does.
    """
    outputs = _outputs(checkout.resolve())
    used = []
    for path in files:
        for folder, md5 in outputs.items():
            if path == folder or path.startswith(f"{folder}/"):
                used.append(md5)
    return " ".join(dict.fromkeys(used)) or "none"


@cache
def _outputs(checkout: Path) -> dict[str, str]:
    """Folder or file -> its md5, of every output that `data.dvc` pins."""
    entry = checkout / "data.dvc"
    if not entry.exists():
        return {}
    listed: Any = read_yaml(entry).get("outs")
    try:
        return {str(output["path"]): str(output["md5"]) for output in listed if "md5" in output}
    except (KeyError, TypeError):
        raise InputError(
            f"{entry}: expected 'outs', each with a path; `git checkout data.dvc` brings it back"
        ) from None


def pinned_md5s(checkout: Path = Path(".")) -> dict[str, str]:
    """md5 of every file of the pinned version, by path from the checkout ('data/demo/...').

    Without those of an output whose list of files has not been pulled yet.
    """
    return _pinned_md5s(checkout.resolve())


@cache
def _pinned_md5s(checkout: Path) -> dict[str, str]:
    pinned = {}
    for folder, version in _outputs(checkout).items():
        if not version.endswith(".dir"):
            pinned[folder] = version
            continue
        manifest = _list_of(checkout, version)
        if manifest is not None:
            pinned |= _of_folder(folder, manifest)
    return pinned


def _list_of(checkout: Path, version: str) -> Path | None:
    """DVC's list of the files of a folder, which it keeps like any other file, under its md5."""
    for store in (".dvc/cache/files/md5", ".dvc/store/files/md5"):
        path = checkout / store / version[:2] / version[2:]
        if path.exists():
            return path
    return None


def lists_of_pinned() -> list[Path]:
    """The files beside `data.dvc` that tell which files are pinned."""
    found = []
    for version in _outputs(Path().resolve()).values():
        path = _list_of(Path(), version)
        if version.endswith(".dir") and path is not None:
            found.append(path)
    return found


def _of_folder(folder: str, manifest: Path) -> dict[str, str]:
    """Path -> md5 of every file of a folder, from DVC's list of them."""
    try:
        return {f"{folder}/{entry['relpath']}": str(entry["md5"]) for entry in read_json(manifest)}
    except (KeyError, TypeError):
        raise InputError(
            f"{manifest}: expected DVC's list of files; delete it, `dvc pull` brings it back"
        ) from None


def source_md5(path: Path) -> str:
    """md5 of a raw file as it lies there; else as it is pinned; 'absent' if neither is known."""
    if path.exists():
        return cached_md5(path, layout.MD5_CACHE)
    return pinned_md5s().get(path.as_posix(), "absent")


def remember_md5(path: Path, md5: str) -> None:
    """Spare whoever asks next the reading of a file whose md5 is known."""
    remember(path, md5, layout.MD5_CACHE)


def sources(paths: Iterable[Path]) -> dict[str, str]:
    """md5 of each raw file that a stage read, for its manifest."""
    return {path.as_posix(): source_md5(path) for path in paths}


def recorded_md5(path: Path, manifest: Path) -> str:
    """`source_md5`; for a file that is gone, what the stage recorded that read it."""
    if not path.exists() and manifest.exists():
        content = read_object(manifest)
        listed = (
            content.get("sources")
            or content.get("files")
            or content.get("lineage", {}).get("files", {})
        )
        recorded = listed.get(path.as_posix())
        if recorded is not None:
            return str(recorded)
    return source_md5(path)


def is_pinned(md5s: dict[str, str]) -> bool:
    """Do all these files have the md5 that the version of the data pins?"""
    pinned = pinned_md5s()
    return bool(md5s) and all(pinned.get(path) == md5 for path, md5 in md5s.items())


def as_pinned_now(lineage: Mapping[str, Any]) -> Mapping[str, Any]:
    """A lineage whose files may have been pinned since they were used: as `data.dvc` stands now."""
    if lineage["pinned"] or not is_pinned(lineage["files"]):
        return lineage
    return {**lineage, "pinned": True, "data_version": data_version(lineage["files"])}
