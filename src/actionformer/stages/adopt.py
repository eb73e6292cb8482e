"""Results that are there and up to date, taken over by a version that plans in another way.

What makes a job run again is recorded twice: beside every product (`params.keys`), and by Snakemake
in `.snakemake/metadata`. Results of before there were records, and copies without that folder, lack
one or both. `adopt` compares what each run was made with, params and inputs, with what it would be
made with today. Where nothing differs, it writes the records and lets Snakemake know (`--touch`);
everything else is left as it is.

"First" below is the form of before there were records: a run then kept its params in model.pt and
metrics.json, and in its lineage two digests, `weights` and `identity`, which bind it to params,
data and seed.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.data.detections import read_results
from actionformer.errors import InputError
from actionformer.evaluation.summary import metrics_of
from actionformer.files.md5 import digest, file_md5
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.params.files import CHECKOUT
from actionformer.params.stored import stored_experiment
from actionformer.stages import inputs
from actionformer.stages.actions import actions_inputs, actions_lineage
from actionformer.stages.detect import detection_inputs, write_detections_manifest
from actionformer.stages.evaluate import evaluated_lineage, evaluation_inputs
from actionformer.stages.released import released_inputs, released_lineage
from actionformer.stages.train import alone_in, training_lineage
from actionformer.tracking.careful import Careful
from actionformer.tracking.runs import rename
from actionformer.training import checkpoint

Say = Callable[[str], None]
# the arithmetic of every stage in the first form
FIRST = 1
NOT_KNOWN = "what it was made with is not known"
NOT_THERE = "not there"


class Outdated(Exception):
    """Why a product is not taken over."""


class _Adopted:
    """What has been taken over so far, and whether that is everything."""

    def __init__(self, say: Say) -> None:
        self.files: list[Path] = []
        self.complete = True
        self._say = say

    def take(self, what: str, take_over: Callable[..., list[Path]], *arguments: Any) -> bool:
        """Take over a product, or say why not; tells which of the two it was."""
        try:
            self.files += take_over(*arguments)
        except (Outdated, InputError) as reason:
            self.complete = False
            self._say(f"{what}: {reason}")
            return False
        return True


def adopt(
    rows: Sequence[Experiment],
    seeds: Sequence[int],
    config: Sequence[str],
    *,
    released: bool,
    say: Say,
) -> None:
    """Take over what is up to date of the results of these rows; says of the rest why it is not.

    Args:
        config: what Snakemake is called with, key=value.
        released: whether the evaluated checkpoints of the publishers belong to the results.
    """
    adopted = _Adopted(say)
    trained: set[tuple[str, int]] = set()
    first_identities: dict[tuple[str, int], str] = {}
    for experiment in rows:
        if not adopted.take(experiment.name, _build, experiment):
            continue
        for seed in seeds:
            first_identities[experiment.name, seed] = _first_identity_of_run(experiment, seed)
            if _take_run(adopted, experiment, seed):
                trained.add((experiment.name, seed))
        if released and experiment.released is not None:
            adopted.take(f"{experiment.name}, published checkpoint", _released, experiment)
    for experiment in rows:  # after the rows that they are fused from
        for seed in seeds:
            pair = [(experiment.name, seed), (str(experiment.actions_with), seed)]
            if trained.issuperset(pair):
                identities = [first_identities[run] for run in pair]
                what = f"{layout.actions(experiment)}, seed {seed}"
                adopted.take(what, _actions, experiment, seed, identities)

    pages = "; tables and figures are made anew" if adopted.complete else ""
    say(f"{len(adopted.files)} products are up to date{pages}")
    if adopted.files:
        _tell_snakemake(adopted.files, config, pages=adopted.complete)


def _take_run(adopted: _Adopted, experiment: Experiment, seed: int) -> bool:
    """Take over a run as far as it goes; tells whether its weights were taken over."""
    what = f"{experiment.name}, seed {seed}"
    trained = adopted.take(what, _model, experiment, seed)
    if trained and adopted.take(what, _detections, experiment, seed):
        adopted.take(what, _metrics, experiment, seed)
    return trained


def _first_identity_of_run(experiment: Experiment, seed: int) -> str:
    """What a run's metrics say of its identity, before they are rewritten."""
    path = layout.run(experiment.edition, experiment.name, seed) / "metrics.json"
    if not path.exists():
        return ""
    return str(read_object(path).get("lineage", {}).get("identity"))


# ------------------------------------------------------------------------------ product by product


