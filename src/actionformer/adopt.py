"""Results that are there and up to date, taken over by a version that plans in another way.

What makes a job run again is recorded twice: beside every product (`keys`), and by Snakemake in `.snakemake/metadata`.
Results of before there were records, and copies without that folder, lack one or both, and a call would make everything
anew. `adopt` compares what each run was made with, params and inputs, with what it would be made with today. Where
nothing differs, it writes the records and lets Snakemake know (`--touch`); everything else is left as it is.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actionformer import keys, layout, provenance, stages
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.errors import InputError
from actionformer.experiment import CHECKOUT, Experiment
from actionformer.files import digest, file_md5, read_json, write_json

FIRST = 1
"""the arithmetic of every stage before there were records"""


@dataclass
class Adopted:
    """What Snakemake is to be told of, and whether everything that is there could be taken over."""

    targets: list[Path] = field(default_factory=list)
    complete: bool = True


def adopt(rows: Sequence[Experiment], seeds: Sequence[int], config: Sequence[str], say: Callable[[str], None]) -> None:
    """Take over the results of these rows and seeds that are up to date; says of the others why they are not.

    `config`: what Snakemake is called with, key=value.
    """
    adopted = Adopted()
    for experiment in rows:
        why = _build(experiment)
        if why:
            adopted.complete = False
            say(f"{experiment.name}: {'; '.join(why)}")
            continue
        adopted.targets += [layout.database_of(experiment), layout.store_of(experiment)]
        if layout.audit(experiment).exists():
            adopted.targets.append(layout.audit(experiment))
        for seed in seeds:
            _tell(adopted, say, f"{experiment.name}, seed {seed}", *_run(experiment, seed))
        _tell(adopted, say, f"{experiment.name}, published checkpoint", *_released(experiment))
    for experiment in rows:  # after the rows that they are fused from
        for seed in seeds:
            _tell(adopted, say, f"{layout.actions(experiment)}, seed {seed}", *_actions(experiment, seed))
    pages = "; tables and figures are made anew" if adopted.complete else ""
    say(f"{len(adopted.targets)} products are up to date; Snakemake is told of them{pages}")
    if adopted.targets:
        _touch(adopted, config)


def _tell(adopted: Adopted, say: Callable[[str], None], what: str, made: Sequence[Path], why: Sequence[str]) -> None:
    adopted.targets += made
    if why:
        adopted.complete = False
        say(f"{what}: {'; '.join(why)}")


# ---------------------------------------------------------------------------------------------- one by one


def _build(experiment: Experiment) -> list[str]:
    """Database, store and audit of a row: writes their records, or says why they don't hold."""
    made: dict[str, tuple[Path, Callable[[Path], Path], keys.AnySubject]] = {
        "convert": (layout.database_of(experiment), databases.manifest_path, experiment.dataset),
        "pack": (layout.store_of(experiment), stores.manifest_path, experiment.features),
    }
    before = _experiment_of_a_run(experiment)
    then = {} if before is None else {"convert": before["dataset"], "pack": _features(before)}
    for stage, (product, manifest_path, subject) in made.items():
        manifest = manifest_path(product)
        if not (product.exists() and manifest.exists()):
            return [f"{product} is not there"]
        content = read_json(manifest)
        for path, md5 in content["sources"].items():
            if Path(path).exists() and provenance.source_md5(Path(path)) != md5:
                return [f"{path} has changed since {product} was made from it"]
        record = content.get("made_with") or _first(stage, then.get(stage), content["sources"])
        why = keys.changes(stage, subject, record)
        if why:
            return [f"{product}: {reason}" for reason in why]
        if "made_with" not in content:
            made_with = keys.record(stage, subject, content["sources"])
            write_json(manifest, content | {"made_with": made_with})
    audit = layout.audit(experiment)
    if audit.exists() and keys.stored(audit) is None:
        record = keys.record("audit", experiment, stages.inputs_md5s(experiment))
        write_json(audit, read_json(audit) | {"made_with": record})
    return []


