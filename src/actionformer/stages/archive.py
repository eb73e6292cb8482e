"""An edition's results as one file that can be checked and built from: a zip that is an RO-Crate.

It holds tables, pages, metrics, detections, params and lineage, weights if wanted, and the ground
truth of data sets whose licence allows that. Unpacked it is a working folder, so that whatever
reads results reads those.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.files.archives import BROKEN_ZIP
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.files.writing import NO_ROOM, atomic_path, needs_room, not_written, write_text
from actionformer.metrics_file import whole_metrics
from actionformer.params.experiment import Experiment
from actionformer.params.files import CHECKOUT, load_dataset, load_edition
from actionformer.params.stored import evaluated_experiment
from actionformer.progress import progress
from actionformer.reporting.crate import METADATA, WORKFLOW, RunAction, Terms, metadata
from actionformer.reporting.table_forms import in_cell
from actionformer.stages.report import TRUTH, pages_of, report_record, report_text
from actionformer.stages.shown import read_shown
from actionformer.stages.verify import Findings, evaluated_runs, verify, verify_runs

Weights = Literal["all", "none"]
# of a folder of results: what tells of jobs, or serves a training that goes on
LEFT_OUT = ("attempts", "benchmarks", "logs", layout.EARLIER)
UNFINISHED = ("checkpoint.pt", layout.PROGRESS, layout.UNTRACKED)
# of the checkout: the workflow with its params, and how to cite and install it
OF_CHECKOUT = ("Snakefile", "CITATION.cff", "LICENSE", "requirements.lock", "environment.yml")
FOLDERS_OF_CHECKOUT = ("workflow", "params")
DATA_LICENCES = "LICENCES.md"
# what an archive's pages are made from, and where those pages go
BUILT_FROM = ("results", "build", "data.dvc", ".dvc")
# of every member: the same files make the same archive
STAMP = (1980, 1, 1, 0, 0, 0)
BLOCK = 1 << 20


def archive(edition: str, out: Path, weights: Weights, params: Path) -> str:
    """Write an archive of an edition's results; says what it holds.

    Raises:
        InputError: there are no results of this edition.
        NoRoom: the disk is full.
    """
    results = layout.results(edition)
    runs = evaluated_runs(results)
    if not runs:
        raise InputError(f"{results}: no results; `snakemake --cores all` makes them")
    experiments = [_experiment_of(run, params) for run in runs]
    shareable = load_edition(edition, params).shareable
    hidden = []
    for experiment in experiments:
        if not (shareable or experiment.dataset.shareable) and experiment.name not in hidden:
            hidden.append(experiment.name)
    members = _results(results, weights, hidden) | _ground_truth(experiments, hidden)
    members |= _of_checkout() | _data_version()
    texts = {DATA_LICENCES: _licences(experiments, shareable=shareable)}
    texts |= _report_without_truth(edition, hidden)
    members = {name: path for name, path in members.items() if name not in texts}
    files = {name: (file_md5(path), path.stat().st_size) for name, path in members.items()}
    for name, text in texts.items():
        content = text.encode()
        files[name] = (hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content))
    crate = metadata(
        files,
        [_action(run, members) for run in runs],
        {} if shareable else _terms(experiments),
        title=f"ActionFormer: results of the {edition} edition",
        text=_said(edition, experiments, weights, params),
    )
    texts[METADATA] = json.dumps(crate, indent=1, ensure_ascii=False) + "\n"
    size = sum(size for _, size in files.values())
    with atomic_path(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in sorted(texts.items()):
            packed.writestr(_member(name), text)
        for name, path in progress(sorted(members.items()), "archive", unit="file"):
            with path.open("rb") as source, packed.open(_member(name), "w", force_zip64=True) as to:
                shutil.copyfileobj(source, to, BLOCK)
    return f"{out}: {len(files) + 1} files, {size / 1e6:.1f} MB, {len(runs)} runs"


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, STAMP)
    info.external_attr = 0o644 << 16
    # weights don't become smaller
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".pt") else zipfile.ZIP_DEFLATED
    return info


def _experiment_of(run: Path, params: Path) -> Experiment:
    """A run's params as they were, but whose its data are, and who may have them, as of today."""
    path = run / "metrics.json"
    experiment = evaluated_experiment(whole_metrics(path), str(path))
    name = experiment.dataset_file or experiment.data.dataset
    file = Path(name) if experiment.dataset_file else params / "datasets" / f"{name}.yaml"
    if not file.exists():
        return experiment  # of a data set of one's own
    today = load_dataset(name, experiment.edition, params)
    facts = {key: getattr(today, key) for key in ("homepage", "licence", "citation", "shareable")}
    return experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update=facts)})


