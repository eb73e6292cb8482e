"""Command line: one sub-command per stage. Parses, calls, reports; computes nothing."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actionformer import experiment as params_files
from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.experiment import PARAMS, Experiment, load_dataset, load_edition, load_experiment
from actionformer.files import read_json, write_json, write_text


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; 0, or 1 with one line on stderr for bad input, or 128 + signal when interrupted."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        parsed.run(parsed)
    except InputError as error:
        print(f"actionformer {parsed.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"actionformer {parsed.command}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Terminated:
        print(f"actionformer {parsed.command}: terminated; the same command goes on from here", file=sys.stderr)
        return 143
    return 0


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


# ---------------------------------------------------------------------------------------------- data stages


def run_demo_data(args: argparse.Namespace) -> None:
    from actionformer.data import demo

    demo.write_all(args.out)
    print(f"wrote the demo edition's publisher files under {args.out}")


def run_fetch(args: argparse.Namespace) -> None:
    from actionformer.data.fetch import fetch

    dataset = load_dataset(args.dataset, args.edition, args.params)
    root = layout.raw_root(dataset, args.dataset, args.edition)
    for name in args.files or dataset.files:
        if name not in dataset.files:
            raise InputError(f"data set {args.dataset} has no file '{name}'; it has {', '.join(dataset.files)}")
        fetch(root / name, dataset.files[name])
        print(f"{root / name}: md5 {provenance.source_md5(root / name)}")
    print(f"to make these files part of the version: dvc add {root}")


def run_convert(args: argparse.Namespace) -> None:
    from actionformer.data.annotations import save_database
    from actionformer.data.publishers import convert

    dataset, name, edition = _dataset(args)
    root = layout.raw_root(dataset, name, edition)
    content = convert(dataset, root)
    read = [*dataset.annotations, *([dataset.blocked] if dataset.blocked else [])]
    out = layout.database(edition, name)
    save_database(out, content, provenance.sources(root / file for file in read))
    print(f"{out}: {len(content['database'])} videos")


def run_pack(args: argparse.Namespace) -> None:
    from actionformer.data.features import pack

    dataset, name, edition = _dataset(args)
    if args.features not in dataset.features:
        raise InputError(f"data set {name} has no features '{args.features}'; it has {', '.join(dataset.features)}")
    features = dataset.features[args.features]
    source = layout.raw_root(dataset, name, edition) / features.file
    store = layout.feature_store(edition, name, args.features)
    manifest = pack(
        source, store, dim=features.dim, prefix=features.prefix, sources=lambda: provenance.sources([source])
    )
    print(f"{store}: {manifest['videos']} videos, md5 {manifest['md5']}")


def run_audit(args: argparse.Namespace) -> None:
    from actionformer.data import annotations
    from actionformer.data.features import FeatureStore

    experiment = _experiment(args)
    path = layout.database_of(experiment)
    database = annotations.load_database(path, experiment.data.label_field)
    dataset = experiment.dataset
    fields = dataset.num_classes if isinstance(dataset.num_classes, dict) else {"label": dataset.num_classes}
    report = annotations.audit(
        database,
        train_subset=dataset.train_subset,
        eval_subset=dataset.eval_subset,
        feature_lengths=FeatureStore(layout.store_of(experiment)).lengths,
        num_classes=fields[experiment.data.label_field],
        published={s: (c.videos, c.instances) for s, c in dataset.published.items()} if experiment.comparable else None,
    )
    print(report.text())
    if report.errors:
        raise InputError(
            f"{path}: {report.errors[0]}" + (f" (and {len(report.errors) - 1} more)" if report.errors[1:] else "")
        )
    write_json(layout.audit(experiment), {"facts": report.facts, "notes": report.notes})


# ---------------------------------------------------------------------------------------------- runs


def run_train(args: argparse.Namespace) -> None:
    import torch

    from actionformer import tracking
    from actionformer.data.annotations import load_database
    from actionformer.data.features import FeatureStore
    from actionformer.data.view import views
    from actionformer.training.device import leased_device
    from actionformer.training.loop import train

    experiment = _experiment(args)
    torch.set_num_threads(experiment.training.threads)
    run = layout.run(experiment.edition, experiment.name, args.seed)
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    features = FeatureStore(layout.store_of(experiment))
    lineage = _lineage(experiment, args.seed)
    training_views = views(database, features, experiment, "train")
    detect = _detector(experiment, database, features)
    write_text(run / "params.yaml", params_files.as_yaml(experiment))

    def evaluate(network: Any) -> dict[str, float]:
        return _metrics(experiment, database, detect(network, database.classes, device))["percent"]

    current: list[str] = []

    def on_start(run_id: str | None, history: Sequence[dict[str, float]]) -> str:
        current.append(tracking.start(experiment, lineage, run_id))
        tracking.log_history(current[0], history)
        return current[0]

    def on_epoch(epoch: int, record: dict[str, float]) -> None:
        tracking.log_epoch(current[0], epoch, record)
        score = f"  mAP {record['mAP/average']:.2f}" if "mAP/average" in record else ""
        print(
            f"epoch {epoch + 1}/{experiment.training.epochs}  loss {record['loss/total']:.4f}  "
            f"lr {record['learning_rate']:.2e}  {record['videos_per_second']:.1f} videos/s{score}",
            flush=True,
        )

    with contextlib.ExitStack() as stack:
        device = stack.enter_context(leased_device(args.device))
        print(f"{experiment.name}, seed {args.seed}: {device}, {experiment.training.threads} threads", flush=True)
        try:
            train(
                experiment,
                training_views,
                database.classes,
                seed=args.seed,
                run=run,
                device=device,
                evaluate=evaluate,
                identity=lineage["identity"],
                on_start=on_start,
                on_epoch=on_epoch,
                around=lambda: tracking.system_metrics(current[0]),
            )
        except BaseException as error:
            if current:
                tracking.end(current[0], "KILLED" if isinstance(error, (KeyboardInterrupt, Terminated)) else "FAILED")
            raise
    write_json(run / "lineage.json", lineage | {"mlflow_run": current[0], "device": device})


def run_detect(args: argparse.Namespace) -> None:
    import torch

    from actionformer.data.annotations import load_database
    from actionformer.data.features import FeatureStore
    from actionformer.training.checkpoint import load_model
    from actionformer.training.device import leased_device

    experiment = _experiment(args)
    torch.set_num_threads(experiment.training.threads)
    run = layout.run(experiment.edition, experiment.name, args.seed)
    network, _, classes = load_model(run / "model.pt")
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    detect = _detector(experiment, database, FeatureStore(layout.store_of(experiment)))
    with leased_device(args.device) as device:
        results = detect(network.to(device), classes, device)
    write_json(run / "detections.json", {"version": "actionformer", "results": results}, indent=None)
    print(f"{run / 'detections.json'}: {sum(map(len, results.values()))} detections in {len(results)} videos")


def run_evaluate(args: argparse.Namespace) -> None:
    from actionformer.data.annotations import load_database

    if args.annotations is not None:
        _evaluate_files(args)
        return
    from actionformer import tracking

    experiment = _experiment(args)
    run = layout.run(experiment.edition, experiment.name, args.seed)
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    metrics = _metrics(experiment, database, read_json(run / "detections.json"))
    write_json(run / "metrics.json", metrics)
    tracking.log_result(run, experiment)
    print(_table(metrics["percent"]))


def _evaluate_files(args: argparse.Namespace) -> None:
    from actionformer.evaluation import mean_average_precision

    if args.detections is None or args.subset is None:
        raise InputError("--annotations needs --detections and --subset, too")
    result = mean_average_precision(args.annotations, args.detections, subset=args.subset, tiou_thresholds=args.tiou)
    metrics = _percent(result)
    if args.out is not None:
        write_json(args.out, {"percent": metrics, "classes": _per_class(result)})
    print(_table(metrics))


def run_timeline(args: argparse.Namespace) -> None:
    from actionformer.data.annotations import load_database
    from actionformer.files import atomic_path
    from actionformer.reporting.figures import timeline

    experiment = _experiment(args)
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    results = read_json(layout.run(experiment.edition, experiment.name, args.seed) / "detections.json")["results"]
    if args.video not in results:
        raise InputError(f"no detections of video '{args.video}'; there are {', '.join(sorted(results)[:5])}, ...")
    figure = timeline(database.videos[args.video], results[args.video], database.classes, min_score=args.min_score)
    with atomic_path(args.out) as part:
        figure.savefig(part, format=args.out.suffix.removeprefix(".") or "png", dpi=130)
    print(args.out)


def run_tabulate(args: argparse.Namespace) -> None:
    from actionformer.reporting import tables

    edition = args.edition
    remark = "" if edition == "own" else load_edition(edition, args.params).why_not_comparable
    rows: dict[str, list[tables.Row]] = {}
    for name in args.rows or params_files.published_rows(args.params):
        experiment = load_experiment(name, edition, dataset=args.dataset, params=args.params)
        if args.table is not None and experiment.table != args.table:
            continue
        seeds = args.seeds or load_edition(edition, args.params).seeds
        rows.setdefault(experiment.table, []).append(tables.Row(experiment, [_run(experiment, s) for s in seeds]))
    if not rows:
        raise InputError(f"no row belongs to table '{args.table}'")
    folder = layout.tables(edition)
    for table, members in rows.items():
        title = members[0].experiment.dataset.name
        text = tables.as_markdown(title, members, edition=edition, remark=remark)
        write_text(folder / f"{table}.md", text)
        write_text(folder / f"{table}.csv", tables.as_csv(members))
        print(text)


def run_page(args: argparse.Namespace) -> None:
    from actionformer.reporting import tables

    folder = layout.tables(args.edition)
    parts = []
    for table in args.tables:
        path = folder / f"{table}.md"
        if not path.exists():
            raise InputError(f"{path}: no such table; `actionformer tabulate --table {table}` makes it")
        parts.append(path.read_text(encoding="utf-8"))
    write_text(folder / "index.md", tables.page(f"ActionFormer: results tables, {args.edition} edition", parts))
    print(f"{folder / 'index.md'}: {len(parts)} tables")


def run_track(args: argparse.Namespace) -> None:
    from actionformer import tracking

    print(f"{tracking.restore(args.results)} runs brought into MLflow")


def run_params(args: argparse.Namespace) -> None:
    if args.schemas is not None:
        for name, text in params_files.schemas().items():
            write_text(args.schemas / name, text)
        return
    print(params_files.as_yaml(_experiment(args)), end="")


# ---------------------------------------------------------------------------------------------- shared steps


def _experiment(args: argparse.Namespace) -> Experiment:
    if args.row is None:
        raise InputError("name a row, or the path of an experiment's YAML file")
    return load_experiment(args.row, args.edition, dataset=args.dataset, params=args.params)


def _dataset(args: argparse.Namespace) -> tuple[Any, str, str]:
    """A data set, its name and its edition: 'own' for one given by path."""
    own = args.dataset.endswith((".yaml", ".yml"))
    dataset = load_dataset(args.dataset, None if own else args.edition, args.params)
    return dataset, Path(args.dataset).stem, "own" if own else args.edition


def _detector(experiment: Experiment, database: Any, features: Any) -> Callable[..., dict[str, Any]]:
    """A function (network, classes, device) -> results on the evaluated subset."""
    from actionformer.data.view import views
    from actionformer.detection.classifiers import load_classifier
    from actionformer.detection.predict import predict

    path, classifier = layout.classifier_of(experiment), None
    if path is not None and experiment.dataset.classifier is not None:
        kind, top_k = experiment.dataset.classifier.kind, experiment.dataset.classifier.top_k
        classifier = load_classifier(path, kind, top_k)
    test_views = views(database, features, experiment, "test")
    if not test_views:
        raise InputError(f"{experiment.name}: no video of subset '{experiment.dataset.eval_subset}' has features")

    def detect(network: Any, classes: Any, device: str) -> dict[str, Any]:
        return predict(network, test_views, experiment.inference, classes, classifier, device)

    return detect


def _metrics(experiment: Experiment, database: Any, detections: Any) -> dict[str, Any]:
    """Content of metrics.json."""
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
    return {
        "percent": percent,
        "subset": options["subset"],
        "videos": result.videos,
        "instances": int(result.instances_K.sum()),
        "classes": _per_class(result),
    }


def _percent(result: Any) -> dict[str, float]:
    percent = {f"mAP/{t:g}": 100 * float(v) for t, v in zip(result.tiou_thresholds, result.map_U, strict=True)}
    return percent | {"mAP/average": 100 * result.average}


def _per_class(result: Any) -> dict[str, Any]:
    return {
        label: {"instances": int(result.instances_K[k]), "ap": result.ap_KU[k].tolist()}
        for k, label in enumerate(result.classes)
    }


def _table(percent: dict[str, float]) -> str:
    return "\n".join(f"{key:<16} {value:6.2f}" for key, value in percent.items())


def _lineage(experiment: Experiment, seed: int) -> dict[str, Any]:
    """Where a run's numbers come from; `identity` is what its weights are a function of."""
    from actionformer.data.annotations import manifest_path
    from actionformer.data.features import read_manifest

    database = read_json(manifest_path(layout.database_of(experiment)))
    store = read_manifest(layout.store_of(experiment))
    files = database["sources"] | store["sources"]
    classifier = layout.classifier_of(experiment)
    if classifier is not None:
        files |= provenance.sources([classifier])
    inputs = {"params": experiment.key("train"), "seed": seed, "database": database["md5"], "features": store["md5"]}
    return {
        "identity": hashlib.md5(json.dumps(inputs, sort_keys=True).encode(), usedforsecurity=False).hexdigest(),
        "seed": seed,
        "git": provenance.git_state(),
        "data_version": provenance.data_version(),
        "files": files,
        "pinned": provenance.is_pinned(files),
        "environment": provenance.environment(),
        "experiment": experiment.model_dump(mode="json"),
    }


