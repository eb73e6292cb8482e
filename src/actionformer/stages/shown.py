"""What pages show (tables, cards, figures, the report), kept beside each so that it can be checked.

The manifest of a page holds, under "shown", the rows with the params that they were shown with,
their seeds, and what else decides its text; under "made_of", the md5 of every file of results that
went into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionformer import layout
from actionformer.errors import InputError
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.params.experiment import Experiment
from actionformer.params.files import why_not_comparable
from actionformer.params.stored import stored_experiment


@dataclass(frozen=True)
class Shown:
    """The rows on a page, with the params that they were shown with, and which of their runs."""

    experiments: Sequence[Experiment]
    seeds: Sequence[int]
    # with the published checkpoints
    released: bool
    # why the edition's numbers don't compare, if they don't
    remark: str
    # of figures: those that the timelines show first
    videos: Sequence[str] = ()
    # of a report: rows without their timelines, which show ground truth
    hidden: Sequence[str] = ()

    @property
    def edition(self) -> str:
        return self.experiments[0].edition

    def as_record(self, more: Sequence[Path] = ()) -> dict[str, Any]:
        """For a page's manifest: by it the page can be made again, and the md5 of what it is of.

        Args:
            more: files that it is made of, beside the results of its rows.
        """
        files = [path for path in [*self._files(), *more] if path.exists()]
        return {
            "shown": {
                "params": [experiment.model_dump(mode="json") for experiment in self.experiments],
                "seeds": list(self.seeds),
                "released": self.released,
                "remark": self.remark,
                "videos": list(self.videos),
                "hidden": list(self.hidden),
            },
            "made_of": {path.as_posix(): file_md5(path) for path in files},
        }

    def _files(self) -> list[Path]:
        """The results that a page may show of these rows."""
        files = []
        names = {experiment.name for experiment in self.experiments}
        for experiment in self.experiments:
            folders = [experiment.name]
            if experiment.actions_with in names:
                folders.append(layout.actions(experiment))
            for folder in folders:
                for seed in self.seeds:
                    run = layout.run(self.edition, folder, seed)
                    files += [run / "metrics.json", run / "history.csv"]
            if self.released:
                files.append(layout.released_run(experiment) / "metrics.json")
        return files


def shown(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool
) -> Shown:
    """What a page of today shows of these rows."""
    return Shown(experiments, seeds, released, why_not_comparable(experiments[0], params))


def read_shown(manifest: Path) -> Shown:
    """What a page shows, as its manifest tells it.

    Raises:
        InputError: no manifest, or one of an earlier version.
    """
    told = read_object(manifest).get("shown")
    if not isinstance(told, Mapping):
        raise InputError(f"{manifest}: doesn't say what the page shows; make the page again")
    experiments = [stored_experiment(content, str(manifest)) for content in told["params"]]
    return Shown(
        experiments,
        told["seeds"],
        told["released"],
        told["remark"],
        told["videos"],
        told.get("hidden", ()),
    )
