"""The stages, from raw file to table: each reads its files, calls the code that knows how, and writes its files.

`layout` says where everything lies. Knows no command line; rules and `cli` call these one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from actionformer import keys, layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.data.annotations import Database, load_database
from actionformer.data.features import FeatureStore, read_manifest
from actionformer.errors import InputError
from actionformer.experiment import (
    Dataset,
    EvaluationParams,
    Experiment,
    FeatureSet,
    as_yaml,
    load_experiment,
)
from actionformer.files import digest, file_md5, read_json, write_json, write_text

if TYPE_CHECKING:  # numba takes a while, and most stages do without
    from actionformer.evaluation import AveragePrecision

LOCK = ".lock"
NO_RECORD: Mapping[str, Any] = {"stage": "unknown", "key": "unknown", "inputs": {}}
"""stands for what a product was made with, where that is not known"""
PAIR = "\x1f"
"""between verb and noun in the label of an action: in no class's name"""
Detector = Callable[[Any, Sequence[str], str], dict[str, Any]]


# ---------------------------------------------------------------------------------------------- data


def fetch(
    dataset: Dataset,
    name: str,
    edition: str,
    files: Sequence[str],
    *,
    mirror: str | None,
    accepted: bool,
    say: Callable[[str], None],
) -> None:
    """Bring files of a data set from their publishers, and remember what came."""
    from actionformer.data import fetch as fetching

    root = layout.raw_root(dataset, name, edition)
    for file in files:
        if file not in dataset.files:
            raise InputError(f"data set {name} has no file '{file}'; it has {', '.join(dataset.files)}")
        target = root / file
        lock = layout.lock(target)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            fetched = fetching.fetch(
                target,
                dataset.files[file],
                known=_known_md5s(root, file),
                mirror=mirror,
                name=f"{name}/{file}",
                accepted=accepted,
                again=f"actionformer fetch {name} --edition {edition} --files {file}",
            )
        _record(root, file, fetched)
        say(f"{target}: md5 {fetched.md5}, {fetched.source}")
    for key, features in dataset.features.items():
        if features.dataset is not None:
            say(f"features '{key}' are those of {features.dataset}: actionformer fetch {features.dataset}")
    say(f"to make these files part of the version: dvc add {root}")


def _known_md5s(root: Path, file: str) -> dict[str, str]:
    """Which md5 a raw file must have, beside the published one: where that is said -> md5."""
    from actionformer.data.fetch import RECORD, recorded

    known, pinned = {}, provenance.pinned_md5s().get((root / file).as_posix())
    if pinned is not None:
        known["pinned in data.dvc"] = pinned
    entry = recorded(root).get(file)
    if entry is not None:
        known[f"recorded in {root / RECORD} at its first use"] = entry["md5"]
    return known


def _record(root: Path, file: str, fetched: Any) -> None:
    from actionformer.data.fetch import record

    lock = layout.lock(root)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        record(root, file, fetched)


@contextmanager
def _raw_files(dataset: Dataset, paths: Sequence[Path]) -> Iterator[None]:
    """Use publishers' files: they must be what is published, or what they were at their first use, which is recorded.

    Files of the pinned version are DVC's: another content there is a change of the data, and tables say so.
    """
    from actionformer.data.fetch import Fetched

    used = []
    pinned = provenance.pinned_md5s()
    for path in paths:
        file = next((name for name in dataset.files if path.as_posix().endswith(f"/{name}")), None)
        if file is None or path.as_posix() in pinned or not path.exists():
            continue
        root = Path(path.as_posix().removesuffix(f"/{file}"))
        used.append((root, file, path))
        for where, expected in {"published": dataset.files[file].md5, **_known_md5s(root, file)}.items():
            if expected != "unknown" and expected != provenance.source_md5(path):
                raise InputError(
                    f"{path}: md5 is {provenance.source_md5(path)}, {where} is {expected}; fetch it again, or, if the "
                    "change is meant, delete what says otherwise"
                )
    yield
    for root, file, path in used:
        _record(root, file, Fetched(provenance.source_md5(path), "put there by hand"))


def convert(dataset: Dataset, name: str, edition: str) -> str:
    """Publisher's annotations -> the database; says what it wrote."""
    from actionformer.data.publishers import convert as converted

    root = layout.raw_root(dataset, name, edition)
    out = layout.database(edition, name)
    read = layout.annotation_files(dataset, name, edition)
    with _raw_files(dataset, read):
        before = keys.stored(databases.manifest_path(out))
        content = converted(dataset, root)
        databases.save_database(
            out,
            content,
            label_fields=_fields(content),
            sources=lambda: provenance.sources(read),
            made_with=lambda sources: keys.record("convert", dataset, sources, before),
        )
    return f"{out}: {len(content['database'])} videos"