def _run(experiment: Experiment, seed: int) -> Any:
    from actionformer.reporting.tables import Run

    folder = layout.run(experiment.edition, experiment.name, seed)
    lineage = read_json(folder / "lineage.json")
    metrics = read_json(folder / "metrics.json")
    return Run(
        seed,
        metrics["percent"],
        metrics["videos"],
        metrics["instances"],
        lineage,
        layout.run_name(seed, lineage["identity"]),
    )


# ---------------------------------------------------------------------------------------------- parsing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="actionformer",
        description="ActionFormer's published results, reproducible from data to table.",
        epilog="`snakemake --cores all` runs every stage in order; each is also a command here.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def edition(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--edition", default="demo", help="demo, paper, ... (params/editions; default: demo)")
        sub.add_argument("--params", type=Path, default=PARAMS, help="folder of params (default: the checkout's)")

    def row(sub: argparse.ArgumentParser, *, seed: bool, optional: bool = False) -> None:
        text = "a row of params/experiments, or the path of an experiment's YAML file"
        sub.add_argument("row", metavar="ROW", nargs="?" if optional else None, help=text)
        edition(sub)
        sub.add_argument("--dataset", help="data set to use instead of the row's (name or path of a YAML file)")
        if seed:
            sub.add_argument("--seed", type=int, default=0, help="seed of weights, crops and dropout (default: 0)")

    def device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ... (default: a free GPU, or the CPU)")

    sub = command("demo-data", run_demo_data, "write the demo edition's publisher files")
    sub.add_argument("--out", type=Path, default=Path("data/demo"), help="folder to write (default: data/demo)")

    sub = command("fetch", run_fetch, "download a data set's files from their publishers")
    sub.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets")
    sub.add_argument("--files", nargs="+", metavar="FILE", help="only these (default: all)")
    edition(sub)
    sub.set_defaults(edition="paper")

    sub = command("convert", run_convert, "publisher's annotations -> the one database")
    sub.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets, or the path of a YAML file")
    edition(sub)

    sub = command("pack", run_pack, "publisher's features -> one HDF5 store")
    sub.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets, or the path of a YAML file")
    sub.add_argument("features", metavar="FEATURES", help="one of its feature sets")
    edition(sub)

    sub = command("audit", run_audit, "check a row's database and features against each other and the published counts")
    row(sub, seed=False)

    sub = command("train", run_train, "train a row with one seed, or go on with it")
    row(sub, seed=True)
    device(sub)

    sub = command("detect", run_detect, "run a trained row over its evaluated videos")
    row(sub, seed=True)
    device(sub)

    sub = command("evaluate", run_evaluate, "score a row's detections, or any two files in the published form")
    row(sub, seed=True, optional=True)
    sub.add_argument("--annotations", type=Path, help="a database file, instead of a row")
    sub.add_argument("--detections", type=Path, help="a result file {'results': {video: [...]}}")
    sub.add_argument("--subset", help="the subset to evaluate")
    sub.add_argument("--tiou", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7], help="tIoU thresholds")
    sub.add_argument("--out", type=Path, help="also write the metrics as JSON")

    sub = command("timeline", run_timeline, "picture of a video's ground truth and detections")
    row(sub, seed=True)
    sub.add_argument("--video", required=True, help="a video of the evaluated subset")
    sub.add_argument("--min-score", type=float, default=0.2, help="draw detections from this score on (default: 0.2)")
    sub.add_argument("--out", type=Path, default=Path("timeline.png"), help="png, svg or pdf (default: timeline.png)")

    sub = command("tabulate", run_tabulate, "results tables, from the metrics of all seeds")
    edition(sub)
    sub.add_argument("--table", help="only this table (default: all)")
    sub.add_argument("--rows", nargs="+", metavar="ROW", help="rows (default: all)")
    sub.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="seeds (default: those of the edition)")
    sub.add_argument("--dataset", help="data set to use instead of the rows' (name or path of a YAML file)")

    sub = command("page", run_page, "one page with the named tables")
    edition(sub)
    sub.add_argument("tables", nargs="+", metavar="TABLE", help="tables, in order")

    sub = command("track", run_track, "bring finished run folders into MLflow, where it lacks them")
    sub.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")

    sub = command("params", run_params, "print a row with every value resolved")
    row(sub, seed=False, optional=True)
    sub.add_argument("--schemas", type=Path, help="write the JSON Schemas of all params files to this folder instead")
    return parser
