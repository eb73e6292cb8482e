"""What this machine has computed, for others: into a cache of results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.params import keys
from actionformer.progress import progress
from actionformer.stages import inputs

if TYPE_CHECKING:
    from actionformer.result_cache import Entry, ResultCache


def fetched_text(cache: ResultCache, entry: Entry) -> str:
    """Where a product came from, who computed it on what, and whether in another environment."""
    made_by = entry.made_by
    if "first_epoch" in made_by[0]:
        who = provenance.history_text(made_by)
    else:
        who = f"{provenance.commit_text(made_by[0]['git'])}, {provenance.device_text(made_by[0])}"
    here = provenance.lock_md5()
    if any(session["environment"].get("lock") != here for session in made_by):
        who += "; another requirements.lock than here"
    return f"fetched from {cache.address} ({who})"


def share(cache: ResultCache, edition: str) -> tuple[int, int]:
    """Put every finished product of an edition into a cache.

    Returns how many it has of them, and how many there are.
    """
    kept = []
    root = layout.results(edition)
    for run in progress(sorted(root.glob("*/seed*")), "share", unit="run"):
        if layout.manifest(run / "model.pt").exists():
            kept += [keep_training(cache, run)]
            if layout.manifest(run / "detections.json").exists():
                kept += [keep_detections(cache, run)]
        elif (run / "metrics.json").exists():
            kept += [keep_scored(cache, run)]
    for run in sorted(root.glob("*/released")):
        if (run / "detections.json").exists():
            kept += [keep_scored(cache, run)]
    return sum(kept), len(kept)


def keep_training(cache: ResultCache, run: Path) -> bool:
    """Put a trained run there; says whether it is there now."""
    told = read_object(run / "lineage.json")
    made = keys.stored(layout.manifest(run / "model.pt"))
    files = [run / "model.pt", run / "history.csv"]
    return _kept(cache, run, made, files, told.get("trained_by", []), told.get("mlflow_run"))


def keep_detections(cache: ResultCache, run: Path) -> bool:
    """Put a run's detections there; says whether they are there now."""
    told = read_object(layout.manifest(run / "detections.json"))
    made_by = [told["detected_by"]] if "detected_by" in told else []
    return _kept(cache, run, told.get("made_with"), [run / "detections.json"], made_by)


def keep_scored(cache: ResultCache, run: Path) -> bool:
    """Put detections there that were scored at once: of a published checkpoint, of actions."""
    made = keys.stored(run / "metrics.json")
    told = read_object(run / "lineage.json")
    made_by = [told["evaluated_by"]] if "evaluated_by" in told else []
    return _kept(cache, run, made, [run / "detections.json"], made_by)


def _kept(
    cache: ResultCache,
    run: Path,
    made: Mapping[str, Any] | None,
    files: Sequence[Path],
    made_by: Sequence[Mapping[str, Any]],
    mlflow_run: str | None = None,
) -> bool:
    """Put a product there; what goes wrong is said, and fails nothing that was computed."""
    wrong = ""
    if made is None or not made_by:
        wrong = "it does not say what made it"
    elif any(_is_unknown(session["git"]) for session in made_by):
        # nobody could look up what computed it
        wrong = "it was computed by a checkout with changes that are not committed"
    elif any(inputs.recorded_md5(path) != file_md5(path) for path in files):
        wrong = "it is not what its manifest says: damaged, or put there by hand"
    else:
        try:
            cache.keep(made, files, made_by, name="/".join(run.parts[-3:]), mlflow_run=mlflow_run)
        except InputError as error:
            wrong = f"{error}; `actionformer share {cache.address}` tries again"
    if wrong:
        names = ", ".join(path.name for path in files)
        print(f"{run}: {names} not shared: {wrong}", file=sys.stderr)
    return not wrong


def _is_unknown(git: Mapping[str, Any]) -> bool:
    return bool(git["dirty"]) or git["commit"] == "unknown"