def convert_folder(dataset: Dataset, folder: Path, video_info: Path | None, out: Path) -> str:
    """Annotations of any form in any folder -> a database file; says what it wrote."""
    from actionformer.data.publishers import convert_folder as converted

    content = converted(dataset, folder, video_info)
    databases.save_database(out, content, label_fields=_fields(content), sources=dict)
    instances = sum(len(entry["annotations"]) for entry in content["database"].values())
    used = dataset if "blocked" in content else dataset.model_copy(update={"blocked": None})
    remark = "" if used is dataset or dataset.blocked is None else "; no blocked.json there, so nothing is blocked"
    return f"{out}: {len(content['database'])} videos, {instances} instances; {used.protocol}{remark}"


def pack(dataset: Dataset, name: str, edition: str, features: str) -> str:
    """Publisher's features -> one store; says what it wrote."""
    from actionformer.data.features import pack as packed

    if features not in dataset.features:
        raise InputError(f"data set {name} has no features '{features}'; it has {', '.join(dataset.features)}")
    chosen = dataset.features[features]
    source = layout.raw_root(dataset, name, edition) / chosen.file
    store = layout.feature_store(edition, name, features)
    before = keys.stored(stores.manifest_path(store))
    with _raw_files(dataset, [source]):
        manifest = packed(
            source,
            store,
            dim=chosen.dim,
            prefix=chosen.prefix,
            sources=lambda: provenance.sources([source]),
            made_with=lambda sources: keys.record("pack", chosen, sources, before),
        )
    return f"{store}: {manifest['videos']} videos, md5 {manifest['md5']}"


def audit(experiment: Experiment, say: Callable[[str], None]) -> None:
    """Check a row's database and features: says what it finds, and fails on what makes its numbers wrong."""
    database, features = _inputs(experiment)
    report = _audited(
        experiment.dataset,
        experiment.data.label_field,
        database,
        features=experiment.features,
        lengths=features.lengths,
        listed_missing=read_manifest(layout.store_of(experiment))["missing"],
        comparable=experiment.comparable,
    )
    say(report.text())
    report.raise_errors(str(layout.database_of(experiment)))
    out = layout.audit(experiment)
    made = keys.record("audit", experiment, inputs_md5s(experiment), keys.stored(out))
    write_json(out, report.as_json() | {"made_with": made})


