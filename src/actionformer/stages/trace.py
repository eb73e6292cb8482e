"""From a number back to everything that made it, and from a file forward to what stands on it.

Reads what the stages have recorded: manifests, metrics.json, lineage.json. Of each file it says
whether it is still here, and the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionformer import layout, provenance
from actionformer.data import checksums
from actionformer.data.annotations import manifest_path
from actionformer.data.features import read_manifest
from actionformer.errors import InputError
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.metrics_file import whole_metrics
from actionformer.params import keys
from actionformer.params.dataset import Params
from actionformer.params.experiment import (
    EvaluationParams,
    Experiment,
    InferenceParams,
    TrainingParams,
)
from actionformer.params.files import differences, load_experiment
from actionformer.params.stored import evaluated_experiment
from actionformer.progress import progress
from actionformer.reporting import tables
from actionformer.reporting.lineage_tree import CHANGED, GONE, HERE, SAME, Node
from actionformer.stages import status
from actionformer.stages.report import INDEX, page_manifests
from actionformer.stages.shown import read_shown
from actionformer.stages.verify import evaluated_runs
from actionformer.tracking.read import folder_of

# of a run in MLflow
RUN_ID = re.compile(r"[0-9a-f]{32}")
# files of a run's folder, which its metrics lead to
OF_RUN = ("metrics.json", "detections.json", "diagnosis.json", "history.csv", "model.pt")


def trace(subject: str) -> Node:
    """What made a number.

    Args:
        subject: a table in any form, a figure, a model card, a report, a row's or run's folder, a
            file of a run, or the id of a run in MLflow.

    Raises:
        InputError: something else, or a file that says nothing of where it comes from.
    """
    if RUN_ID.fullmatch(subject):
        return _of_metrics(folder_of(subject) / "metrics.json", None)
    path = Path(subject)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, and no id of a run in MLflow")
    if path.name == "model.pt":
        metrics = whole_metrics(path.with_name("metrics.json"))
        return _of_weights(path, None, evaluated_experiment(metrics, str(path)), metrics)
    if path.name in OF_RUN:
        path = path.parent
    if (path / "metrics.json").exists():
        return _of_metrics(path / "metrics.json", None)
    if path.is_dir() and list(path.glob("seed*/metrics.json")):
        runs = sorted(path.glob("seed*/metrics.json"))
        return Node("row", str(path), HERE, {}, [_of_metrics(run, None) for run in runs])
    return _of_page(path)


# ------------------------------------------------------------------------------------------- pages


def _of_page(path: Path) -> Node:
    manifest = layout.manifest(path.parent if path.parent.name == "figures" else path)
    if not manifest.exists():
        raise InputError(f"{path}: nothing beside it says what it was made of")
    if path.name == INDEX:
        tables_of = read_object(manifest, "tables")["tables"]
        shown = [_of_page(path.with_name(f"{name}.md")) for name in tables_of]
        return Node("page of all tables", str(path), HERE, {}, shown)
    page = read_shown(manifest)
    parts = []
    for name, md5 in read_object(manifest)["made_of"].items():
        if name.endswith("metrics.json"):
            parts.append(_of_metrics(Path(name), md5))
    facts = {
        "shows": ", ".join(experiment.name for experiment in page.experiments),
        "seeds": ", ".join(map(str, page.seeds)),
        "edition": page.edition,
    }
    return Node(_kind(path), str(path), HERE, facts, parts)


def _kind(path: Path) -> str:
    if path.parent.name == "tables":
        return "table"
    if path.parent.name == "figures":
        return "figure"
    return "model card" if path.name == "README.md" else "report"


# -------------------------------------------------------------------------------------------- runs


def _of_metrics(path: Path, recorded: str | None) -> Node:
    """A run's numbers.

    Args:
        recorded: their md5 when something was made of them.
    """
    state = _state(path, recorded)
    if not path.exists():
        return Node("metrics", str(path), state)
    metrics = whole_metrics(path)
    experiment = evaluated_experiment(metrics, str(path))
    lineage = metrics["lineage"]
    seed = layout.seed_of(path.parent)
    facts = {"row": experiment.name}
    facts["average mAP"] = _average(metrics)
    facts |= _params(experiment, trained=seed is not None)
    evaluated = provenance.evaluated_by(lineage)
    facts["evaluated by"] = provenance.commit_text(evaluated["git"])
    facts["environment"] = _lock(provenance.locks(lineage | {"trained_by": []})[0])
    kind = lineage.get("kind", "")
    facts["MLflow run"] = layout.run_name(experiment.name, seed, lineage["identity"], kind)
    return Node("metrics", str(path), state, facts, _parts(path.parent, experiment, metrics))


def _average(metrics: Mapping[str, Any]) -> str:
    """As tables write it: of fused nouns and verbs that of the actions."""
    percent = metrics.get("percent", {})
    return tables.cell(percent.get("mAP/average", percent.get("action/mAP/average")))


def _parts(run: Path, experiment: Experiment, metrics: Mapping[str, Any]) -> list[Node]:
    """What a run's metrics are made of: detections, and the annotations."""
    recorded = metrics["made_with"]["inputs"]
    annotations = _of_annotations(experiment, recorded.get("database"), metrics["lineage"])
    path = run / "detections.json"
    manifest = layout.manifest(path)
    files = metrics["lineage"]["files"]
    made_of = []
    if manifest.exists():
        inputs = read_object(manifest, "made_with")["made_with"]["inputs"]
        made_of = [
            _of_weights(run / "model.pt", inputs.get("model"), experiment, metrics),
            _of_features(experiment, inputs.get("store"), metrics["lineage"]),
        ]
    elif metrics["lineage"].get("kind") == "actions":
        for row in (experiment.name, str(experiment.actions_with)):
            weights = layout.results(experiment.edition) / row / run.name / "model.pt"
            made_of.append(_of_weights(weights, recorded.get(row), experiment, metrics))
        made_of.append(_of_features(experiment, recorded.get("store"), metrics["lineage"]))
    else:  # of a published checkpoint: the record of its metrics has it all
        checkpoint = layout.released_checkpoint_of(experiment)
        if checkpoint is not None and str(checkpoint) in files:
            made_of.append(_of_file(checkpoint, files[str(checkpoint)], experiment))
        made_of.append(_of_features(experiment, recorded.get("store"), metrics["lineage"]))
    classifier = layout.classifier_of(experiment)
    if classifier is not None and str(classifier) in files:
        made_of.append(_of_file(classifier, files[str(classifier)], experiment))
    if "none" in metrics:  # the checkpoint is another row's: nothing was detected
        return made_of
    detections = Node(
        "detections", str(path), _state(path, recorded.get("detections")), {}, made_of
    )
    return [detections, annotations]


