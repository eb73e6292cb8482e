"""Results that are there and up to date, taken over by a version that plans in another way.

What makes a job run again is recorded twice: beside every product (`keys`), and by Snakemake in `.snakemake/metadata`.
Results of before there were records, and copies without that folder, lack one or both. `adopt` compares what each run
was made with, params and inputs, with what it would be made with today. Where nothing differs, it writes the records
and lets Snakemake know (`--touch`); everything else is left as it is.

"First" below is the form of before there were records: a run then kept its params in model.pt and metrics.json, and in
its lineage two digests, `weights` and `identity`, which bind it to params, data and seed.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actionformer import keys, layout, provenance, stages
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.errors import InputError
from actionformer.experiment import CHECKOUT, Experiment, stored_experiment
from actionformer.files import digest, file_md5, read_json, write_json

Say = Callable[[str], None]
FIRST = 1
"""the arithmetic of every stage in the first form"""
NOT_KNOWN = "what it was made with is not known"
NOT_THERE = "not there"


class Outdated(Exception):
    """Why a product is not taken over."""


def adopt(rows: Sequence[Experiment], seeds: Sequence[int], config: Sequence[str], *, released: bool, say: Say) -> None:
    """Take over the results of these rows and seeds that are up to date; says of the others why they are not.

    Args:
        config: what Snakemake is called with, key=value.
        released: whether the evaluated checkpoints of the publishers belong to the results.
    """
    adopted: list[Path] = []
    complete = True
    trained: set[tuple[str, int]] = set()
    first_identities: dict[tuple[str, int], str] = {}

    def attempt(what: str, take_over: Callable[[], list[Path]]) -> bool:
        nonlocal complete
        try:
            adopted.extend(take_over())
        except (Outdated, InputError) as reason:
            complete = False
            say(f"{what}: {reason}")
            return False
        return True

    for experiment in rows:
        if not attempt(experiment.name, lambda row=experiment: _build(row)):  # type: ignore[misc]
            continue
        for seed in seeds:
            run = layout.run(experiment.edition, experiment.name, seed)
            if (run / "metrics.json").exists():
                lineage = read_json(run / "metrics.json").get("lineage", {})
                first_identities[experiment.name, seed] = str(lineage.get("identity"))
            for part in (_model, _detections, _metrics):
                name = f"{experiment.name}, seed {seed}"
                if not attempt(name, lambda part=part, row=experiment, seed=seed: part(row, seed)):  # type: ignore[misc]
                    break
                if part is _model:
                    trained.add((experiment.name, seed))
        if released and experiment.released is not None:
            attempt(f"{experiment.name}, published checkpoint", lambda row=experiment: _released(row))  # type: ignore[misc]
    for experiment in rows:  # after the rows that they are fused from
        for seed in seeds:
            pair = [(experiment.name, seed), (str(experiment.actions_with), seed)]
            if trained.issuperset(pair):
                identities = [first_identities.get(run, "") for run in pair]
                name = f"{layout.actions(experiment)}, seed {seed}"
                attempt(name, lambda row=experiment, seed=seed, ids=identities: _actions(row, seed, ids))  # type: ignore[misc]

    pages = "; tables and figures are made anew" if complete else ""
    say(f"{len(adopted)} products are up to date{pages}")
    if adopted:
        _tell_snakemake(adopted, config, pages=complete)


# ---------------------------------------------------------------------------------------------- product by product


def _build(experiment: Experiment) -> list[Path]:
    """Database, store and audit of a row."""
    database, store = layout.database_of(experiment), layout.store_of(experiment)
    manifests = {database: databases.manifest_path(database), store: stores.manifest_path(store)}
    for product, manifest in manifests.items():
        if not (product.exists() and manifest.exists()):
            raise Outdated(f"{product} is {NOT_THERE}")
        for path, md5 in read_json(manifest)["sources"].items():
            if Path(path).exists() and provenance.source_md5(Path(path)) != md5:
                raise Outdated(f"{path} has changed since {product} was made from it")
    if file_md5(database) != read_json(manifests[database])["md5"]:
        raise Outdated(f"{database} is not what its manifest says")
    voucher = _params_of_a_run(experiment)
    for stage, product, subject in (
        ("convert", database, experiment.dataset),
        ("pack", store, experiment.features),
    ):
        content = read_json(manifests[product])
        record = content.get("made_with")
        if not keys.is_record(record, stage):
            then = None if voucher is None else (voucher.dataset if stage == "convert" else voucher.features)
            record = None if then is None else _first(stage, then, content["sources"])
        _require(keys.changes(stage, subject, record or {}), str(product))
        if content.get("made_with") != record:
            write_json(manifests[product], content | {"made_with": keys.record(stage, subject, content["sources"])})
    return [database, manifests[database], store, manifests[store], *_audit(experiment, voucher)]


def _audit(experiment: Experiment, voucher: Experiment | None) -> list[Path]:
    path = layout.audit(experiment)
    if not path.exists():
        raise Outdated(f"{path} is {NOT_THERE}")
    content, inputs = read_json(path), stages.inputs_md5s(experiment)
    record = content.get("made_with") or (None if voucher is None else _first("audit", voucher, inputs))
    _require(_compared("audit", experiment, record, inputs), str(path))
    if "made_with" not in content:
        write_json(path, content | {"made_with": keys.record("audit", experiment, inputs)})
    return [path]


def _model(experiment: Experiment, seed: int) -> list[Path]:
    """The weights of a run, and a training that was interrupted."""
    run = layout.run(experiment.edition, experiment.name, seed)
    _checkpoint(experiment, seed, run)
    model, manifest = run / "model.pt", layout.manifest(run / "model.pt")
    files = [run / name for name in ("model.pt", "history.csv", "params.yaml", "lineage.json")]
    if not all(file.exists() for file in files):
        raise Outdated(NOT_THERE)
    inputs = {"seed": seed, **stages.inputs_md5s(experiment)}
    stored = keys.stored(manifest)
    if stored is not None:
        _require(_compared("train", experiment, stored, inputs))
        _require_content(model, manifest)
        return [*files, manifest]
    from actionformer.training import checkpoint

    before = checkpoint.load(model, tensors=False)["experiment"]
    lineage = read_json(run / "lineage.json")
    if digest(_first_weights(before, "train", seed, inputs)) != lineage.get("weights"):
        raise Outdated("its data have changed since, or its lineage is that of another model")
    _require(keys.changes("train", experiment, _first("train", stored_experiment(before, str(model)), inputs)))
    made = stages.training_record(experiment, seed)
    told = stages.training_lineage(experiment, seed, made)
    told["trained_by"] = provenance.trained_by(lineage, experiment.training.epochs)
    kept = {key: value for key, value in lineage.items() if key not in provenance.UNKNOWN}
    write_json(run / "lineage.json", kept | told)
    stages.write_manifest(model, made)
    return [*files, manifest]


def _detections(experiment: Experiment, seed: int) -> list[Path]:
    run = layout.run(experiment.edition, experiment.name, seed)
    path, manifest = run / "detections.json", layout.manifest(run / "detections.json")
    if not path.exists():
        raise Outdated(f"{path} is {NOT_THERE}")
    inputs, stored = stages.detection_inputs(experiment, run), keys.stored(manifest)
    if stored is not None:
        _require(_compared("detect", experiment, stored, inputs))
        _require_content(path, manifest)
        return [path, manifest]
    # in the first form the metrics alone say what the detections were made with
    metrics = read_json(run / "metrics.json") if (run / "metrics.json").exists() else {}
    before = metrics.get("experiment")
    if before is None:
        raise Outdated(NOT_KNOWN)
    then = stored_experiment(before, str(run / "metrics.json"))
    weights = _first_weights(before, "train", seed, inputs)
    if _first_identity(before, weights, inputs.get("classifier")) != metrics["lineage"]["identity"]:
        raise Outdated("what it was detected from has changed since")
    _require(keys.changes("detect", experiment, _first("detect", then, inputs)))
    found = stages.scored(stages.database_of(experiment), read_json(path), then.evaluation, then.dataset.eval_subset)
    if found["percent"] != metrics["percent"]:
        raise Outdated("its detections are not those that its metrics were made from")
    stages.write_detections_manifest(experiment, seed, keys.record("detect", experiment, inputs))
    return [path, manifest]


def _metrics(experiment: Experiment, seed: int) -> list[Path]:
    run = layout.run(experiment.edition, experiment.name, seed)
    path, diagnosis = run / "metrics.json", run / "diagnosis.json"
    if not (path.exists() and diagnosis.exists()):
        raise Outdated(f"{path} or {diagnosis} is {NOT_THERE}")
    metrics, told = read_json(path), read_json(layout.manifest(run / "detections.json"))
    inputs = stages.evaluation_inputs(experiment, told)
    if "made_with" in metrics:
        _require(_compared("evaluate", experiment, metrics["made_with"], inputs))
        return [path, diagnosis]
    # in the first form they belong to these detections if their digest is that of the detections' manifest
    before = metrics["experiment"]
    scores = told["made_with"]["inputs"].get("classifier")
    weights = _first_weights(before, "train", seed, stages.detection_inputs(experiment, run))
    if _first_identity(before, weights, scores) != metrics["lineage"]["identity"]:
        raise Outdated("what was evaluated has changed since")
    then = stored_experiment(before, str(path))
    _require(keys.changes("detect", experiment, _first("detect", then, inputs)))
    _require(keys.changes("evaluate", experiment, _first("evaluate", then, inputs)))
    made = keys.record("evaluate", experiment, inputs)
    lineage = stages.evaluated_lineage(experiment, run, told, made)
    facts = {"diagnosis": file_md5(diagnosis)}
    trained = read_json(run / "lineage.json")
    _rewrite(experiment, run, metrics, made, trained | lineage, lineage, **facts)
    return [path, diagnosis]


def _released(experiment: Experiment) -> list[Path]:
    path, run = layout.released_checkpoint_of(experiment), layout.released_run(experiment)
    if path is None or not (run / "metrics.json").exists():
        raise Outdated(NOT_THERE)
    metrics, inputs = read_json(run / "metrics.json"), stages.released_inputs(experiment, path)
    if "made_with" in metrics:
        _require(_compared("released", experiment, metrics["made_with"], inputs))
        return [run / "metrics.json"]
    before = metrics["experiment"]
    weights = _first_weights(before, "released", inputs["checkpoint"], inputs)
    if _first_identity(before, weights, inputs.get("classifier")) != metrics["lineage"]["identity"]:
        raise Outdated("what it was evaluated on has changed since")
    then = stored_experiment(before, str(run / "metrics.json"))
    _require(keys.changes("released", experiment, _first("released", then, inputs)))
    made = keys.record("released", experiment, inputs)
    lineage = stages.released_lineage(experiment, path, made)
    lineage["evaluated_by"] = provenance.evaluated_by(read_json(run / "lineage.json"))
    write_json(run / "lineage.json", lineage)
    _rewrite(experiment, run, metrics, made, lineage, lineage)
    return [run / "metrics.json"]


def _actions(experiment: Experiment, seed: int, first_identities: Sequence[str]) -> list[Path]:
    """Nouns and verbs fused; the two runs that they are fused from are taken over already."""
    run = layout.run(experiment.edition, layout.actions(experiment), seed)
    files = [run / "metrics.json", run / "detections.json"]
    if not all(file.exists() for file in files):
        raise Outdated(NOT_THERE)
    metrics, inputs = read_json(run / "metrics.json"), stages.actions_inputs(experiment, seed)
    if "made_with" in metrics:
        _require(_compared("actions", experiment, metrics["made_with"], inputs))
        return files
    if digest(first_identities) != metrics["lineage"]["identity"]:
        raise Outdated("what was fused has changed since")
    then = stored_experiment(metrics["experiment"], str(run / "metrics.json"))
    _require(keys.changes("actions", experiment, _first("actions", then, inputs)))
    made = keys.record("actions", experiment, inputs)
    lineage = stages.actions_lineage(experiment, seed, made)
    lineage["evaluated_by"] = provenance.evaluated_by(read_json(run / "lineage.json"))
    write_json(run / "lineage.json", lineage)
    _rewrite(experiment, run, metrics, made, lineage, lineage)
    return files


def _checkpoint(experiment: Experiment, seed: int, run: Path) -> None:
    """A training in the first form that was interrupted goes on, if it is the one of today."""
    from actionformer.training import checkpoint

    path = run / "checkpoint.pt"
    if not path.exists() or "made_with" in checkpoint.load(path, tensors=False):
        return
    with stages.alone_in(run):
        state = checkpoint.load(path)
        inputs = {"seed": seed, **stages.inputs_md5s(experiment)}
        content = experiment.model_dump(mode="json")
        content["data"]["protocol"] = content["data"].pop("loading")
        if state["identity"] != digest(_first_weights(content, "train", seed, inputs)):
            return
        made = stages.training_record(experiment, seed)
        lineage = read_json(run / "lineage.json") if (run / "lineage.json").exists() else {}
        if lineage.get("weights") != state["identity"]:
            lineage = {}  # of another training
        epochs = len(state["history"])
        told = {
            "run_id": state.pop("token"),
            "identity": keys.identity(made),
            "made_with": made,
            "trained_by": provenance.trained_by(lineage, epochs) if epochs else [],
        }
        checkpoint.save(path, state | told)


# ---------------------------------------------------------------------------------------------- shared steps


def _require(why: Sequence[str], what: str = "") -> None:
    if why:
        raise Outdated(f"{what}{': ' if what else ''}{'; '.join(why)}")


def _require_content(product: Path, manifest: Path) -> None:
    if file_md5(product) != read_json(manifest)["md5"]:
        raise Outdated(f"{product} is not what its manifest says")


def _compared(
    stage: str, experiment: Experiment, record: Mapping[str, Any] | None, inputs: Mapping[str, Any]
) -> list[str]:
    """Why a record is not what the stage would be made with today."""
    if record is None:
        return [NOT_KNOWN]
    other = [] if record.get("inputs") == inputs else ["what it was made from has changed since"]
    return keys.changes(stage, experiment, record) + other


def _rewrite(
    experiment: Experiment,
    run: Path,
    metrics: Mapping[str, Any],
    made: Mapping[str, Any],
    whole: Mapping[str, Any],
    lineage: Mapping[str, Any],
    **facts: Any,
) -> None:
    """metrics.json with its record in the place of its first form; in MLflow the same run goes by its new names.

    `whole` is the lineage with all that lineage.json says beside it.
    """
    from actionformer import tracking

    kept = {key: value for key, value in metrics.items() if key not in ("experiment", "lineage")}
    write_json(run / "metrics.json", kept | {"lineage": lineage, "made_with": made, **facts})
    before = {"seed": whole["seed"], "mlflow_run": whole.get("mlflow_run")} | metrics["lineage"]
    tracking.Careful(run)(tracking.rename, experiment, before, whole)


# ---------------------------------------------------------------------------------------------- the first form


def _first(stage: str, params: keys.AnySubject, inputs: Mapping[str, Any]) -> keys.Record:
    """A record for what was made in the first form with these params."""
    record = {"stage": stage, "key": "", "arithmetic": FIRST, "inputs": dict(inputs)}
    return record | {"values": keys.values(stage, params)}


def _first_key(before: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """The key of a stage in the first form, from the params as they were written then."""
    key: dict[str, Any] = {part: before[part] for part in parts}
    features = before["dataset"]["features"][before["data"]["features"]]
    key["features"] = {name: value for name, value in features.items() if name != "file"}
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


def _params_of_a_run(experiment: Experiment) -> Experiment | None:
    """The params of a run that was trained on this very database and store: they vouch for how both were made."""
    from actionformer.training import checkpoint

    inputs = stages.inputs_md5s(experiment)
    for path in sorted(layout.row(experiment).glob("seed*/model.pt")):
        if not (path.parent / "lineage.json").exists():
            continue
        content = checkpoint.load(path, tensors=False)
        before, lineage = content.get("experiment"), read_json(path.parent / "lineage.json")
        if before is None or "loading" in before["data"]:
            continue
        if digest(_first_weights(before, "train", content["seed"], inputs)) == lineage.get("weights"):
            return stored_experiment(before, str(path))
    return None


# ---------------------------------------------------------------------------------------------- Snakemake


def _tell_snakemake(adopted: Sequence[Path], config: Sequence[str], *, pages: bool) -> None:
    """Let Snakemake record that these products are up to date; tables and pages, which are cheap, are made anew.

    Forced, since where the times of the files are in order Snakemake would see nothing to record.
    """
    call = ["snakemake", "--snakefile", str(CHECKOUT / "Snakefile"), "--quiet", "all"]
    targets = list(dict.fromkeys(path.as_posix() for path in adopted))
    _called([*call, "--cores", "1", "--touch", "--force", *targets, "--config", *config])
    if pages:
        rules = ["draw", "card", "tabulate", "page", "report_page", "track", "all"]
        _called([*call, "--cores", "all", "--allowed-rules", *rules, "--config", *config])


def _called(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-300:]
        raise InputError(f"{shlex.join(command[:8])} ... failed: {reason}")