def _run(experiment: Experiment, seed: int) -> tuple[list[Path], list[str]]:
    """(products that are up to date, why the next one is not) of a run."""
    run = layout.run(experiment.edition, experiment.name, seed)
    _checkpoint(experiment, seed, run)
    if not ((run / "model.pt").exists() and (run / "lineage.json").exists()):
        return [], []
    why = _model(experiment, seed, run)
    if why:
        return [], why
    made = [run / "model.pt"]
    if not (run / "detections.json").exists():
        return made, []
    why = _detections(experiment, seed, run)
    if why:
        return made, why
    made.append(run / "detections.json")
    if not (run / "metrics.json").exists():
        return made, []
    why = _metrics(experiment, run)
    return (made, why) if why else ([*made, run / "metrics.json"], [])


def _model(experiment: Experiment, seed: int, run: Path) -> list[str]:
    manifest = layout.manifest(run / "model.pt")
    inputs = {"seed": seed, **stages.inputs_md5s(experiment)}
    stored = keys.stored(manifest)
    if stored is not None:
        other = [] if stored["inputs"] == inputs else ["its data have changed since"]
        return keys.changes("train", experiment, stored) + other
    from actionformer.training import checkpoint

    before = checkpoint.load(run / "model.pt", tensors=False)["experiment"]
    lineage = read_json(run / "lineage.json")
    why = keys.changes("train", experiment, _first("train", before, inputs))
    if digest(_first_weights(before, "train", seed, inputs)) != lineage["weights"]:
        why.append("its data have changed since")
    if why:
        return why
    made = stages.training_record(experiment, seed)
    sessions = provenance.trained_by(lineage, experiment.training.epochs)
    dropped = ("git", "environment", "device")
    kept = {key: value for key, value in lineage.items() if key not in dropped}
    told = stages.training_lineage(experiment, seed, made)
    write_json(run / "lineage.json", kept | told | {"trained_by": sessions})
    stages.write_manifest(run / "model.pt", made)
    return []


def _detections(experiment: Experiment, seed: int, run: Path) -> list[str]:
    manifest = layout.manifest(run / "detections.json")
    stored = keys.stored(manifest)
    inputs = stages.detection_inputs(experiment, run)
    if stored is not None:
        other = [] if stored["inputs"] == inputs else ["what was detected from has changed since"]
        return keys.changes("detect", experiment, stored) + other
    if not (run / "metrics.json").exists():
        return [NO_RECORD]
    metrics = read_json(run / "metrics.json")
    before = metrics["experiment"]
    why = keys.changes("detect", experiment, _first("detect", before, inputs))
    weights = _first_weights(before, "train", seed, inputs)
    if _first_identity(before, weights, inputs.get("classifier")) != metrics["lineage"]["identity"]:
        why.append("what was detected from has changed since")
    if why:
        return why
    made = keys.record("detect", experiment, inputs)
    stages.write_detections_manifest(experiment, seed, made)
    return []


def _metrics(experiment: Experiment, run: Path) -> list[str]:
    metrics, told = read_json(run / "metrics.json"), read_json(layout.manifest(run / "detections.json"))
    inputs = stages.evaluation_inputs(experiment, told)
    stored = keys.stored(run / "metrics.json")
    if stored is not None:
        other = [] if stored["inputs"] == inputs else ["what was evaluated has changed since"]
        return keys.changes("evaluate", experiment, stored) + other
    why = keys.changes("evaluate", experiment, _first("evaluate", metrics["experiment"], inputs))
    if why:
        return why
    made = keys.record("evaluate", experiment, inputs)
    kept = {key: value for key, value in metrics.items() if key not in ("experiment", "lineage")}
    lineage = stages.evaluated_lineage(experiment, run, told, made)
    facts = {"lineage": lineage, "made_with": made, "diagnosis": file_md5(run / "diagnosis.json")}
    write_json(run / "metrics.json", kept | facts)
    trained = read_json(run / "lineage.json")
    _rename(experiment, run, trained | metrics["lineage"], trained | lineage)
    return []