def _of_weights(
    path: Path, recorded: str | None, experiment: Experiment, metrics: Mapping[str, Any]
) -> Node:
    """Trained weights: who trained them on what, and with which seed."""
    lineage_file = path.with_name("lineage.json")
    facts = {}
    if lineage_file.exists():
        lineage = read_object(lineage_file)
        sessions = provenance.trained_by(lineage, experiment.training.epochs)
        facts["seed"] = str(lineage.get("seed"))
        facts["trained"] = provenance.history_text(sessions)
        machines = [
            f"{session['environment']['processor']}, torch {session['environment']['torch']}"
            for session in sessions
        ]
        facts["on"] = "; ".join(dict.fromkeys(machines))
        locks = [_lock(session["environment"]["lock"]) for session in sessions]
        facts["environment"] = "; ".join(dict.fromkeys(locks))
        if "fetched_from" in lineage:
            facts["fetched from"] = lineage["fetched_from"]
    inputs: Mapping[str, Any] = {}
    if layout.manifest(path).exists():
        inputs = read_object(layout.manifest(path), "made_with")["made_with"]["inputs"]
    parts = [
        _of_annotations(experiment, inputs.get("database"), metrics["lineage"]),
        _of_features(experiment, inputs.get("store"), metrics["lineage"]),
    ]
    return Node("weights", str(path), _state(path, recorded), facts, parts)