def _build(experiment: Experiment) -> list[Path]:
    """Database, store and audit of a row."""
    database, store = layout.database_of(experiment), layout.store_of(experiment)
    manifests = {
        database: databases.manifest_path(database),
        store: stores.manifest_path(store),
    }
    for product, manifest in manifests.items():
        if not (product.exists() and manifest.exists()):
            raise Outdated(f"{product} is {NOT_THERE}")
        for path, md5 in read_object(manifest, "sources")["sources"].items():
            if Path(path).exists() and provenance.source_md5(Path(path)) != md5:
                raise Outdated(f"{path} has changed since {product} was made from it")
    _require_content(database, manifests[database])
    voucher = _params_of_a_run(experiment)
    then = None if voucher is None else voucher.dataset
    _take_build("convert", experiment.dataset, then, database, manifests[database])
    then_features = None if voucher is None else voucher.features
    _take_build("pack", experiment.features, then_features, store, manifests[store])
    return [database, manifests[database], store, manifests[store], *_audit(experiment, voucher)]


def _take_build(
    stage: str, now: keys.AnySubject, then: keys.AnySubject | None, product: Path, manifest: Path
) -> None:
    """Take over a database or store; `then` are the params that a run on it vouches for."""
    content = read_object(manifest)
    record = content.get("made_with")
    if not keys.is_record(record, stage):
        record = None if then is None else _first(stage, then, content["sources"])
    _require(keys.changes(stage, now, record or {}), str(product))
    if content.get("made_with") != record:
        made = keys.record(stage, now, content["sources"])
        write_json(manifest, content | {"made_with": made})


def _audit(experiment: Experiment, voucher: Experiment | None) -> list[Path]:
    path = layout.audit(experiment)
    if not path.exists():
        raise Outdated(f"{path} is {NOT_THERE}")
    content, made_from = read_object(path), inputs.md5s(experiment)
    record = content.get("made_with")
    if record is None and voucher is not None:
        record = _first("audit", voucher, made_from)
    _require(_compared("audit", experiment, record, made_from), str(path))
    if "made_with" not in content:
        made = keys.record("audit", experiment, made_from)
        write_json(path, content | {"made_with": made})
    return [path]


def _model(experiment: Experiment, seed: int) -> list[Path]:
    """The weights of a run, and a training that was interrupted."""
    run = layout.run(experiment.edition, experiment.name, seed)
    _checkpoint(experiment, seed, run)
    model, manifest = run / "model.pt", layout.manifest(run / "model.pt")
    files = [run / name for name in layout.TRAINED]
    if not all(file.exists() for file in files):
        raise Outdated(NOT_THERE)
    made_from = {"seed": seed, **inputs.md5s(experiment)}
    stored = keys.stored(manifest)
    if stored is not None:
        _require(_compared("train", experiment, stored, made_from))
        _require_content(model, manifest)
        return [*files, manifest]
    before = checkpoint.load(model, tensors=False)["experiment"]
    lineage = read_object(run / "lineage.json")
    if digest(_first_weights(before, "train", seed, made_from)) != lineage.get("weights"):
        raise Outdated("its data have changed since, or its lineage is that of another model")
    then = stored_experiment(before, str(model))
    _require(keys.changes("train", experiment, _first("train", then, made_from)))
    made = inputs.training_record(experiment, seed)
    told = training_lineage(experiment, seed, made)
    told["trained_by"] = provenance.trained_by(lineage, experiment.training.epochs)
    kept = {key: value for key, value in lineage.items() if key not in provenance.UNKNOWN}
    write_json(run / "lineage.json", kept | told)
    inputs.write_manifest(model, made)
    return [*files, manifest]


def _detections(experiment: Experiment, seed: int) -> list[Path]:
    run = layout.run(experiment.edition, experiment.name, seed)
    path, manifest = run / "detections.json", layout.manifest(run / "detections.json")
    if not path.exists():
        raise Outdated(f"{path} is {NOT_THERE}")
    made_from, stored = detection_inputs(experiment, run), keys.stored(manifest)
    if stored is not None:
        _require(_compared("detect", experiment, stored, made_from))
        _require_content(path, manifest)
        return [path, manifest]
    # in the first form the metrics alone say what the detections were made with
    metrics = read_object(run / "metrics.json") if (run / "metrics.json").exists() else {}
    before = metrics.get("experiment")
    if before is None:
        raise Outdated(NOT_KNOWN)
    then = stored_experiment(before, str(run / "metrics.json"))
    weights = _first_weights(before, "train", seed, made_from)
    identity = _first_identity(before, weights, made_from.get("classifier"))
    if identity != metrics["lineage"]["identity"]:
        raise Outdated("what it was detected from has changed since")
    _require(keys.changes("detect", experiment, _first("detect", then, made_from)))
    found = metrics_of(
        inputs.database_of(experiment),
        read_results(path),
        then.evaluation,
        then.dataset.eval_subset,
    )
    if found["percent"] != metrics["percent"]:
        raise Outdated("its detections are not those that its metrics were made from")
    made = keys.record("detect", experiment, made_from)
    write_detections_manifest(experiment, seed, made)
    return [path, manifest]


