"""Is every digit that lies here what its inputs give? Everything is computed again and compared.

From the detections and the annotations the metrics and the diagnosis, from those the tables, model
cards, figures and the report, as their manifests tell what they show; and MLflow's numbers against
those of the run folders. No features, no weights, no GPU.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from actionformer import layout
from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import read_results
from actionformer.errors import InputError
from actionformer.evaluation.summary import action_metrics_of
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.metrics_file import read_metrics, whole_metrics
from actionformer.params.experiment import Experiment
from actionformer.params.stored import evaluated_experiment
from actionformer.progress import progress
from actionformer.stages import inputs
from actionformer.stages.bootstrap import row_chance
from actionformer.stages.evaluate import row_diagnosis, row_metrics
from actionformer.stages.figures import figures_of
from actionformer.stages.report import INDEX, page_manifests, page_text, texts_of
from actionformer.stages.shown import Shown, read_shown
from actionformer.tracking.read import Summary, logged_metrics, logged_rows
from actionformer.tracking.rows import beside_means, means_of_row, verdicts_of_row

# percent that a sum may differ by where another processor adds in another order
ROUNDING = 1e-9
NUMBER = re.compile(r"\d+(?:\.\d+)?")
# of a text that is compared: a number, a word, or a sign
TOKEN = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\w+|\S")
# stands for a number that is not there, which is not null
ABSENT = "absent"
# of the parts of a metrics.json, those that are numbers
MEASURED = ("percent", "videos", "instances", "classes")


@dataclass
class Findings:
    """What a verification has compared, and what it has found."""

    files: int = 0
    numbers: int = 0
    # a line per number or file that is not what its inputs give
    mismatches: list[str] = field(default_factory=list)
    # what could not be compared, since annotations are not at hand
    unchecked: list[str] = field(default_factory=list)
    # what MLflow lacks
    remarks: list[str] = field(default_factory=list)

    @contextmanager
    def one_line(self) -> Iterator[None]:
        """What cannot be read is a mismatch, too, and the rest is compared all the same."""
        try:
            yield
        except InputError as error:
            self.mismatches.append(str(error))

    def compare_values(self, path: Path, stated: Any, expected: Any) -> None:
        """Two trees of numbers, of which the first stands in a file."""
        self.files += 1
        flat_stated, flat_expected = _flat(stated), _flat(expected)
        for key in sorted({*flat_stated, *flat_expected}):
            self.numbers += 1
            here, there = flat_stated.get(key, ABSENT), flat_expected.get(key, ABSENT)
            if not _same(here, there):
                self.mismatches.append(f"{path}: {key} is {here}, computed again {there}")

    def compare_text(self, path: Path, expected: str) -> None:
        """A text file, line by line."""
        self.files += 1
        stated = path.read_text(encoding="utf-8")
        self.numbers += len(NUMBER.findall(expected))
        if stated == expected:
            return
        lines = zip_longest(stated.splitlines(), expected.splitlines())
        for number, (here, there) in enumerate(lines, 1):
            if here != there:
                self.mismatches.append(f"{path}:{number}: {_difference(here, there)}")


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Path of a leaf, as in percent.mAP/0.5 -> leaf."""
    if isinstance(tree, Mapping):
        children = tree.items()
    elif isinstance(tree, list | tuple):
        children = dict(enumerate(tree)).items()
    else:
        return {name: tree}
    if not children:
        return {name: "nothing"}
    leaves: dict[str, Any] = {}
    for key, child in children:
        leaves |= _flat(child, f"{name}.{key}" if name else str(key))
    return leaves


def _same(here: Any, there: Any) -> bool:
    if isinstance(here, float) and isinstance(there, float):
        return math.isclose(here, there, rel_tol=ROUNDING, abs_tol=ROUNDING)
    return bool(here == there)


def _difference(here: str | None, there: str | None) -> str:
    """The first words or numbers of two lines that differ."""
    if here is None:
        return f"lacks a line: {there:.80}"
    if there is None:
        return f"a line too many: {here:.80}"
    for stated, expected in zip_longest(TOKEN.findall(here), TOKEN.findall(there)):
        if stated != expected:
            return f"{stated} stands there, made again it is {expected}"
    return "other spaces stand there"