def _released(experiment: Experiment) -> tuple[list[Path], list[str]]:
    path, run = layout.released_checkpoint_of(experiment), layout.released_run(experiment)
    if path is None or not (run / "metrics.json").exists():
        return [], []
    metrics = read_json(run / "metrics.json")
    inputs = stages.released_inputs(experiment, path)
    stored = metrics.get("made_with")
    if stored is None:
        before = metrics["experiment"]
        why = keys.changes("released", experiment, _first("released", before, inputs))
        weights = _first_weights(before, "released", inputs["checkpoint"], inputs)
        if _first_identity(before, weights, inputs.get("classifier")) != metrics["lineage"]["identity"]:
            why.append("what it was evaluated on has changed since")
        if why:
            return [], why
        made = keys.record("released", experiment, inputs)
        before_by = _evaluated_by(read_json(run / "lineage.json"))
        lineage = stages.released_lineage(experiment, path, made) | before_by
        kept = {key: value for key, value in metrics.items() if key not in ("experiment", "lineage")}
        write_json(run / "lineage.json", lineage)
        write_json(run / "metrics.json", kept | {"lineage": lineage, "made_with": made})
        _rename(experiment, run, {"seed": None} | metrics["lineage"], lineage)
        return [run / "metrics.json"], []
    other = [] if stored["inputs"] == inputs else ["what it was evaluated on has changed since"]
    why = keys.changes("released", experiment, stored) + other
    return ([], why) if why else ([run / "metrics.json"], [])


def _actions(experiment: Experiment, seed: int) -> tuple[list[Path], list[str]]:
    """Nouns and verbs fused: taken over with the two runs that they are fused from."""
    run = layout.run(experiment.edition, layout.actions(experiment), seed)
    if experiment.actions_with is None or not (run / "metrics.json").exists():
        return [], []
    metrics = read_json(run / "metrics.json")
    stored = metrics.get("made_with")
    folders = [layout.run(experiment.edition, name, seed) for name in (experiment.name, experiment.actions_with)]
    if not all(layout.manifest(folder / "model.pt").exists() for folder in folders):
        return [], [NO_RECORD]
    inputs = stages.actions_inputs(experiment, seed)
    if stored is None:
        why = keys.changes("actions", experiment, _first("actions", metrics["experiment"], inputs))
        if why:
            return [], why
        made = keys.record("actions", experiment, inputs)
        before_by = _evaluated_by(read_json(run / "lineage.json"))
        lineage = stages.actions_lineage(experiment, seed, made) | before_by
        kept = {key: value for key, value in metrics.items() if key not in ("experiment", "lineage")}
        write_json(run / "lineage.json", lineage)
        write_json(run / "metrics.json", kept | {"lineage": lineage, "made_with": made})
        _rename(experiment, run, {"seed": seed} | metrics["lineage"], lineage)
        return [run / "metrics.json"], []
    other = [] if stored["inputs"] == inputs else ["what was fused has changed since"]
    why = keys.changes("actions", experiment, stored) + other
    return ([], why) if why else ([run / "metrics.json"], [])


def _rename(experiment: Experiment, run: Path, before: Mapping[str, Any], lineage: Mapping[str, Any]) -> None:
    """The same run in MLflow goes by its new names."""
    from actionformer import tracking

    tracking.Careful(run)(tracking.rename, experiment, before, lineage)