def _results(results: Path, weights: Weights, hidden: list[str]) -> dict[str, Path]:
    """Name -> file of everything that was computed and is finished.

    Args:
        hidden: rows whose ground truth may not be passed on: without their timelines.
    """
    found: dict[str, Path] = {}
    for path in sorted(results.rglob("*")):
        parts = path.relative_to(results).parts
        unfinished = path.name in UNFINISHED or path.name.startswith(".")
        if not path.is_file() or unfinished or set(parts) & set(LEFT_OUT):
            continue
        if parts[0] in hidden and path.stem == TRUTH:
            continue
        if path.suffix != ".pt" or weights == "all":
            found[path.as_posix()] = path
    return found


def _ground_truth(experiments: list[Experiment], hidden: list[str]) -> dict[str, Path]:
    """The databases that may be passed on; of the others the manifest, which has the md5s."""
    found: dict[str, Path] = {}
    for experiment in experiments:
        database = layout.database_of(experiment)
        wanted = [layout.manifest(database)]
        if experiment.name not in hidden:
            wanted.append(database)
        found |= {path.as_posix(): path for path in wanted if path.exists()}
    return found


def _terms(experiments: list[Experiment]) -> dict[str, Terms]:
    """Whose the databases are; of an edition that this project has drawn they are its own."""
    found = {}
    for experiment in experiments:
        data = experiment.dataset
        terms = Terms(data.name, data.licence, data.homepage, data.citation)
        found[layout.database_of(experiment).as_posix()] = terms
    return found


def _report_without_truth(edition: str, hidden: list[str]) -> dict[str, str]:
    """The report and its manifest without the timelines of some rows; nothing if all may show."""
    out = layout.report(edition)
    manifest = layout.manifest(out)
    if not hidden or not manifest.exists():
        return {}
    page = replace(read_shown(manifest), hidden=hidden)
    record = read_object(manifest) | report_record(page)
    return {
        out.as_posix(): report_text(page),
        manifest.as_posix(): json.dumps(record, indent=1, ensure_ascii=False) + "\n",
    }