def verify(edition: str, *, with_mlflow: bool = True) -> Findings:
    """Compute again whatever can be of an edition's results, and compare.

    Args:
        with_mlflow: compare MLflow's numbers, too.

    Raises:
        InputError: there are no results of this edition.
    """
    results = layout.results(edition)
    runs = evaluated_runs(results)
    if not runs:
        raise InputError(f"{results}: no results; `snakemake --cores all` makes them")
    findings = Findings()
    verify_runs(runs, findings)
    for path in sorted(results.glob("*/bootstrap.json")):
        with findings.one_line():
            _verify_bootstrap(path, findings)
    for manifest in progress(page_manifests(results), "make pages again", unit="page"):
        with findings.one_line():
            _verify_page(manifest, findings)
    with findings.one_line():
        _verify_index(edition, findings)
    pages = [*results.glob("tables/*.md"), *results.glob("*/README.md"), layout.report(edition)]
    for page in sorted(pages):
        if page.exists() and not layout.manifest(page).exists():
            findings.mismatches.append(f"{page}: no manifest says what it shows; make it again")
    if with_mlflow:
        with findings.one_line():
            _verify_mlflow(runs, findings)
    return findings


def verify_runs(runs: Sequence[Path], findings: Findings) -> None:
    """Compute the metrics of runs again from their detections, and compare."""
    for run in progress(runs, "compute metrics again", unit="run"):
        with findings.one_line():
            _verify_run(run, findings)


def evaluated_runs(results: Path) -> list[Path]:
    """The run folders of an edition that hold metrics, those of published checkpoints too."""
    found = [*results.glob("*/seed*/metrics.json"), *results.glob("*/released/metrics.json")]
    return sorted(path.parent for path in found)


# -------------------------------------------------------------------------------------------- runs


def _verify_run(run: Path, findings: Findings) -> None:
    """A run's metrics and diagnosis, from its detections and the annotations."""
    path = run / "metrics.json"
    metrics = whole_metrics(path)
    if "none" in metrics:
        return  # a published checkpoint of another row: there is nothing to compute
    experiment = evaluated_experiment(metrics, str(path))
    database_file = layout.database_of(experiment)
    if not database_file.exists():
        findings.unchecked.append(f"{path}: needs annotations ({database_file})")
        return
    recorded = metrics["made_with"]["inputs"]
    database_md5 = inputs.database_md5(experiment)
    if recorded.get("database") != database_md5:
        was = recorded.get("database")
        findings.mismatches.append(
            f"{path}: evaluated on annotations of md5 {was}, {database_file} has {database_md5}"
        )
    detections = read_results(run / "detections.json")
    if recorded.get("detections") not in (None, file_md5(run / "detections.json")):
        findings.mismatches.append(f"{run / 'detections.json'}: not the detections of its metrics")
    database = inputs.database_of(experiment)
    if metrics["lineage"].get("kind") == "actions":
        expected = _action_metrics(experiment, database, detections)
    else:
        expected = row_metrics(experiment, database, detections)
    findings.compare_values(path, _measured(metrics), _measured(expected))
    diagnosis_file = run / "diagnosis.json"
    if diagnosis_file.exists():
        diagnosis = row_diagnosis(experiment, database, detections)
        # as it is written, so that a tuple equals a list
        findings.compare_values(
            diagnosis_file, read_object(diagnosis_file), json.loads(json.dumps(diagnosis))
        )


def _verify_bootstrap(path: Path, findings: Findings) -> None:
    """The intervals of a row, drawn again from the same random numbers."""
    told = read_object(path, "seeds", "released", "mAP", "less_released_checkpoint")
    first = path.parent / f"seed{told['seeds'][0]}/metrics.json"
    experiment = evaluated_experiment(whole_metrics(first), str(first))
    database_file = layout.database_of(experiment)
    if not database_file.exists():
        findings.unchecked.append(f"{path}: needs annotations ({database_file})")
        return
    again = row_chance(experiment, told["seeds"], released=told["released"])
    for part in ("mAP", "less_released_checkpoint"):
        findings.compare_values(path, {part: told[part]}, {part: again[part]})


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in MEASURED if name in metrics}


def _action_metrics(experiment: Experiment, nouns: Database, detections: Any) -> Mapping[str, Any]:
    verbs = load_database(layout.database_of(experiment), "verb").first(experiment.data.videos)
    subset = experiment.dataset.eval_subset
    return action_metrics_of(nouns, verbs, detections, experiment.evaluation, subset)


# ------------------------------------------------------------------------------------------- pages