def _params(experiment: Experiment, *, trained: bool) -> dict[str, str]:
    """What a run's params say beside the defaults, and beside the row's own.

    Args:
        trained: False for a published checkpoint, of whose training these params say nothing.
    """
    kinds: dict[str, Params] = {"inference": InferenceParams(), "evaluation": EvaluationParams()}
    if trained:
        kinds = {"training": TrainingParams(), **kinds}
    found = []
    for name, usual in kinds.items():
        mine = getattr(experiment, name).model_dump(mode="json")
        found += differences(usual.model_dump(mode="json"), mine, name)
    told = {"beside the defaults": "; ".join(found)} if found else {}
    if experiment.departs:
        told["departs from the row's params"] = "; ".join(experiment.departs)
    return told


def _lock(md5: str) -> str:
    """The lock file of an environment, and whether it is today's."""
    return f"lock {md5[:12]}{', as here' if md5 == provenance.lock_md5() else ', another here'}"


# -------------------------------------------------------------------------------------------- data


def _of_annotations(
    experiment: Experiment, recorded: str | None, lineage: Mapping[str, Any]
) -> Node:
    path = layout.database_of(experiment)
    now = None
    if path.exists():
        now = str(read_object(manifest_path(path), "md5")["md5"])
    raw = _raw(layout.annotation_files_of(experiment), lineage, experiment)
    return Node("annotations", str(path), _compared(path, recorded, now), {}, raw)


def _of_features(experiment: Experiment, recorded: str | None, lineage: Mapping[str, Any]) -> Node:
    path = layout.store_of(experiment)
    now = str(read_manifest(path)["md5"]) if path.exists() else None
    raw = _raw([layout.raw_features_of(experiment)], lineage, experiment)
    return Node("features", str(path), _compared(path, recorded, now), {}, raw)


def _raw(paths: Sequence[Path], lineage: Mapping[str, Any], experiment: Experiment) -> list[Node]:
    files = lineage["files"]
    return [_of_file(path, files[str(path)], experiment) for path in paths if str(path) in files]


def _of_file(path: Path, recorded: str, experiment: Experiment) -> Node:
    """A publisher's file: its md5, where it came from, and whether it is the pinned one."""
    now = provenance.source_md5(path) if path.exists() else None
    facts = {"md5": recorded}
    pinned = provenance.pinned_md5s().get(path.as_posix())
    if pinned is not None:
        facts["pinned"] = "yes" if pinned == recorded else f"no, data.dvc has {pinned}"
    facts["source"] = _source(path, experiment, is_pinned=pinned == recorded)
    return Node("publisher's file", str(path), _compared(path, recorded, now), facts)


def _source(path: Path, experiment: Experiment, *, is_pinned: bool) -> str:
    """Where a file was brought from, and where it could be."""
    for name, file in experiment.dataset.files.items():
        if path.as_posix().endswith(f"/{name}"):
            root = Path(path.as_posix().removesuffix(f"/{name}"))
            known = checksums.recorded(root).get(name, {}).get("source")
            if known:
                return str(known)
            if is_pinned:
                return "dvc pull"
            published = [f"{source.kind} {source.address}" for source in file.sources]
            return f"not recorded; published at {', '.join(published) or 'no address'}"
    return "dvc pull" if is_pinned else "not recorded"


def _state(path: Path, recorded: str | None) -> str:
    """What became of a file since its md5 was recorded."""
    return _compared(path, recorded, file_md5(path) if path.exists() and recorded else None)