def _metrics(experiment: Experiment, seed: int) -> list[Path]:
    run = layout.run(experiment.edition, experiment.name, seed)
    path, diagnosis = run / "metrics.json", run / "diagnosis.json"
    if not (path.exists() and diagnosis.exists()):
        raise Outdated(f"{path} or {diagnosis} is {NOT_THERE}")
    metrics, told = read_object(path), read_object(layout.manifest(run / "detections.json"))
    made_from = evaluation_inputs(experiment, told)
    if "made_with" in metrics:
        _require(_compared("evaluate", experiment, metrics["made_with"], made_from))
        return [path, diagnosis]
    # in the first form they belong to these detections if their digest is that of the manifest
    before = metrics["experiment"]
    scores = told["made_with"]["inputs"].get("classifier")
    weights = _first_weights(before, "train", seed, detection_inputs(experiment, run))
    if _first_identity(before, weights, scores) != metrics["lineage"]["identity"]:
        raise Outdated("what was evaluated has changed since")
    then = stored_experiment(before, str(path))
    _require(keys.changes("detect", experiment, _first("detect", then, made_from)))
    _require(keys.changes("evaluate", experiment, _first("evaluate", then, made_from)))
    made = keys.record("evaluate", experiment, made_from)
    lineage = evaluated_lineage(experiment, run, told, made)
    trained = read_object(run / "lineage.json")
    facts = {"diagnosis": file_md5(diagnosis)}
    _rewrite(experiment, run, metrics, made, trained | lineage, lineage, **facts)
    return [path, diagnosis]


def _released(experiment: Experiment) -> list[Path]:
    path, run = layout.released_checkpoint_of(experiment), layout.released_run(experiment)
    if path is None or not (run / "metrics.json").exists():
        raise Outdated(NOT_THERE)
    metrics, made_from = read_object(run / "metrics.json"), released_inputs(experiment, path)
    if "made_with" in metrics:
        _require(_compared("released", experiment, metrics["made_with"], made_from))
        return [run / "metrics.json"]
    before = metrics["experiment"]
    weights = _first_weights(before, "released", made_from["checkpoint"], made_from)
    identity = _first_identity(before, weights, made_from.get("classifier"))
    if identity != metrics["lineage"]["identity"]:
        raise Outdated("what it was evaluated on has changed since")
    made = _record_of_first(experiment, run, metrics, "released", made_from)
    _rewrite_alone(experiment, run, metrics, made, released_lineage(experiment, path, made))
    return [run / "metrics.json"]


def _actions(experiment: Experiment, seed: int, first_identities: Sequence[str]) -> list[Path]:
    """Nouns and verbs fused; the two runs that they are fused from are taken over already."""
    run = layout.run(experiment.edition, layout.actions(experiment), seed)
    files = [run / "metrics.json", run / "detections.json"]
    if not all(file.exists() for file in files):
        raise Outdated(NOT_THERE)
    metrics, made_from = read_object(run / "metrics.json"), actions_inputs(experiment, seed)
    if "made_with" in metrics:
        _require(_compared("actions", experiment, metrics["made_with"], made_from))
        return files
    if digest(first_identities) != metrics["lineage"]["identity"]:
        raise Outdated("what was fused has changed since")
    made = _record_of_first(experiment, run, metrics, "actions", made_from)
    _rewrite_alone(experiment, run, metrics, made, actions_lineage(experiment, seed, made))
    return files


def _checkpoint(experiment: Experiment, seed: int, run: Path) -> None:
    """A training in the first form that was interrupted goes on, if it is the one of today."""
    path = run / "checkpoint.pt"
    if not path.exists() or "made_with" in checkpoint.load(path, tensors=False):
        return
    with alone_in(run):
        state = checkpoint.load(path)
        made_from = {"seed": seed, **inputs.md5s(experiment)}
        content = experiment.model_dump(mode="json")
        content["data"]["protocol"] = content["data"].pop("loading")
        if state["identity"] != digest(_first_weights(content, "train", seed, made_from)):
            return
        made = inputs.training_record(experiment, seed)
        lineage = read_object(run / "lineage.json") if (run / "lineage.json").exists() else {}
        if lineage.get("weights") != state["identity"]:
            lineage = {}  # of another training
        epochs = len(state["history"])
        told = {
            "run_id": state.pop("token"),
            "identity": keys.short_name(made),
            "made_with": made,
            "trained_by": provenance.trained_by(lineage, epochs) if epochs else [],
        }
        checkpoint.save_state(path, state | told)


# ------------------------------------------------------------------------------------ shared steps


def _require(why: Sequence[str], what: str = "") -> None:
    """Nothing differs, or the product is outdated."""
    if why:
        raise Outdated(f"{what}{': ' if what else ''}{'; '.join(why)}")