def _verify_page(manifest: Path, findings: Findings) -> None:
    """What a page says, from the files of its runs."""
    page = read_shown(manifest)
    _refuse_other_results(manifest)
    if manifest.name == "figures.manifest.json":
        _verify_figures(manifest.with_name("figures"), page, findings)
    for path, text in texts_of(manifest).items():
        if path.exists():
            findings.compare_text(path, text)
        else:
            findings.mismatches.append(f"{path}: no such file, though its manifest is there")


def _refuse_other_results(manifest: Path) -> None:
    """A page that was made of other files than lie here is outdated, whatever it says."""
    for name, md5 in read_object(manifest)["made_of"].items():
        if not Path(name).exists():
            raise InputError(f"{manifest}: made of {name}, which is gone")
        if file_md5(Path(name)) != md5:
            raise InputError(f"{manifest}: made of another {name}; make the page again")


def _verify_figures(folder: Path, page: Shown, findings: Findings) -> None:
    """The specifications of a row's figures, with their data."""
    database_file = layout.database_of(page.experiments[0])
    if not database_file.exists():
        findings.unchecked.append(f"{folder}: needs annotations ({database_file})")
        return
    for figure in figures_of(page):
        path = folder / f"{figure.name}.json"
        findings.compare_values(path, read_object(path), json.loads(json.dumps(asdict(figure))))


def _verify_index(edition: str, findings: Findings) -> None:
    """The page with all tables: it must be made of those that lie there."""
    index = layout.tables(edition) / INDEX
    if index.exists() and layout.manifest(index).exists():
        names = read_object(layout.manifest(index), "tables")["tables"]
        findings.compare_text(index, page_text(edition, names))


# ------------------------------------------------------------------------------------------ MLflow


def _verify_mlflow(runs: list[Path], findings: Findings) -> None:
    """The metrics of every run as MLflow has them: absent is a remark, different a mismatch."""
    logged = logged_metrics(runs)
    in_rows: dict[tuple[Path, str], list[Path]] = {}
    for run in logged:
        kind = run.name if layout.seed_of(run) is None else "seeds"
        in_rows.setdefault((run.parent, kind), []).append(run)
    firsts = [of_row[0] for of_row in in_rows.values()]
    rows = logged_rows(firsts) if firsts else {}
    for first, of_row in zip(firsts, in_rows.values(), strict=True):
        _verify_row_in_mlflow(of_row, rows[first], findings)
    for run in runs:
        percent = read_metrics(run / "metrics.json").get("percent", {})
        in_mlflow = logged.get(run)
        if in_mlflow is None:
            if percent:
                findings.remarks.append(f"{run}: not in MLflow; `actionformer track` brings it in")
            continue
        for key, value in percent.items():
            findings.numbers += 1
            if not _same(in_mlflow.get(key), value):
                findings.mismatches.append(
                    f"{run}: {key} is {in_mlflow.get(key)} in MLflow, {value} in metrics.json"
                )


def _verify_row_in_mlflow(runs: Sequence[Path], found: Summary, findings: Findings) -> None:
    """The means and verdicts of a row, or of its published checkpoint, as MLflow has them."""
    read = {run: read_object(run / "metrics.json") for run in runs}
    identities = sorted(metrics["lineage"]["identity"] for metrics in read.values())
    row = runs[0].parent
    if list(found.identities) != identities:
        those = f"{len(found.identities)} runs, not of these {len(runs)}"
        findings.remarks.append(f"{row}: MLflow's mean is of {those}")
        return
    percent = [metrics["percent"] for metrics in read.values()]
    stated: dict[str, Any] = dict(found.metrics)
    expected: dict[str, Any] = dict(means_of_row(found.kind, percent))
    if found.kind == "seed":
        path = runs[0] / "metrics.json"
        experiment = evaluated_experiment(read[runs[0]], str(path))
        verdicts = verdicts_of_row(experiment, percent)
        expected |= {f"verdict.{key}": judged for key, judged in verdicts.items()}
        stated |= found.tags
        # logged once the row's pages are drawn
        beside = beside_means(row)
        expected |= {key: value for key, value in beside.items() if key in stated}
    for key, value in expected.items():
        findings.numbers += 1
        if not _same(stated.get(key), value):
            findings.mismatches.append(
                f"{row}: {key} is {stated.get(key)} in MLflow, computed again {value}"
            )