def audit_files(
    dataset: Dataset,
    annotations: Path | None,
    *,
    folder: Path | None,
    video_info: Path | None,
    store: tuple[str, Path] | None,
    classes: Path | None,
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Check a database file, or a folder of annotations, against what the params say of a data set.

    Args:
        folder: converted first, with `video_info`; instead of `annotations`.
        store: name of a feature set and its packed store.
        classes: a published class list to compare the order with.
        out: gets the report as JSON.
    """
    from actionformer.data.publishers import class_list
    from actionformer.data.publishers import convert_folder as converted

    where = annotations or folder
    assert where is not None
    content = read_json(where) if folder is None else converted(dataset, folder, video_info)
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise InputError(f"{where}: expected a JSON object with the key 'database'")
    fields = _fields(content)
    if store is not None and store[0] not in dataset.features:
        raise InputError(f"no feature set '{store[0]}'; there are {', '.join(dataset.features)}")
    chosen = None if store is None else dataset.features[store[0]]
    lengths = None if store is None else FeatureStore(store[1]).lengths
    orders = dict.fromkeys(fields, None if classes is None else class_list.read(classes))
    if classes is not None and len(fields) > 1:
        named = [field for field in fields if field in classes.stem]
        if len(named) != 1:
            raise InputError(f"{classes}: whose classes are these? expected one of {', '.join(fields)} in its name")
        orders = {field: orders[field] if field in named else None for field in fields}
    reports = {
        field: _audited(
            dataset, field, load_database(content, field, where), features=chosen, lengths=lengths, order=order
        )
        for field, order in orders.items()
    }
    for field, report in reports.items():
        say((f"{field}: " if len(reports) > 1 else "") + report.text())
    write_json(out, {field: report.as_json() for field, report in reports.items()})
    say(f"written to {out}")
    for report in reports.values():
        report.raise_errors(str(where))


def _audited(
    dataset: Dataset,
    field: str,
    database: Database,
    *,
    features: FeatureSet | None,
    lengths: Mapping[str, int] | None,
    order: Sequence[str] | None = None,
    listed_missing: Sequence[str] = (),
    comparable: bool = True,
) -> databases.Audit:
    """The audit of one label field under a data set's params."""
    classes = dataset.num_classes if isinstance(dataset.num_classes, int) else dataset.num_classes.get(field)
    return databases.audit(
        database,
        train_subset=dataset.train_subset,
        eval_subset=dataset.eval_subset,
        feature_lengths=lengths,
        stride=None if features is None else features.stride_frames,
        fps=None if features is None else features.fps,
        num_classes=classes,
        class_order=order,
        listed_missing=listed_missing,
        names_blocked=dataset.blocked is not None,
        published={s: (c.videos, c.instances) for s, c in dataset.published.items()} if comparable else None,
    )


# ---------------------------------------------------------------------------------------------- runs


def train(experiment: Experiment, seed: int, *, device: str, anew: bool = False, say: Callable[[str], None]) -> None:
    """Train a row with one seed, or go on with it; MLflow sees every epoch.

    What lies in the run's folder and was made with other params, data or arithmetic is moved aside, never overwritten;
    a run that is there and the same is left as it is.

    Args:
        anew: move aside and start over, whatever lies there.
    """
    from actionformer.data.view import views
    from actionformer.run_log import RunLog
    from actionformer.training.device import leased_device
    from actionformer.training.loop import train as trained

    run = layout.run(experiment.edition, experiment.name, seed)
    with ExitStack() as stack:
        stack.enter_context(alone_in(run))
        made = training_record(experiment, seed)
        model, begun = _record_of_model(run), _record_of_checkpoint(run)
        goes_on = begun is not None and keys.same("train", experiment, begun, made)
        if not anew and _is_trained(experiment, run, made):
            if begun is not None and not goes_on:  # a later training, which was given up
                unfinished = [run / "checkpoint.pt", run / layout.PROGRESS]
                say(_set_aside(run, unfinished, begun, experiment))
            say(f"{run}: trained with these params, data and seed already; `--anew` starts over")
            told = read_json(run / "lineage.json") | training_lineage(experiment, seed, made)
            write_json(run / "lineage.json", told)
            return
        if anew or not goes_on:
            there = model or begun or (NO_RECORD if (run / "metrics.json").exists() else None)
            if there is not None:
                say(_set_aside(run, sorted(run.iterdir()), there, experiment))
            begun = None
        # it must never lie beside another model than its own
        layout.manifest(run / "model.pt").unlink(missing_ok=True)
        lineage = training_lineage(experiment, seed, made)
        database, features = _inputs(experiment)
        training_views = views(database, features, experiment, "train")
        detect_with = _detector(experiment, database, features)
        chosen = stack.enter_context(leased_device(device))
        say(f"{experiment.name}, seed {seed}: {chosen}, {experiment.training.threads} threads")

        def evaluated(network: Any) -> dict[str, float]:
            results = detect_with(network, database.classes, chosen)
            percent: dict[str, float] = _metrics(experiment, database, results)["percent"]
            return percent

        log = RunLog(experiment, run, lineage | {"seed": seed}, provenance.who(chosen), say)
        stack.enter_context(log)
        trained(
            experiment,
            training_views,
            database.classes,
            seed=seed,
            run=run,
            device=chosen,
            evaluate=evaluated,
            identity=keys.identity(begun or made),
            facts={"made_with": begun or made},
            who=provenance.who(chosen),
            observer=log,
        )
        # only now: what a workflow was promised must not lie there half-way, after an interruption
        write_text(run / "params.yaml", as_yaml(experiment))
        facts = {"seed": seed, "trained_by": log.trained_by, "mlflow_run": log.run_id}
        write_json(run / "lineage.json", facts | lineage)
        write_manifest(run / "model.pt", made)  # last: with it the run is whole


def _record_of_model(run: Path) -> Mapping[str, Any] | None:
    """What the model in a run's folder was made with; one that says nothing where that is not known."""
    if not (run / "model.pt").exists():
        return None
    return keys.stored(layout.manifest(run / "model.pt")) or NO_RECORD


def _record_of_checkpoint(run: Path) -> Mapping[str, Any] | None:
    """The same of a checkpoint."""
    from actionformer.training import checkpoint

    if not (run / "checkpoint.pt").exists():
        return None
    return checkpoint.load(run / "checkpoint.pt", tensors=False).get("made_with") or NO_RECORD


def training_record(experiment: Experiment, seed: int) -> keys.Record:
    """What a training of today is made with."""
    model = layout.run(experiment.edition, experiment.name, seed) / "model.pt"
    inputs = {"seed": seed, **inputs_md5s(experiment)}
    return keys.record("train", experiment, inputs, keys.stored(layout.manifest(model)))


def _is_trained(experiment: Experiment, run: Path, made: Mapping[str, Any]) -> bool:
    """Is the model of this record there, with all that belongs to it?"""
    there = keys.stored(layout.manifest(run / "model.pt"))
    files = [run / name for name in ("model.pt", "history.csv", "params.yaml", "lineage.json")]
    whole = all(file.exists() for file in files)
    return whole and there is not None and keys.same("train", experiment, there, made)


def _set_aside(run: Path, files: Sequence[Path], there: Mapping[str, Any], experiment: Experiment) -> str:
    """Move files of a run's folder, made with the record `there`, to where nothing overwrites them; says where to and
    why.
    """
    aside = layout.earlier(run, keys.identity(there))
    aside.mkdir(parents=True)
    for path in files:
        if path.name != LOCK and path.exists():
            path.rename(aside / path.name)
    why = keys.changes("train", experiment, there) or ["its data or seed are others, or it starts over"]
    return f"{run}: the run that lay there is kept in {aside} ({'; '.join(why[:3])})"


def write_manifest(product: Path, made: Mapping[str, Any], **facts: Any) -> None:
    """The small file beside a product of any size, by which the next stage knows its content."""
    write_json(layout.manifest(product), {"md5": file_md5(product), "made_with": made, **facts})


def _recorded_md5(product: Path) -> str:
    """md5 of a product as its manifest tells it; of its content where there is no manifest."""
    manifest = layout.manifest(product)
    return str(read_json(manifest)["md5"]) if manifest.exists() else file_md5(product)


def detect(experiment: Experiment, seed: int, *, device: str) -> str:
    """Run a trained row over its evaluated videos; says what it wrote."""
    from actionformer.training.checkpoint import load_model
    from actionformer.training.device import leased_device

    run = layout.run(experiment.edition, experiment.name, seed)
    network, _, classes = load_model(run / "model.pt")
    with leased_device(device) as chosen:
        results = _detector(experiment, *_inputs(experiment))(network.to(chosen), classes, chosen)
    before = keys.stored(layout.manifest(run / "detections.json"))
    layout.manifest(run / "detections.json").unlink(missing_ok=True)  # it must never lie beside other detections
    said = _write_detections(run, results)
    made = keys.record("detect", experiment, detection_inputs(experiment, run), before)
    write_detections_manifest(experiment, seed, made)
    return said


def detection_inputs(experiment: Experiment, run: Path) -> dict[str, str]:
    """md5 of everything that a run's detections are made from."""
    model = {"model": _recorded_md5(run / "model.pt")}
    return model | inputs_md5s(experiment) | _classifier_md5(experiment)


def write_detections_manifest(experiment: Experiment, seed: int, made: Mapping[str, Any]) -> None:
    """The manifest of a run's detections: all that their evaluation has to know of weights and data."""
    run = layout.run(experiment.edition, experiment.name, seed)
    trained = keys.stored(layout.manifest(run / "model.pt")) or training_record(experiment, seed)
    lineage = {"weights": keys.identity(trained), "train_key": trained["key"], **data_lineage(experiment)}
    write_manifest(run / "detections.json", made, lineage=lineage)


def evaluate(experiment: Experiment, seed: int) -> dict[str, float]:
    """Score and diagnose a row's detections: metrics.json, which says where its numbers come from, diagnosis.json, and
    MLflow.

    Reads the detections with their manifest, the database with its own, and lineage.json: no features, no weights.
    """
    from actionformer import tracking

    run = layout.run(experiment.edition, experiment.name, seed)
    database = database_of(experiment)
    detections = read_json(run / "detections.json")
    metrics, diagnosis = _metrics(experiment, database, detections), _diagnosis(experiment, database, detections)
    told = read_json(_made(layout.manifest(run / "detections.json"), f"detect {experiment.name} --seed {seed}"))
    made = keys.record("evaluate", experiment, evaluation_inputs(experiment, told), keys.stored(run / "metrics.json"))
    lineage = evaluated_lineage(experiment, run, told, made)
    lineage["evaluated_by"] = {"git": provenance.git_state(), "lock": provenance.lock_md5()}
    write_json(run / "diagnosis.json", diagnosis)
    facts = {"lineage": lineage, "made_with": made, "diagnosis": file_md5(run / "diagnosis.json")}
    write_json(run / "metrics.json", metrics | facts)
    tracking.Careful(run)(tracking.log_result, run)
    return dict(metrics["percent"])


def evaluation_inputs(experiment: Experiment, told: Mapping[str, Any]) -> dict[str, str]:
    """md5 of everything that a run's metrics are made from; `told` is the manifest of its detections."""
    return {"detections": told["md5"], "database": _database_md5(experiment)}


def evaluated_lineage(
    experiment: Experiment, run: Path, told: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    """Where a run's metrics come from, as lineage.json, the manifest of its detections and their own record tell it."""
    lineage = dict(told["lineage"])
    lineage |= _identities(lineage["weights"], lineage.pop("train_key"), told["made_with"], made)
    trained = read_json(run / "lineage.json")
    return lineage | {"trained_by": provenance.trained_by(trained, experiment.training.epochs)}


def evaluate_released(experiment: Experiment, params: Path, *, device: str) -> str:
    """Run a row's published checkpoint over its evaluated videos and score it, without training; says what it found.

    A checkpoint that two rows share fits one of them; of the other the metrics say that it has none.
    """
    from actionformer import tracking
    from actionformer.model.state_dict_adapter import published_model
    from actionformer.training.checkpoint import load_published
    from actionformer.training.device import leased_device

    path, run = layout.released_checkpoint_of(experiment), layout.released_run(experiment)
    if path is None:
        raise InputError(f"{experiment.name}: no checkpoint was published with this row (params: released)")
    with _raw_files(experiment.dataset, [path]):
        weights = load_published(path)
    why_none = _fits_the_other_row(experiment, path, weights, params)
    made = keys.record("released", experiment, released_inputs(experiment, path), keys.stored(run / "metrics.json"))
    lineage = released_lineage(experiment, path, made)
    if why_none:
        (run / "detections.json").unlink(missing_ok=True)
        write_json(run / "lineage.json", lineage)
        write_json(run / "metrics.json", {"none": why_none, "lineage": lineage, "made_with": made})
        return f"{experiment.name}: no checkpoint of its own: {why_none}"
    database, features = _inputs(experiment)
    with leased_device(device) as chosen:
        network = published_model(experiment.model, weights).to(chosen)
        results = _detector(experiment, database, features)(network, database.classes, chosen)
        lineage["evaluated_by"] = provenance.who(chosen)
    said = _write_detections(run, results)
    write_json(run / "lineage.json", lineage)
    metrics = _metrics(experiment, database, results)
    write_json(run / "metrics.json", metrics | {"lineage": lineage, "made_with": made})
    tracking.Careful(run)(tracking.log_result, run)
    return said


def released_inputs(experiment: Experiment, path: Path) -> dict[str, str]:
    """md5 of everything that the evaluation of a published checkpoint is made from."""
    checkpoint = {"checkpoint": provenance.source_md5(path)}
    return checkpoint | inputs_md5s(experiment) | _classifier_md5(experiment)


def released_lineage(experiment: Experiment, path: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Where the metrics of a published checkpoint come from."""
    return {
        "seed": None,
        "trained_by": [],
        "weights": digest(["released", made["inputs"]["checkpoint"]]),
        "params": made["key"],
        "identity": keys.identity(made),
        **data_lineage(experiment, path),
    }


def _fits_the_other_row(experiment: Experiment, path: Path, weights: Mapping[str, Any], params: Path) -> str:
    """Why a checkpoint that two rows share is the other row's; empty where it fits this one, an error if neither."""
    from actionformer.model.state_dict_adapter import why_not_fitting

    try:
        misfit = why_not_fitting(experiment.model, weights)
        shared_with = experiment.released.shared_with if experiment.released is not None else None
        if misfit and shared_with is not None:
            other = load_experiment(shared_with, experiment.edition, params=params)
            if not why_not_fitting(other.model, weights):
                return f"the checkpoint linked is that of {other.row}: {misfit}"
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if misfit:
        raise InputError(f"{path}: {misfit}")
    return ""


def detect_actions(experiment: Experiment, params: Path, seed: int, *, device: str) -> str:
    """Fuse a row of nouns with its row of verbs, and score the actions, their nouns and their verbs.

    Both were trained with `seed`; says what it found.
    """
    from actionformer import tracking
    from actionformer.data.view import views
    from actionformer.detection.actions import predict_actions
    from actionformer.training.checkpoint import load_model
    from actionformer.training.device import leased_device

    if experiment.actions_with is None:
        raise InputError(f"{experiment.name}: names no row of verbs to be fused with (params: actions_with)")
    other = load_experiment(experiment.actions_with, experiment.edition, params=params)
    if experiment.data.model_copy(update={"label_field": other.data.label_field}) != other.data:
        raise InputError(f"{experiment.name} and {other.name} see videos in different ways (params: data)")
    if _grid(experiment) != _grid(other):
        raise InputError(f"{experiment.name} and {other.name} have other points (params: model)")
    database, features = _inputs(experiment)
    (noun, _, nouns), (verb, _, verbs) = (load_model(run / "model.pt") for run in _fused(experiment, seed).values())
    shown = views(database, features, experiment, "test")
    with leased_device(device) as chosen:
        noun, verb = noun.to(chosen), verb.to(chosen)
        results = predict_actions(noun, verb, shown, experiment.inference, nouns, verbs, chosen)
        evaluated_by = provenance.who(chosen)
    run = layout.run(experiment.edition, layout.actions(experiment), seed)
    said = _write_detections(run, results)
    made = keys.record("actions", experiment, actions_inputs(experiment, seed), keys.stored(run / "metrics.json"))
    lineage = actions_lineage(experiment, seed, made) | {"evaluated_by": evaluated_by}
    write_json(run / "lineage.json", lineage)
    metrics = _action_metrics(experiment, database, results)
    write_json(run / "metrics.json", metrics | {"lineage": lineage, "made_with": made})
    tracking.Careful(run)(tracking.log_result, run)
    return said


def _fused(experiment: Experiment, seed: int) -> dict[str, Path]:
    """Run folders that are fused into actions, by row."""
    rows = [experiment.name, str(experiment.actions_with)]
    return {row: layout.run(experiment.edition, row, seed) for row in rows}


def actions_inputs(experiment: Experiment, seed: int) -> dict[str, str]:
    """md5 of everything that fused detections and their metrics are made from."""
    models = {row: _recorded_md5(run / "model.pt") for row, run in _fused(experiment, seed).items()}
    return models | inputs_md5s(experiment)


def actions_lineage(experiment: Experiment, seed: int, made: Mapping[str, Any]) -> dict[str, Any]:
    """Where the metrics of fused actions come from."""
    weights, trained_by = [], []
    for row, run in _fused(experiment, seed).items():
        trained = keys.stored(layout.manifest(run / "model.pt")) or {"stage": row, "key": "", "inputs": {}}
        weights.append(keys.identity(trained))
        for session in provenance.trained_by(read_json(run / "lineage.json"), experiment.training.epochs):
            trained_by.append({"row": row, **session})
    return {
        "kind": "actions",
        "seed": seed,
        "trained_by": trained_by,
        "weights": digest(weights),
        "params": made["key"],
        "identity": digest([weights, made["key"], inputs_md5s(experiment)]),
        **data_lineage(experiment),
    }


def _grid(experiment: Experiment) -> tuple[Any, ...]:
    """What decides which points a network has."""
    return experiment.model.max_seq_len, experiment.model.strides, experiment.model.attention_windows


def _action_metrics(experiment: Experiment, nouns: Database, results: Mapping[str, Any]) -> dict[str, Any]:
    """The same detections, evaluated by their nouns, their verbs and both, as the challenge does."""
    from actionformer.evaluation import mean_average_precision

    verbs = load_database(layout.database_of(experiment), "verb")
    percent: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for task, truth in {"noun": nouns, "verb": verbs, "action": _pairs(verbs, nouns)}.items():
        labelled = {
            video: [d | {"label": PAIR.join((d["verb"], d["noun"])) if task == "action" else d[task]} for d in found]
            for video, found in results.items()
        }
        result = mean_average_precision(
            truth,
            labelled,
            subset=experiment.dataset.eval_subset,
            tiou_thresholds=experiment.evaluation.tiou,
            blocked=nouns.blocked if experiment.evaluation.use_blocked_list else (),
        )
        percent |= {f"{task}/{key}": value for key, value in _percent(result).items()}
        counts = {"videos": result.videos, "instances": int(result.instances_K.sum())}
    return {"percent": percent, "subset": experiment.dataset.eval_subset, **counts}


def _pairs(verbs: Database, nouns: Database) -> Database:
    """The same videos, labelled with verb and noun."""
    videos = {}
    for name, video in verbs.videos.items():
        both = zip(video.labels, nouns.videos[name].labels, strict=True)
        videos[name] = replace(video, labels=tuple(map(PAIR.join, both)))
    return Database(videos, tuple(sorted({label for video in videos.values() for label in video.labels})))


def evaluate_files(
    annotations: Path,
    detections: Path,
    *,
    subset: str,
    tiou: Sequence[float],
    label_field: str = "label",
    recall_top_k: Sequence[int] = (),
    use_blocked_list: bool = True,
    out: Path,
) -> tuple[str, dict[str, float]]:
    """Score any detections in the published form against any database, as a row is scored; `out` gets the metrics.

    Returns what was evaluated, in words, and the metrics in percent.

    Args:
        label_field: whose labels count, where the database has several (EPIC's noun and verb).
        recall_top_k: also recall@kx, as for Ego4D.
        use_blocked_list: leave out the videos of the database's own blocked list, as the published evaluation does.
    """
    from actionformer.evaluation.matching import read_results

    database = load_database(annotations, label_field)
    params = EvaluationParams(tiou=tuple(tiou), recall_top_k=tuple(recall_top_k), use_blocked_list=use_blocked_list)
    metrics = scored(database, read_results(detections), params, subset)
    write_json(out, metrics)
    return evaluated_text(database, metrics, use_blocked_list=use_blocked_list), metrics["percent"]


def evaluated_text(database: Database, metrics: Mapping[str, Any], *, use_blocked_list: bool) -> str:
    """How much was evaluated, and what was left out, in words."""
    blocked = [video for video in database.subset(metrics["subset"]) if video.name in database.blocked]
    left_out = "without" if use_blocked_list else "with"
    remark = f", {left_out} the {len(blocked)} of its blocked list" if blocked else ""
    counted = f"{metrics['videos']} videos and {metrics['instances']} instances"
    return f"{counted} of subset {metrics['subset']}{remark}"


# ---------------------------------------------------------------------------------------------- shared steps


def data_lineage(experiment: Experiment, checkpoint: Path | None = None) -> dict[str, Any]:
    """Which data a run's numbers are a function of: version, md5 of every file used, whether all are the pinned ones.

    `checkpoint`: the published one, where that was used.
    """
    files = dict(read_json(databases.manifest_path(layout.database_of(experiment)))["sources"])
    files |= read_manifest(layout.store_of(experiment))["sources"]
    used = [layout.classifier_of(experiment), checkpoint]
    files |= provenance.sources([path for path in used if path is not None])
    return {"data_version": provenance.data_version(), "files": files, "pinned": provenance.is_pinned(files)}


def training_lineage(experiment: Experiment, seed: int, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run when its training begins: the data, and names for what its numbers will depend on.

    `weights` names what the weights depend on, `identity` what the metrics depend on, `params` the params in all.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    there = keys.stored(layout.manifest(run / "detections.json")), keys.stored(run / "metrics.json")
    detected = keys.record("detect", experiment, _classifier_md5(experiment), there[0])
    evaluated = keys.record("evaluate", experiment, {}, there[1])
    weights = keys.identity(trained)
    return _identities(weights, trained["key"], detected, evaluated) | data_lineage(experiment)


def _identities(
    weights: str, train_key: str, detected: Mapping[str, Any], evaluated: Mapping[str, Any]
) -> dict[str, str]:
    """Names of a run: equal for equal params, data and seed, on whatever machine it was trained."""
    made = [detected["key"], evaluated["key"]]
    return {
        "weights": weights,
        "params": digest([train_key, *made]),
        "identity": digest([weights, *made, detected["inputs"].get("classifier")]),
    }


def inputs_md5s(experiment: Experiment) -> dict[str, str]:
    """md5 of the content of database and feature store, as their manifests tell it."""
    return {"database": _database_md5(experiment), "store": read_manifest(layout.store_of(experiment))["md5"]}


def _database_md5(experiment: Experiment) -> str:
    return str(read_json(databases.manifest_path(layout.database_of(experiment)))["md5"])


def _classifier_md5(experiment: Experiment) -> dict[str, str]:
    """md5 of the external classifier's scores, for the rows that read them."""
    path = layout.classifier_of(experiment)
    return {} if path is None else {"classifier": provenance.source_md5(path)}


def _fields(content: Mapping[str, Any]) -> list[str]:
    """The label fields that a database's annotations have."""
    first: Mapping[str, Any] = next(
        (entry["annotations"][0] for entry in content["database"].values() if entry["annotations"]), {}
    )
    return [field for field in ("label", "noun", "verb") if field in first] or ["label"]


def database_of(experiment: Experiment) -> Database:
    path = _made(layout.database_of(experiment), f"convert {experiment.data.dataset}")
    return load_database(path, experiment.data.label_field)


def _inputs(experiment: Experiment) -> tuple[Database, FeatureStore]:
    store = _made(layout.store_of(experiment), f"pack {experiment.feature_owner} {experiment.data.features}")
    return database_of(experiment), FeatureStore(store)


def _made(path: Path, maker: str) -> Path:
    """The path, or one line that says which command makes the file."""
    if not path.exists():
        raise InputError(f"{path}: not there yet; `actionformer {maker}` makes it")
    return path


def alone_in(run: Path) -> Any:
    """A lock on a run folder: two processes must not train the same run."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK)
    try:
        return lock.acquire(timeout=1)  # `status` holds it for a moment to see whether anybody does
    except Timeout:
        raise InputError(f"{run}: another process trains here; wait for it, or end it") from None


def _write_detections(run: Path, results: Mapping[str, Sequence[Any]]) -> str:
    write_json(run / "detections.json", {"version": "actionformer", "results": results}, indent=None)
    return f"{run / 'detections.json'}: {sum(map(len, results.values()))} detections in {len(results)} videos"


def _detector(experiment: Experiment, database: Database, features: FeatureStore) -> Detector:
    """A function (network, classes, device) -> detections in the evaluated subset."""
    from actionformer.data.view import views
    from actionformer.detection.classifiers import load_classifier
    from actionformer.detection.predict import predict

    path, facts = layout.classifier_of(experiment), experiment.dataset.classifier
    classifier = None
    if path is not None and facts is not None:
        with _raw_files(experiment.dataset, [path]):
            classifier = load_classifier(path, facts.kind, facts.top_k)
    test_views = views(database, features, experiment, "test")
    if not test_views:
        raise InputError(f"{experiment.name}: no video of subset '{experiment.dataset.eval_subset}' has features")
    return lambda network, classes, device: predict(
        network, test_views, experiment.inference, classes, classifier, device
    )


def _metrics(experiment: Experiment, database: Database, detections: Mapping[str, Any]) -> dict[str, Any]:
    return scored(database, detections, experiment.evaluation, experiment.dataset.eval_subset)


def scored(database: Database, detections: Mapping[str, Any], params: EvaluationParams, subset: str) -> dict[str, Any]:
    """What metrics.json says of detections: mAP, counts and classes, and recall where the params ask for it."""
    from actionformer.evaluation import mean_average_precision, recall_at_kx

    options: dict[str, Any] = {
        "subset": subset,
        "tiou_thresholds": params.tiou,
        "blocked": database.blocked if params.use_blocked_list else (),
    }
    result = mean_average_precision(database, detections, **options)
    percent = _percent(result)
    if params.recall_top_k:
        recall = recall_at_kx(database, detections, top_k=params.recall_top_k, **options)
        for x, k in enumerate(recall.top_k):
            for u, t in enumerate(recall.tiou_thresholds):
                percent[f"recall_{k}x/{t:g}"] = 100 * float(recall.recall_UX[u, x])
    return metrics_of(result) | {"percent": percent, "subset": subset}


def metrics_of(result: AveragePrecision) -> dict[str, Any]:
    """What metrics.json says of an evaluation."""
    return {
        "percent": _percent(result),
        "videos": result.videos,
        "instances": int(result.instances_K.sum()),
        "classes": _per_class(result),
    }


def _diagnosis(experiment: Experiment, database: Database, detections: Mapping[str, Any]) -> dict[str, Any]:
    return diagnosis_of(
        database,
        detections,
        subset=experiment.dataset.eval_subset,
        tiou=experiment.evaluation.tiou,
        blocked=database.blocked if experiment.evaluation.use_blocked_list else (),
        edges=experiment.dataset.bin_edges,
    )


def diagnosis_of(
    database: Database | Path,
    detections: Mapping[str, Any] | Path,
    *,
    subset: str,
    tiou: Sequence[float],
    blocked: Collection[str] = (),
    edges: Mapping[Any, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """What diagnosis.json holds: the errors of DETAD, precision and recall, calibration, the AP of every video."""
    from actionformer.evaluation import curves
    from actionformer.evaluation.diagnosis import TIOU, diagnose
    from actionformer.evaluation.matching import match, true_positives

    matched = match(database, detections, subset=subset, blocked=blocked)
    correct_NU = true_positives(matched, tiou) >= 0
    correct_N = true_positives(matched, [TIOU])[:, 0] >= 0
    precision_UR = curves.precision_recall(matched, correct_NU)
    return diagnose(matched, tiou, edges).as_json() | {
        "precision": {f"{t:g}": precision_R.tolist() for t, precision_R in zip(tiou, precision_UR, strict=True)},
        "calibration": [asdict(part) for part in curves.calibration(matched, correct_N)],
        "videos": curves.per_video(matched, correct_NU),
    }


def _percent(result: AveragePrecision) -> dict[str, float]:
    percent = {f"mAP/{t:g}": 100 * float(v) for t, v in zip(result.tiou_thresholds, result.map_U, strict=True)}
    return percent | {"mAP/average": 100 * result.average}


def _per_class(result: AveragePrecision) -> dict[str, Any]:
    return {
        label: {"instances": int(result.instances_K[k]), "ap": result.ap_KU[k].tolist()}
        for k, label in enumerate(result.classes)
    }