def _require_content(product: Path, manifest: Path) -> None:
    if file_md5(product) != read_object(manifest, "md5")["md5"]:
        raise Outdated(f"{product} is not what its manifest says")


def _compared(
    stage: str,
    experiment: Experiment,
    record: Mapping[str, Any] | None,
    made_from: Mapping[str, Any],
) -> list[str]:
    """Why a record is not what the stage would be made with today."""
    if record is None:
        return [NOT_KNOWN]
    why = keys.changes(stage, experiment, record)
    if record.get("inputs") != made_from:
        why.append("what it was made from has changed since")
    return why


def _record_of_first(
    experiment: Experiment,
    run: Path,
    metrics: Mapping[str, Any],
    stage: str,
    made_from: Mapping[str, Any],
) -> keys.Record:
    """The record of metrics in the first form, if their params are still these."""
    then = stored_experiment(metrics["experiment"], str(run / "metrics.json"))
    _require(keys.changes(stage, experiment, _first(stage, then, made_from)))
    return keys.record(stage, experiment, made_from)


def _rewrite_alone(
    experiment: Experiment,
    run: Path,
    metrics: Mapping[str, Any],
    made: Mapping[str, Any],
    lineage: dict[str, Any],
) -> None:
    """`_rewrite` where nothing was trained in the folder: its lineage is that of the metrics."""
    lineage["evaluated_by"] = provenance.evaluated_by(read_object(run / "lineage.json"))
    write_json(run / "lineage.json", lineage)
    _rewrite(experiment, run, metrics, made, lineage, lineage)


def _rewrite(
    experiment: Experiment,
    run: Path,
    metrics: Mapping[str, Any],
    made: Mapping[str, Any],
    whole: Mapping[str, Any],
    lineage: Mapping[str, Any],
    **facts: Any,
) -> None:
    """metrics.json with its record in the place of its first form; MLflow's run gets its new names.

    Args:
        whole: the lineage with all that lineage.json says beside it.
    """
    kept = {key: value for key, value in metrics.items() if key not in ("experiment", "lineage")}
    write_json(run / "metrics.json", kept | {"lineage": lineage, "made_with": made, **facts})
    before = {"seed": whole["seed"], "mlflow_run": whole.get("mlflow_run")} | metrics["lineage"]
    Careful(run)(rename, experiment, before, whole)


# ---------------------------------------------------------------------------------- the first form


def _first(stage: str, params: keys.AnySubject, made_from: Mapping[str, Any]) -> keys.Record:
    """A record for what was made in the first form with these params."""
    return {
        "stage": stage,
        "key": "",
        "arithmetic": FIRST,
        "inputs": dict(made_from),
        "values": keys.values(stage, params),
    }


def _first_key(before: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """The key of a stage in the first form, from the params as they were written then."""
    key: dict[str, Any] = {part: before[part] for part in parts}
    dataset = before["dataset"]
    features = dataset["features"][before["data"]["features"]]
    key["features"] = {name: value for name, value in features.items() if name != "file"}
    key["subsets"] = [dataset["train_subset"], dataset["eval_subset"]]
    reads_scores = "inference" in parts and before["inference"]["use_classifier"]
    if reads_scores and dataset["classifier"] is not None:
        key["classifier"] = dataset["classifier"]
    return key


def _first_weights(
    before: Mapping[str, Any], maker: str, of: int | str, made_from: Mapping[str, Any]
) -> list[Any]:
    """What named the weights then; `of` is the seed, or the md5 of the published checkpoint."""
    parts = ("data", "model", "training") if maker == "train" else ("model", "released")
    return [_first_key(before, *parts), of, made_from["database"], made_from["store"]]


def _first_identity(before: Mapping[str, Any], weights: list[Any], scores: str | None) -> str:
    detect = _first_key(before, "data", "inference")
    evaluate = _first_key(before, "evaluation")
    return digest([weights, detect, evaluate, scores])


def _params_of_a_run(experiment: Experiment) -> Experiment | None:
    """The params of a run on this very database and store: they vouch for how both were made."""
    made_from = inputs.md5s(experiment)
    for path in sorted(layout.row(experiment).glob("seed*/model.pt")):
        if not (path.parent / "lineage.json").exists():
            continue
        content = checkpoint.load(path, tensors=False)
        before, lineage = content.get("experiment"), read_object(path.parent / "lineage.json")
        if before is None or "loading" in before["data"]:
            continue
        weights = _first_weights(before, "train", content["seed"], made_from)
        if digest(weights) == lineage.get("weights"):
            return stored_experiment(before, str(path))
    return None


# --------------------------------------------------------------------------------------- Snakemake


def _tell_snakemake(adopted: Sequence[Path], config: Sequence[str], *, pages: bool) -> None:
    """Let Snakemake record that these products are up to date; pages, being cheap, are made anew.

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