def _of_checkout() -> dict[str, Path]:
    """The workflow and its params, as this program has them."""
    found = {name: CHECKOUT / name for name in OF_CHECKOUT if (CHECKOUT / name).exists()}
    for folder in FOLDERS_OF_CHECKOUT:
        for path in sorted((CHECKOUT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[path.relative_to(CHECKOUT).as_posix()] = path
    if WORKFLOW not in found:
        raise InputError(f"{CHECKOUT}: no checkout, whose workflow an archive holds")
    return found


def _data_version() -> dict[str, Path]:
    """data.dvc and DVC's lists of files, by which tables say whether files are pinned."""
    found = {}
    for path in [Path("data.dvc"), *provenance.lists_of_pinned()]:
        if path.exists():
            found[path.as_posix()] = path
    return found


def _action(run: Path, members: Mapping[str, Path]) -> RunAction:
    path = run / "metrics.json"
    metrics = whole_metrics(path)
    lineage = metrics["lineage"]
    history = provenance.history_text(lineage["trained_by"]) or "published weights"
    evaluated_by = provenance.commit_text(provenance.evaluated_by(lineage)["git"])
    ended = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).isoformat(timespec="seconds")
    return RunAction(
        name=f"{run.parent.name}-{run.name}-{lineage['identity'][:8]}",
        description=f"{history}; evaluated by {evaluated_by}",
        ended=ended,
        read=lineage["files"],
        made=[name for name in members if name.startswith(f"{run.as_posix()}/")],
    )


def _said(edition: str, experiments: list[Experiment], weights: Weights, params: Path) -> str:
    rows = len({experiment.name for experiment in experiments})
    remark = load_edition(edition, params).why_not_comparable
    told = f"Tables, metrics, detections, params and lineage of {rows} rows of ActionFormer"
    told += ", with weights" if weights == "all" else ", without weights"
    return f"{told}. {remark}".strip()


def _licences(experiments: list[Experiment], *, shareable: bool) -> str:
    """Whose data the results stand on, under which licence, and whether ground truth is inside."""
    lines = [
        "# Licences",
        "",
        "Code, params and results: Apache-2.0 (LICENSE). Data sets keep their own:",
        "",
        "| data set | publisher | licence | ground truth | to cite |",
        "|---|---|---|---|---|",
    ]
    datasets = {experiment.dataset.name: experiment.dataset for experiment in experiments}
    for dataset in datasets.values():
        truth = "md5 only"
        if shareable:
            truth = "inside: drawn by this project"
        elif dataset.shareable:
            truth = "inside"
        cells = [dataset.name, dataset.homepage or "", dataset.licence, truth]
        cells.append(dataset.citation or "")
        lines.append(f"| {' | '.join(in_cell(text) for text in cells)} |")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------ reading


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A folder with the content of an archive, each file of which is what the crate says.

    Raises:
        InputError: no archive of ours, or one of which a file is missing, changed or too many.
    """
    with tempfile.TemporaryDirectory(prefix="archive-") as name:
        folder = Path(name)
        _unpack(path, folder)
        _check(path, folder)
        yield folder


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as packed:
            for info in packed.infolist():
                target = Path(os.path.normpath(folder / info.filename))
                if not target.is_relative_to(folder) or info.is_dir():
                    raise InputError(f"{path}: a member called '{info.filename}', no file of ours")
            needs_room(folder, sum(info.file_size for info in packed.infolist()))
            packed.extractall(folder)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except BROKEN_ZIP as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise not_written(folder, error) from None
        raise InputError(f"{path}: corrupt or truncated archive ({error})") from None


def _check(path: Path, folder: Path) -> None:
    """Every file that the crate lists is there with its md5, and no other."""
    if not (folder / METADATA).exists():
        raise InputError(
            f"{path}: no {METADATA} in it; expected what `actionformer archive` writes"
        )
    listed = {}
    for entity in read_object(folder / METADATA, "@graph")["@graph"]:
        kinds = entity.get("@type", []) if isinstance(entity, dict) else []
        if "File" in (kinds if isinstance(kinds, list) else [kinds]):
            # an address, in which `=` and spaces are written otherwise
            listed[unquote(str(entity.get("@id")))] = entity.get("md5")
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    for name in sorted({*listed, *there} - {METADATA}):
        if name not in there:
            raise InputError(f"{path}: lacks {name}, which its crate lists")
        if name not in listed:
            raise InputError(f"{path}: holds {name}, which its crate does not list")
        if file_md5(folder / name) != listed[name]:
            raise InputError(f"{path}: {name} has another md5 than its crate says")


def verify_archive(path: Path) -> Findings:
    """`verify` of what an archive holds, from nothing but the archive.

    Raises:
        InputError: a broken archive, see `unpacked`.
    """
    with unpacked(path.absolute()) as folder, chdir(folder):
        return verify(_edition(path), with_mlflow=False)


def _edition(path: Path) -> str:
    """The edition whose results lie in the current folder, an unpacked archive."""
    editions = [folder.name for folder in Path().glob("results/*/") if evaluated_runs(folder)]
    if len(editions) != 1:
        raise InputError(
            f"{path}: results of {len(editions)} editions in it, expected those of one"
        )
    return editions[0]


def rebuild(path: Path) -> list[str]:
    """Unpack an archive into the current folder, and make its pages anew; returns what to say.

    The last mile, without features, weights or a GPU: metrics are computed again from detections
    where the annotations are there, tables, cards and the report from metrics. Nothing is brought
    before all of that is right.

    Raises:
        InputError: a broken archive; a file that lies here and is another; a number that is not
            what its inputs give.
    """
    with unpacked(path.absolute()) as folder:
        found = Findings()
        with chdir(folder):
            edition = _edition(path)
            verify_runs(evaluated_runs(layout.results(edition)), found)
            if found.mismatches:
                raise InputError("; ".join(found.mismatches))
            pages = pages_of(edition)
            for page, text in pages.items():
                write_text(page, text)
        brought = []
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            name = file.relative_to(folder)
            if name.parts[0] in BUILT_FROM:
                brought.append((file, name))
        _refuse_others(path, brought)
        for file, name in progress(brought, f"unpack {path}", unit="file"):
            with atomic_path(name, file.stat().st_size) as part:
                shutil.copyfile(file, part)
    count = f"{layout.results(edition)}: {len(pages)} pages made from {path}"
    return [*found.unchecked, count]


def _refuse_others(path: Path, brought: list[tuple[Path, Path]]) -> None:
    """Nothing that lies here is overwritten, unless it is the same."""
    for file, name in brought:
        if name.exists() and file_md5(name) != file_md5(file):
            raise InputError(
                f"{name}: lies here and is another than in {path}; unpack it in an empty folder"
            )
