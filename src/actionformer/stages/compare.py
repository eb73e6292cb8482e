"""Two runs, seeds or rows side by side: a page, and what a terminal says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actionformer import layout
from actionformer.data.detections import read_results
from actionformer.errors import InputError
from actionformer.evaluation.bootstrap import Comparison
from actionformer.evaluation.bootstrap import compare as bootstrapped
from actionformer.evaluation.matching import Matched, match
from actionformer.files.reading import read_object
from actionformer.files.writing import write_text
from actionformer.metrics_file import read_metrics
from actionformer.params.experiment import Experiment
from actionformer.params.stored import evaluated_experiment
from actionformer.reporting import report
from actionformer.reporting.figures import side_by_side
from actionformer.reporting.figures.primitives import EvaluatedRun
from actionformer.stages import inputs


@dataclass(frozen=True)
class Side:
    """One of the two."""

    name: str
    folders: Sequence[Path]
    runs: Sequence[EvaluatedRun]
    experiment: Experiment

    @property
    def average(self) -> float:
        """Average mAP in percent, mean over seeds."""
        scores = [run.metrics["percent"]["mAP/average"] for run in self.runs]
        return float(sum(scores) / len(scores))


def compare(first: Path, second: Path, *, out: Path) -> list[str]:
    """Write a page with the differences of two evaluated runs or rows; returns what to say.

    Args:
        first: the folder of a run (.../seed0), or of a row with all its seeds.

    Raises:
        InputError: a folder that is not evaluated, or two that were held against different ground
            truth or thresholds.
    """
    sides = [_side(folder) for folder in (first, second)]
    _refuse_unlike(*sides)
    named = {side.name: side.runs for side in sides}
    if len(named) < 2:
        raise InputError(f"{first} and {second}: two folders are needed, these are one")
    compared = bootstrapped(
        _matched(sides[0]), _matched(sides[1]), sides[0].experiment.evaluation.tiou
    )
    said = _said(sides, compared)
    facts = [(side.name, f"{side.average:.2f} average mAP, {_seeds(side)}") for side in sides]
    facts += [("difference", said[-1])]
    section = report.Section(
        "compare", " and ".join(named), facts, side_by_side.figures(named, compared)
    )
    text = report.page(
        "Two side by side",
        lead=f"{sides[1].name} less {sides[0].name}, on {sides[0].experiment.dataset.name}.",
        results=[],
        sections=[section],
        heading="Which of the two is better, and at what",
    )
    write_text(out, text)
    return [*said, f"written to {out}"]


def _side(folder: Path) -> Side:
    """What lies in a folder: a run, or a row's runs."""
    folders = [folder]
    if not (folder / "metrics.json").exists():
        # those that are evaluated; another seed may still be training
        found = [path.parent for path in folder.glob("seed*/metrics.json")]
        folders = sorted(found, key=lambda run: layout.seed_of(run) or 0)
    if not folders:
        wrong = "no run, and no row with runs that are evaluated"
        meant = layout.run("demo", folder.name, 0).parent
        hint = f", such as {meant}" if meant.exists() else ""
        raise InputError(f"{folder}: {wrong}; expected results/EDITION/ROW{hint}")
    runs = []
    for path in folders:
        for name in ("metrics.json", "diagnosis.json", "detections.json"):
            if not (path / name).exists():
                wanted = "compare takes runs that were trained and evaluated here"
                raise InputError(f"{path / name}: no such file; {wanted}")
        metrics = read_metrics(path / "metrics.json")
        diagnosis = read_object(path / "diagnosis.json")
        runs.append(EvaluatedRun(layout.seed_of(path) or 0, [], metrics, diagnosis))
    experiment = evaluated_experiment(runs[0].metrics, str(folders[0] / "metrics.json"))
    name = folder.as_posix().removeprefix("results/").rstrip("/")
    return Side(name, folders, runs, experiment)


def _refuse_unlike(first: Side, second: Side) -> None:
    one, other = first.experiment, second.experiment
    same = (
        one.dataset.name == other.dataset.name
        and one.dataset.eval_subset == other.dataset.eval_subset
        and one.data.label_field == other.data.label_field
        and one.evaluation == other.evaluation
    )
    if not same:
        raise InputError(
            f"{first.name} and {second.name}: evaluated on different data or at different "
            "thresholds; compare two of one data set"
        )


def _matched(side: Side) -> Matched:
    """The detections of the first seed and their ground truth, as arrays."""
    experiment = side.experiment
    database = inputs.database_of(experiment)
    blocked = database.blocked if experiment.evaluation.use_blocked_list else frozenset()
    return match(
        database,
        read_results(side.folders[0] / "detections.json"),
        subset=experiment.dataset.eval_subset,
        blocked=blocked,
    )


def _seeds(side: Side) -> str:
    numbers = ", ".join(str(run.seed) for run in side.runs)
    return f"seed{'s' if len(side.runs) > 1 else ''} {numbers}"


def _said(sides: Sequence[Side], compared: Comparison) -> list[str]:
    lines = [f"{side.name}: {side.average:.2f} average mAP ({_seeds(side)})" for side in sides]
    overall = compared.overall
    interval = f"95 % interval {100 * overall.low:+.2f} to {100 * overall.high:+.2f}"
    first = "; of the first seeds" if max(len(side.runs) for side in sides) > 1 else ""
    lines.append(
        f"{100 * overall.value:+.2f} points, {interval} (paired bootstrap over videos{first}); "
        f"higher in {100 * compared.higher:.0f} % of the draws"
    )
    return lines