def _checkpoint(experiment: Experiment, seed: int, run: Path) -> None:
    """A training that was interrupted before there were records: goes on, if it is the one of today."""
    from actionformer.training import checkpoint

    path = run / "checkpoint.pt"
    if not path.exists() or "made_with" in checkpoint.load(path, tensors=False):
        return
    inputs = {"seed": seed, **stages.inputs_md5s(experiment)}
    state = checkpoint.load(path)
    content = experiment.model_dump(mode="json")
    content["data"] = {("protocol" if key == "loading" else key): value for key, value in content["data"].items()}
    if state["identity"] != digest(_first_weights(content, "train", seed, inputs)):
        return
    made = stages.training_record(experiment, seed)
    lineage = read_json(run / "lineage.json") if (run / "lineage.json").exists() else UNKNOWN
    epochs = len(state["history"])
    told = {
        "run_id": state.pop("token"),
        "identity": keys.identity(made),
        "made_with": made,
        "trained_by": provenance.trained_by(lineage, epochs) if epochs else [],
    }
    checkpoint.save(path, state | told)


NO_RECORD = "it does not say what it was made with"
UNKNOWN: Mapping[str, Any] = {
    "git": {"commit": "unknown", "dirty": False},
    "environment": {"lock": "unknown", "processor": "unknown", "torch": "unknown"},
    "device": "unknown",
}
"""who trained the epochs of a checkpoint that does not say it"""


def _evaluated_by(lineage: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: lineage.get(key, UNKNOWN[key]) for key in ("git", "environment")}
    return {"evaluated_by": told | {"device": lineage.get("device", "unknown")}}


# ---------------------------------------------------------------------------------------------- the first form


def _first(stage: str, params: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record for what was made before there were records, from the params that were kept with it."""
    if params is None:
        return {}
    return {"stage": stage, "key": "", "arithmetic": FIRST, "inputs": inputs, "params": params}


def _first_key(before: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """The key of a stage as it was before there were records, from the params as they were written then."""
    key: dict[str, Any] = {part: before[part] for part in parts}
    key["features"] = {name: value for name, value in _features(before).items() if name != "file"}
    key["subsets"] = [before["dataset"]["train_subset"], before["dataset"]["eval_subset"]]
    classifier = before["dataset"]["classifier"]
    if "inference" in parts and before["inference"]["use_classifier"] and classifier is not None:
        key["classifier"] = classifier
    return key


def _first_weights(before: Mapping[str, Any], maker: str, of: int | str, inputs: Mapping[str, Any]) -> list[Any]:
    """What named the weights then; `of` is the seed, or the md5 of the published checkpoint."""
    parts = ("data", "model", "training") if maker == "train" else ("model", "released")
    return [_first_key(before, *parts), of, inputs["database"], inputs["store"]]


def _first_identity(before: Mapping[str, Any], weights: list[Any], scores: str | None) -> str:
    detect, evaluate = _first_key(before, "data", "inference"), _first_key(before, "evaluation")
    return digest([weights, detect, evaluate, scores])


def _features(before: Mapping[str, Any]) -> dict[str, Any]:
    features: dict[str, Any] = before["dataset"]["features"][before["data"]["features"]]
    return features


def _experiment_of_a_run(experiment: Experiment) -> Mapping[str, Any] | None:
    """The params that any run of a row kept, in the first form."""
    for path in sorted(layout.row(experiment).glob("seed*/metrics.json")):
        metrics = read_json(path)
        if "experiment" in metrics:
            found: Mapping[str, Any] = metrics["experiment"]
            return found
    return None


# ---------------------------------------------------------------------------------------------- Snakemake


def _touch(adopted: Adopted, config: Sequence[str]) -> None:
    """Let Snakemake record that these products are up to date; tables and pages, which are cheap, are made anew."""
    call = ["snakemake", "--snakefile", str(CHECKOUT / "Snakefile"), "--quiet", "all"]
    targets = list(dict.fromkeys(path.as_posix() for path in adopted.targets))
    _called([*call, "--cores", "1", "--touch", *targets, "--config", *config])
    if adopted.complete:
        pages = ["draw", "card", "tabulate", "page", "report_page", "track", "all"]
        _called([*call, "--cores", "all", "--allowed-rules", *pages, "--config", *config])


def _called(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-300:]
        raise InputError(f"{shlex.join(command)} failed: {reason}")