def _compared(path: Path, recorded: str | None, now: str | None) -> str:
    if not path.exists():
        return GONE
    if recorded is None:
        return HERE
    return SAME if recorded == now else CHANGED


# ----------------------------------------------------------------------------------------- forward


@dataclass(frozen=True)
class Standing:
    """Numbers that stand on a file."""

    path: Path
    # average mAP of a run, as tables write it; empty for a page
    average: str
    # why they would be others today; empty where they would not
    outdated: str


def standing_on(file: Path, params: Path) -> list[Standing]:
    """Every run and page whose numbers stand on a file, and whether they are outdated now.

    Args:
        file: a publisher's file, something made of it, or a file of params.

    Raises:
        InputError: nothing stands on it.
    """
    editions = sorted(path for path in Path("results").glob("*/") if evaluated_runs(path))
    runs = [run for edition in editions for run in evaluated_runs(edition)]
    found = []
    for run in progress(runs, "trace runs", unit="run"):
        standing = _standing(run / "metrics.json", file, params)
        if standing is not None:
            found.append(standing)
    if not found:
        raise InputError(f"{file}: no number in results/ stands on it")
    manifests = [manifest for edition in editions for manifest in page_manifests(edition)]
    return found + _pages_of(found, manifests)


def _standing(path: Path, file: Path, params: Path) -> Standing | None:
    """What a run has to do with a file; None for nothing."""
    metrics = whole_metrics(path)
    experiment = evaluated_experiment(metrics, str(path))
    average = _average(metrics)
    if file.resolve() in _params_files(experiment, params):
        return Standing(path, average, _why_outdated(path, experiment, metrics, params))
    wanted = Path(os.path.relpath(file)).as_posix()
    nodes = [node for node in _of_metrics(path, None).all() if node.name == wanted]
    if not nodes:
        return None
    states = sorted({node.state for node in nodes} & {CHANGED, GONE})
    return Standing(path, average, f"{wanted} is {' and '.join(states)}" if states else "")


def _params_files(experiment: Experiment, params: Path) -> set[Path]:
    """The files that a row's params come from."""
    called = Path(experiment.called or experiment.name)
    row = called if called.suffix else params / f"experiments/{called}.yaml"
    dataset = experiment.dataset_file or params / f"datasets/{experiment.data.dataset}.yaml"
    edition = params / f"editions/{experiment.edition}.yaml"
    return {Path(path).resolve() for path in (row, dataset, edition)}


def _why_outdated(
    path: Path, experiment: Experiment, metrics: Mapping[str, Any], params: Path
) -> str:
    """What differs between the params of a run and those of its row today."""
    today = load_experiment(
        experiment.called or experiment.name,
        experiment.edition,
        params=params,
        dataset=experiment.dataset_file,
        overrides=experiment.overrides,
    )
    made, seed = metrics["made_with"], layout.seed_of(path.parent)
    if made["stage"] != "evaluate" or seed is None:  # a published checkpoint, or fused actions
        return "; ".join(keys.changes(made["stage"], today, made))
    stage, why = status.outdated(today, seed)
    return f"{stage}: {'; '.join(why)}" if stage else ""


def _page_of(manifest: Path) -> Path:
    """The page that a manifest lies beside."""
    name = manifest.name.removesuffix(".manifest.json")
    endings = {"figures": "", "report": ".html"}
    return manifest.with_name(name + endings.get(name, ".md"))


def _pages_of(runs: Sequence[Standing], manifests: Sequence[Path]) -> list[Standing]:
    """The pages that show some of these runs."""
    outdated = {str(run.path): run.outdated for run in runs}
    pages = []
    for manifest in manifests:
        shown = [name for name in read_object(manifest).get("made_of", {}) if name in outdated]
        if shown:
            whys = [outdated[name] for name in shown if outdated[name]]
            pages.append(Standing(_page_of(manifest), "", whys[0] if whys else ""))
    return pages
