"""The stages, from raw file to table: each reads its files, calls the code that knows how, and writes its files.

`layout` says where everything lies. Knows no command line; rules and `cli` call these one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data.annotations import Database, load_database
from actionformer.data.features import FeatureStore, read_manifest
from actionformer.errors import InputError
from actionformer.experiment import (
    Dataset,
    Experiment,
    FeatureSet,
    as_yaml,
    load_experiment,
)
from actionformer.files import digest, read_json, write_json, write_text
from actionformer.progress import clock

if TYPE_CHECKING:  # numba takes a while, and most stages do without
    from actionformer.evaluation import AveragePrecision

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
        content = converted(dataset, root)
        databases.save_database(out, content, label_fields=_fields(content), sources=lambda: provenance.sources(read))
    return f"{out}: {len(content['database'])} videos"


def convert_folder(dataset: Dataset, folder: Path, video_info: Path | None, out: Path) -> str:
    """Annotations of any form in any folder -> a database file; says what it wrote."""
    from actionformer.data.publishers import convert_folder as converted

    content = converted(dataset, folder, video_info)
    databases.save_database(out, content, label_fields=_fields(content), sources=dict)
    instances = sum(len(entry["annotations"]) for entry in content["database"].values())
    used = dataset if "blocked" in content else dataset.model_copy(update={"blocked": None})
    remark = "" if used is dataset or dataset.blocked is None else "; no blocked.json there, so nothing is blocked"
    return f"{out}: {len(content['database'])} videos, {instances} instances; {used.protocol_text()}{remark}"


def pack(dataset: Dataset, name: str, edition: str, features: str) -> str:
    """Publisher's features -> one store; says what it wrote."""
    from actionformer.data.features import pack as packed

    if features not in dataset.features:
        raise InputError(f"data set {name} has no features '{features}'; it has {', '.join(dataset.features)}")
    chosen = dataset.features[features]
    source = layout.raw_root(dataset, name, edition) / chosen.file
    store = layout.feature_store(edition, name, features)
    with _raw_files(dataset, [source]):
        manifest = packed(
            source, store, dim=chosen.dim, prefix=chosen.prefix, sources=lambda: provenance.sources([source])
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
    write_json(layout.audit(experiment), report.as_json())


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


def train(experiment: Experiment, seed: int, *, device: str, say: Callable[[str], None]) -> None:
    """Train a row with one seed, or go on with it; MLflow sees every epoch."""
    from actionformer import tracking
    from actionformer.data.view import views
    from actionformer.training.device import leased_device, prepare_cpu
    from actionformer.training.loop import train as trained

    prepare_cpu(experiment.training.threads)
    run = layout.run(experiment.edition, experiment.name, seed)
    database, features = _inputs(experiment)
    training_views = views(database, features, experiment, "train")
    detect_with = _detector(experiment, database, features)
    lineage = {
        "seed": seed,
        "git": provenance.git_state(),
        "environment": provenance.environment(),
        **data_lineage(experiment, seed),
    }
    epochs, current, spent = experiment.training.epochs, [""], [0.0]

    def note_progress(epoch: int, seconds: float) -> None:
        spent[0] = seconds
        write_json(run / layout.PROGRESS, {"epoch": epoch, "epochs": epochs, "seconds": seconds})

    def on_start(run_id: str | None, history: Sequence[Mapping[str, float]]) -> str:
        current[0] = tracking.start(experiment, lineage, run_id)
        tracking.log_history(current[0], history)
        note_progress(len(history), sum(record["seconds"] for record in history))
        if history:
            say(f"goes on after epoch {len(history)}/{epochs}")
        return current[0]

    def on_epoch(epoch: int, record: Mapping[str, float]) -> None:
        tracking.log_epoch(current[0], epoch, record)
        note_progress(epoch + 1, spent[0] + record["seconds"])
        score = f"  mAP {record['mAP/average']:.2f}" if "mAP/average" in record else ""
        left = clock(spent[0] / (epoch + 1) * (epochs - epoch - 1))
        say(
            f"epoch {epoch + 1}/{epochs}  loss {record['loss/total']:.4f}  lr {record['learning_rate']:.2e}  "
            f"{record['videos_per_second']:.1f} videos/s  {left} left{score}"
        )

    with ExitStack() as stack:
        stack.enter_context(_alone_in(run))
        chosen = stack.enter_context(leased_device(device))
        say(f"{experiment.name}, seed {seed}: {chosen}, {experiment.training.threads} threads")
        try:
            trained(
                experiment,
                training_views,
                database.classes,
                seed=seed,
                run=run,
                device=chosen,
                evaluate=lambda network: _metrics(experiment, database, detect_with(network, database.classes, chosen))[
                    "percent"
                ],
                identity=lineage["weights"],
                on_start=on_start,
                on_epoch=on_epoch,
                around=lambda: tracking.system_metrics(current[0]),
            )
        except BaseException as error:
            if current[0]:
                tracking.end(current[0], "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        tracking.end(current[0], "FINISHED")
        # only now: what a workflow was promised must not lie there half-way, after an interruption
        write_text(run / "params.yaml", as_yaml(experiment))
        write_json(run / "lineage.json", lineage | {"mlflow_run": current[0], "device": chosen})


def detect(experiment: Experiment, seed: int, *, device: str) -> str:
    """Run a trained row over its evaluated videos; says what it wrote."""
    from actionformer.training.checkpoint import load_model
    from actionformer.training.device import leased_device, prepare_cpu

    prepare_cpu(experiment.training.threads)
    run = layout.run(experiment.edition, experiment.name, seed)
    network, _, classes = load_model(run / "model.pt")
    with leased_device(device) as chosen:
        results = _detector(experiment, *_inputs(experiment))(network.to(chosen), classes, chosen)
    return _write_detections(run, results)


def evaluate(experiment: Experiment, seed: int) -> dict[str, float]:
    """Score and diagnose a row's detections: metrics.json, which says where its data come from, diagnosis.json, and
    MLflow.
    """
    from actionformer import tracking

    run = layout.run(experiment.edition, experiment.name, seed)
    database, _ = _inputs(experiment)
    detections = read_json(run / "detections.json")
    metrics, diagnosis = _metrics(experiment, database, detections), _diagnosis(experiment, database, detections)
    metrics["lineage"] = data_lineage(experiment, seed)
    metrics["experiment"] = experiment.model_dump(mode="json")
    write_json(run / "diagnosis.json", diagnosis)
    write_json(run / "metrics.json", metrics)
    tracking.log_result(run)
    return dict(metrics["percent"])


def evaluate_released(experiment: Experiment, params: Path, *, device: str) -> str:
    """Run a row's published checkpoint over its evaluated videos and score it, without training; says what it found.

    A checkpoint that two rows share fits one of them; of the other the metrics say that it has none.
    """
    from actionformer import tracking
    from actionformer.model.state_dict_adapter import published_model
    from actionformer.training.checkpoint import load_published
    from actionformer.training.device import leased_device, prepare_cpu

    path, run = layout.released_checkpoint_of(experiment), layout.released_run(experiment)
    if path is None:
        raise InputError(f"{experiment.name}: no checkpoint was published with this row (params: released)")
    prepare_cpu(experiment.training.threads)
    with _raw_files(experiment.dataset, [path]):
        weights = load_published(path)
    why_none = _fits_the_other_row(experiment, path, weights, params)
    lineage = {
        "seed": None,
        "git": provenance.git_state(),
        "environment": provenance.environment(),
        **data_lineage(experiment, None),
    }
    record = {"lineage": lineage, "experiment": experiment.model_dump(mode="json")}
    if why_none:
        (run / "detections.json").unlink(missing_ok=True)
        write_json(run / "lineage.json", lineage)
        write_json(run / "metrics.json", record | {"none": why_none})
        return f"{experiment.name}: no checkpoint of its own: {why_none}"
    database, features = _inputs(experiment)
    with leased_device(device) as chosen:
        network = published_model(experiment.model, weights).to(chosen)
        results = _detector(experiment, database, features)(network, database.classes, chosen)
    said = _write_detections(run, results)
    write_json(run / "lineage.json", lineage)
    write_json(run / "metrics.json", record | _metrics(experiment, database, results))
    tracking.log_result(run)
    return said


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
    from actionformer.training.device import leased_device, prepare_cpu

    if experiment.actions_with is None:
        raise InputError(f"{experiment.name}: names no row of verbs to be fused with (params: actions_with)")
    other = load_experiment(experiment.actions_with, experiment.edition, params=params)
    if experiment.data.model_copy(update={"label_field": other.data.label_field}) != other.data:
        raise InputError(f"{experiment.name} and {other.name} see videos in different ways (params: data)")
    if _grid(experiment) != _grid(other):
        raise InputError(f"{experiment.name} and {other.name} have other points (params: model)")
    prepare_cpu(experiment.training.threads)
    database, features = _inputs(experiment)
    folders = [layout.run(experiment.edition, row.name, seed) for row in (experiment, other)]
    (noun, _, nouns), (verb, _, verbs) = (load_model(folder / "model.pt") for folder in folders)
    shown = views(database, features, experiment, "test")
    with leased_device(device) as chosen:
        noun, verb = noun.to(chosen), verb.to(chosen)
        results = predict_actions(noun, verb, shown, experiment.inference, nouns, verbs, chosen)
    run = layout.run(experiment.edition, layout.actions(experiment), seed)
    said = _write_detections(run, results)
    noun_lineage, verb_lineage = data_lineage(experiment, seed), data_lineage(other, seed)
    lineage = noun_lineage | {
        "kind": "actions",
        "weights": digest([noun_lineage["weights"], verb_lineage["weights"]]),
        "params": digest([noun_lineage["params"], verb_lineage["params"]]),
        "identity": digest([noun_lineage["identity"], verb_lineage["identity"]]),
    }
    trained = {"seed": seed, "git": provenance.git_state(), "environment": provenance.environment()}
    write_json(run / "lineage.json", trained | lineage)
    record = {"lineage": lineage, "experiment": experiment.model_dump(mode="json")}
    write_json(run / "metrics.json", record | _action_metrics(experiment, database, results))
    tracking.log_result(run)
    return said


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
    database: Path, detections: Path, *, subset: str, tiou: Sequence[float], out: Path
) -> dict[str, float]:
    """Score any detections in the published form against any database; `out` gets the metrics as JSON."""
    from actionformer.evaluation import mean_average_precision

    result = mean_average_precision(database, detections, subset=subset, tiou_thresholds=tiou)
    percent = _percent(result)
    write_json(out, {"percent": percent, "subset": subset, "classes": _per_class(result)})
    return percent


# ---------------------------------------------------------------------------------------------- shared steps


def data_lineage(experiment: Experiment, seed: int | None) -> dict[str, Any]:
    """What a run's numbers are a function of: the data and their version, and a name for all of it.

    `weights` names what the weights depend on, `identity` what the metrics depend on. Without a seed the weights are
    those of the published checkpoint.
    """
    database = read_json(databases.manifest_path(layout.database_of(experiment)))
    store = read_manifest(layout.store_of(experiment))
    classifier = layout.classifier_of(experiment)
    checkpoint = layout.released_checkpoint_of(experiment) if seed is None else None
    files = provenance.sources([path for path in (classifier, checkpoint) if path is not None])
    weights = [experiment.key("train"), seed, database["md5"], store["md5"]]
    if checkpoint is not None:
        weights = [experiment.key("released"), files[checkpoint.as_posix()], database["md5"], store["md5"]]
    scores = None if classifier is None else files[classifier.as_posix()]
    files = database["sources"] | store["sources"] | files
    made_by: Literal["train", "released"] = "train" if checkpoint is None else "released"
    return {
        "weights": digest(weights),
        "params": digest([experiment.key(stage) for stage in (made_by, "detect", "evaluate")]),
        "identity": digest([weights, experiment.key("detect"), experiment.key("evaluate"), scores]),
        "data_version": provenance.data_version(),
        "files": files,
        "pinned": provenance.is_pinned(files),
    }


def _fields(content: Mapping[str, Any]) -> list[str]:
    """The label fields that a database's annotations have."""
    first: Mapping[str, Any] = next(
        (entry["annotations"][0] for entry in content["database"].values() if entry["annotations"]), {}
    )
    return [field for field in ("label", "noun", "verb") if field in first] or ["label"]


def _inputs(experiment: Experiment) -> tuple[Database, FeatureStore]:
    for path, maker in (
        (layout.database_of(experiment), f"convert {experiment.data.dataset}"),
        (layout.store_of(experiment), f"pack {experiment.feature_owner} {experiment.data.features}"),
    ):
        if not path.exists():
            raise InputError(f"{path}: not there yet; `actionformer {maker}` makes it")
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    return database, FeatureStore(layout.store_of(experiment))


def _alone_in(run: Path) -> Any:
    """A lock on a run folder: two processes must not train the same run."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock")
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
    from actionformer.evaluation import mean_average_precision, recall_at_kx

    params = experiment.evaluation
    options: dict[str, Any] = {
        "subset": experiment.dataset.eval_subset,
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
    return metrics_of(result) | {"percent": percent, "subset": options["subset"]}


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
