"""Command line: one sub-command per stage. Parses, calls the stage, prints what it says; computes nothing."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from actionformer import experiment as params_files
from actionformer.errors import InputError
from actionformer.experiment import (
    PARAMS,
    Dataset,
    Experiment,
    load_dataset,
    load_edition,
    load_experiment,
    published_rows,
)
from actionformer.files import write_json, write_text


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; 0, or 1 with one line on stderr for bad input, or 128 + signal when interrupted."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    # a failed job's own message should stand out on stderr
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    try:
        parsed.run(parsed)
    except KeyboardInterrupt:
        return _stopped(parsed, "interrupted; the same command goes on from here", 130)
    except Terminated:
        return _stopped(parsed, "terminated; the same command goes on from here", 143)
    except BrokenPipeError:  # as when piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, OSError) as error:
        return _stopped(parsed, str(error), 1)
    except Exception as error:
        if not type(error).__module__.startswith("mlflow"):
            raise
        return _stopped(parsed, f"MLflow: {error}", 1)
    return 0


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _stopped(parsed: argparse.Namespace, why: str, code: int) -> int:
    print(f"actionformer {parsed.command}: {' '.join(why.split())}", file=sys.stderr)
    return code


# ---------------------------------------------------------------------------------------------- commands


def run_demo_data(args: argparse.Namespace) -> None:
    from actionformer.data import demo, demo_checkpoint

    demo.write_all(args.out)
    demo_checkpoint.write_all(args.out)
    print(f"wrote the demo edition's publisher files under {args.out}")


def run_fetch(args: argparse.Namespace) -> None:
    from actionformer import stages

    if load_edition(args.edition, args.params).origin == "dvc":
        raise InputError(f"the files of the {args.edition} edition come with `dvc pull`, not from their publishers")
    dataset = load_dataset(args.dataset, args.edition, args.params)
    stages.fetch(
        dataset, args.dataset, args.edition, args.files or dataset.needed_files(), mirror=args.mirror,
        accepted=args.accepted, say=lambda line: print(line, flush=True),
    )  # fmt: skip


def run_plan(args: argparse.Namespace) -> None:
    from actionformer.data import plan

    rows = [
        load_experiment(name, args.edition, params=args.params) for name in args.rows or published_rows(args.params)
    ]
    print(plan.as_markdown(rows) if args.markdown else plan.as_text(rows), end="")


def run_convert(args: argparse.Namespace) -> None:
    from actionformer import stages

    if args.source is None:
        if args.out is not None or args.video_info is not None:
            raise InputError("--out and --video-info go with --source")
        print(stages.convert(*_dataset(args)))
    else:
        out = args.out or Path("annotations.json")
        print(stages.convert_folder(_dataset(args)[0], args.source, args.video_info, out))


def run_pack(args: argparse.Namespace) -> None:
    from actionformer import stages

    print(stages.pack(*_dataset(args), args.features))


def run_audit(args: argparse.Namespace) -> None:
    from actionformer import stages

    if args.annotations is None and args.source is None:
        args.edition = args.edition or "demo"
        stages.audit(_experiment(args), print)
        return
    dataset = load_dataset(args.row, args.edition or "paper", args.params)
    if args.features is not None and args.store is None:
        raise InputError("--features names a feature set; --store gives its packed file")
    store = None if args.store is None else (args.features or next(iter(dataset.features)), args.store)
    stages.audit_files(
        dataset, args.annotations, folder=args.source, video_info=args.video_info, store=store, classes=args.classes,
        out=args.out, say=print,
    )  # fmt: skip


def run_train(args: argparse.Namespace) -> None:
    from actionformer import stages

    experiment = _experiment(args)
    _use_threads(experiment)
    stages.train(experiment, args.seed, device=args.device, anew=args.anew, say=lambda line: print(line, flush=True))


def run_detect(args: argparse.Namespace) -> None:
    from actionformer import stages

    experiment = _experiment(args)
    _use_threads(experiment)
    print(stages.detect(experiment, args.seed, device=args.device))


def run_evaluate(args: argparse.Namespace) -> None:
    from actionformer import stages

    if args.annotations is None:
        percent = stages.evaluate(_experiment(args), args.seed)
    elif args.detections is None or args.subset is None:
        raise InputError("--annotations needs --detections and --subset, too")
    else:
        said, percent = stages.evaluate_files(
            args.annotations, args.detections, subset=args.subset, tiou=args.tiou, label_field=args.label_field,
            recall_top_k=args.recall_top_k, use_blocked_list=args.blocked, out=args.out,
        )  # fmt: skip
        print(said)
    print("\n".join(f"{key:<16} {value:6.2f}" for key, value in percent.items()))
    if args.annotations is not None:
        print(f"written to {args.out}")


def run_actions(args: argparse.Namespace) -> None:
    from actionformer import stages

    experiment = _experiment(args)
    _use_threads(experiment)
    print(stages.detect_actions(experiment, args.params, args.seed, device=args.device))


def run_evaluate_released(args: argparse.Namespace) -> None:
    from actionformer import stages

    experiment = _experiment(args)
    _use_threads(experiment)
    print(stages.evaluate_released(experiment, args.params, device=args.device))


def run_diagnose(args: argparse.Namespace) -> None:
    from actionformer import presentation

    said = presentation.report_files(
        args.annotations, args.detections, subset=args.subset, tiou=args.tiou, label_field=args.label_field,
        use_blocked_list=args.blocked, out=args.out,
    )  # fmt: skip
    for line in said:
        print(line)


def run_draw(args: argparse.Namespace) -> None:
    from actionformer import presentation

    experiment = _experiment(args)
    seeds = args.seeds or params_files.seeds_of(experiment, args.params)
    print(presentation.draw(experiment, seeds, videos=args.videos, released=args.released))


def run_predict(args: argparse.Namespace) -> None:
    from actionformer import outputs
    from actionformer.training.checkpoint import experiment_of

    _use_threads(experiment_of(args.weights))
    said = outputs.predict(
        args.weights, args.features, fps=args.fps, stride=args.stride, offset=args.offset, duration=args.duration,
        annotations=args.annotations, subset=args.subset, classifier=args.classifier, device=args.device,
        min_score=args.min_score, pictures=args.pictures, out=args.out,
    )  # fmt: skip
    print("\n".join(said))


def run_card(args: argparse.Namespace) -> None:
    from actionformer import presentation

    experiment = _experiment(args)
    print(
        presentation.write_card(experiment, args.seeds or params_files.seeds_of(experiment, args.params), args.params)
    )


def run_export(args: argparse.Namespace) -> None:
    from actionformer import layout, outputs

    experiment = _experiment(args)
    if args.form == "onnx":
        weights = layout.run(experiment.edition, experiment.name, args.seed) / "model.pt"
        out = args.out or weights.with_name("model.onnx")
        print(outputs.export_onnx(args.weights or weights, length=args.length, out=out))
    elif args.check is not None:
        print(outputs.check_submission(args.form, experiment, args.check, subset=args.subset))
    else:
        out = args.out or Path(f"{experiment.name}-{args.form}.json")
        said = outputs.export(
            args.form, experiment, args.seed, subset=args.subset, detections=args.detections,
            external_data=args.external_data, levels=args.sls, out=out,
        )  # fmt: skip
        print(said)


def run_timeline(args: argparse.Namespace) -> None:
    from actionformer import presentation

    presentation.timeline(_experiment(args), args.seed, args.video, min_score=args.min_score, out=args.out)
    print(args.out)


def run_tabulate(args: argparse.Namespace) -> None:
    from actionformer import presentation

    rows, seeds = _rows(args)
    chosen = [row for row in rows if args.table in (None, row.table)]
    if not chosen:
        raise InputError(
            f"no row belongs to table '{args.table}'; there are {', '.join(dict.fromkeys(row.table for row in rows))}"
        )
    print("\n".join(presentation.tabulate(chosen, seeds, args.params, released=args.released)))


def run_page(args: argparse.Namespace) -> None:
    from actionformer import presentation

    print(presentation.page(args.edition, args.tables))


def run_report(args: argparse.Namespace) -> None:
    from actionformer import presentation

    rows, seeds = _rows(args)
    print(presentation.write_report(rows, seeds, args.params, released=args.released))


def run_status(args: argparse.Namespace) -> None:
    from actionformer import status

    rows, seeds = _rows(args)
    cost = args.cost or load_edition(args.edition, args.params).origin == "publisher"
    print(status.as_text(rows, seeds, released=args.released, cost=cost), end="")


def run_adopt(args: argparse.Namespace) -> None:
    from actionformer.adopt import adopt

    rows, seeds = _rows(args)
    config = [f"params={args.params}", f"seeds={','.join(map(str, seeds))}"]
    if rows[0].edition == params_files.OWN:
        config += [f"experiment={args.rows[0]}", *([f"dataset={args.dataset}"] if args.dataset else [])]
    else:
        config += [f"edition={args.edition}", f"rows={','.join(row.name for row in rows)}"]
    if not args.released:
        config.append("released=false")
    adopt(rows, seeds, config, released=args.released, say=print)


def run_track(args: argparse.Namespace) -> None:
    from actionformer import tracking

    print(f"{tracking.restore(args.results)} runs brought into MLflow")
    if args.stamp is not None:
        write_json(args.stamp, {"generation": args.generation})


def run_runs(args: argparse.Namespace) -> None:
    from actionformer import tracking

    lines = tracking.addresses(args.edition, args.address.rstrip("/"))
    print("\n".join(lines) or f"no run of the {args.edition} edition in MLflow; `actionformer track` brings them in")


def run_params(args: argparse.Namespace) -> None:
    if args.schemas is not None:
        for name, text in params_files.schemas().items():
            write_text(args.schemas / name, text)
        return
    print(params_files.as_yaml(_experiment(args)), end="")


def _rows(args: argparse.Namespace) -> tuple[list[Experiment], Sequence[int]]:
    """The rows of a table or report, and their seeds."""
    rows = [
        load_experiment(name, args.edition, dataset=args.dataset, params=args.params)
        for name in args.rows or published_rows(args.params)
    ]
    return rows, args.seeds or params_files.seeds_of(rows[0], args.params)


def _experiment(args: argparse.Namespace) -> Experiment:
    if args.row is None:
        raise InputError("name a row, or the path of an experiment's YAML file")
    return load_experiment(args.row, args.edition, dataset=args.dataset, params=args.params)


def _use_threads(experiment: Experiment) -> None:
    """A job uses as many threads as its params say: only commands set that, for the whole process."""
    from actionformer.training.device import prepare_cpu

    prepare_cpu(experiment.training.threads)


def _dataset(args: argparse.Namespace) -> tuple[Dataset, str, str]:
    """A data set, its name and its edition: 'own' for one given by path."""
    own = args.dataset.endswith((".yaml", ".yml"))
    dataset = load_dataset(args.dataset, args.edition, args.params)
    return dataset, Path(args.dataset).stem, params_files.OWN if own else args.edition


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

    def seeds(sub: argparse.ArgumentParser) -> None:
        text = "seeds (default: those of the edition)"
        sub.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help=text)
        text = "without the published checkpoints"
        sub.add_argument("--no-released", dest="released", action="store_false", help=text)

    def scored(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--tiou", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7], help="tIoU thresholds")
        sub.add_argument("--label-field", default="label", help="noun or verb in EPIC's database (default: label)")
        text = "evaluate the videos of the database's blocked list, too (default: without them, as published)"
        sub.add_argument("--no-blocked", dest="blocked", action="store_false", help=text)

    def rows(sub: argparse.ArgumentParser) -> None:
        edition(sub)
        sub.add_argument("--rows", nargs="+", metavar="ROW", help="rows (default: all)")
        sub.add_argument("--dataset", help="data set to use instead of the rows' (name or path of a YAML file)")
        seeds(sub)

    sub = command("demo-data", run_demo_data, "write the demo edition's publisher files")
    sub.add_argument("--out", type=Path, default=Path("data/demo"), help="folder to write (default: data/demo)")

    sub = command("fetch", run_fetch, "download a data set's files from their publishers")
    sub.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets")
    sub.add_argument("--files", nargs="+", metavar="FILE", help="only these (default: all)")
    sub.add_argument("--mirror", help="folder or http address that holds the same files; tried first")
    sub.add_argument("--accepted", action="store_true", help="you hold the licences that gated files need")
    edition(sub)
    sub.set_defaults(edition="paper")

    sub = command("plan", run_plan, "what each row needs: files, sources, sizes, what is gated, and the disk it takes")
    sub.add_argument("rows", metavar="ROW", nargs="*", help="rows (default: all)")
    sub.add_argument("--markdown", action="store_true", help="the table of docs/data.md")
    edition(sub)
    sub.set_defaults(edition="paper")

    sub = command("convert", run_convert, "publisher's annotations -> the one database")
    sub.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets, or the path of a YAML file")
    edition(sub)
    sub.add_argument(
        "--source", type=Path, help="folder with annotation files in any form (default: the edition's files)"
    )
    sub.add_argument("--video-info", type=Path, help="with --source: csv or JSON of durations, which THUMOS files lack")
    sub.add_argument("--out", type=Path, help="with --source: database to write (default: annotations.json)")

    sub = command("pack", run_pack, "publisher's features -> one HDF5 store")
    sub.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets, or the path of a YAML file")
    sub.add_argument("features", metavar="FEATURES", help="one of its feature sets")
    edition(sub)

    sub = command("audit", run_audit, "check annotations and features against each other and what is published of them")
    row(sub, seed=False)
    sub.add_argument("--annotations", type=Path, help="audit this database file; ROW is then a data set's name")
    sub.add_argument("--source", type=Path, help="or convert this folder of annotation files first")
    sub.add_argument("--video-info", type=Path, help="with --source: csv or JSON of durations")
    sub.add_argument("--features", help="with --store: the feature set's name (default: the data set's first)")
    sub.add_argument("--store", type=Path, help="packed features to compare with")
    sub.add_argument("--classes", type=Path, help="published class list to compare the order with")
    sub.add_argument("--out", type=Path, default=Path("audit.json"), help="JSON report (default: audit.json)")
    sub.set_defaults(edition=None)  # demo for a row, paper for a file

    sub = command("train", run_train, "train a row with one seed, or go on with it")
    row(sub, seed=True)
    device(sub)
    text = "start over; what lies in the run's folder is kept under earlier/"
    sub.add_argument("--anew", action="store_true", help=text)

    sub = command("detect", run_detect, "run a trained row over its evaluated videos")
    row(sub, seed=True)
    device(sub)

    sub = command("evaluate", run_evaluate, "score a row's detections, or any two files in the published form")
    row(sub, seed=True, optional=True)
    sub.add_argument("--annotations", type=Path, help="a database file, instead of a row")
    sub.add_argument("--detections", type=Path, help="a result file {'results': {video: [...]}}")
    sub.add_argument("--subset", help="the subset to evaluate")
    scored(sub)
    text = "also recall at k times the ground truth of a video and class, as for Ego4D (such as 1 5)"
    sub.add_argument("--recall-top-k", type=int, nargs="+", default=[], metavar="K", help=text)
    sub.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation.json"),
        help="of --annotations: JSON to write (default: evaluation.json)",
    )

    sub = command("actions", run_actions, "fuse a row of nouns with its row of verbs, and score the actions")
    row(sub, seed=True)
    device(sub)

    sub = command("evaluate-released", run_evaluate_released, "score a row's published checkpoint, without training")
    row(sub, seed=False)
    device(sub)

    sub = command("predict", run_predict, "detect actions in feature files with trained weights")
    sub.add_argument("--weights", type=Path, required=True, help="a model.pt; it says the classes and the params")
    sub.add_argument(
        "--features", type=Path, nargs="+", required=True, help="npy, npz, pt or h5 files, folders, archives, stores"
    )
    sub.add_argument("--fps", type=float, help="frames per second of the videos (default: as trained, if all alike)")
    sub.add_argument("--stride", type=float, help="frames between two steps (default: as trained)")
    sub.add_argument("--offset", type=float, help="frame at the centre of step 0 (default: as trained, or stride / 2)")
    sub.add_argument("--duration", type=float, help="seconds, of a single video (default: as far as its features go)")
    sub.add_argument("--annotations", type=Path, help="a database file: only its videos, with their durations")
    sub.add_argument("--subset", help="with --annotations: only the videos of this subset")
    sub.add_argument("--classifier", type=Path, help="scores of whole videos, for class-agnostic weights")
    sub.add_argument("--no-pictures", dest="pictures", action="store_false", help="subtitles without pictures")
    sub.add_argument("--min-score", type=float, default=0.2, help="of subtitles and pictures (default: 0.2)")
    sub.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write (default: predictions)")
    device(sub)

    sub = command("card", run_card, "a row's model card, from the runs of all seeds")
    row(sub, seed=False)
    seeds(sub)

    text = (
        "a submission to ActivityNet, EPIC-Kitchens or Ego4D Moment Queries, validated; or the network as ONNX, checked"
    )
    sub = command("export", run_export, text)
    sub.add_argument("form", choices=["activitynet", "epic", "ego4d", "onnx"], help="what to write")
    row(sub, seed=True)
    sub.add_argument("--out", type=Path, help="file to write (default: ROW-FORM.json, or model.onnx beside model.pt)")
    sub.add_argument("--detections", type=Path, help="JSON of `predict` to submit (default: the row's detections)")
    sub.add_argument("--subset", help="whose videos have to be there (default: the evaluated subset)")
    sub.add_argument("--check", type=Path, metavar="FILE", help="validate this submission instead of writing one")
    sub.add_argument("--external-data", metavar="TEXT", help="activitynet: external data used (default: the features)")
    text = "epic: supervision of pretraining, labels and data, 0 to 5 each (default: 2 3 3)"
    sub.add_argument(
        "--sls", type=int, nargs=3, choices=range(6), default=[2, 3, 3], metavar=("PT", "TL", "TD"), help=text
    )
    sub.add_argument("--weights", type=Path, help="onnx: a model.pt (default: the row's)")
    sub.add_argument("--length", type=int, help="onnx: steps of the longest video (default: the params' max_seq_len)")

    sub = command("timeline", run_timeline, "picture of a video's ground truth and detections")
    row(sub, seed=True)
    sub.add_argument("--video", required=True, help="a video of the evaluated subset")
    sub.add_argument("--min-score", type=float, help="from this score on (default: as many as there is ground truth)")
    sub.add_argument("--out", type=Path, default=Path("timeline.png"), help="png, svg or pdf (default: timeline.png)")

    sub = command(
        "diagnose", run_diagnose, "a report on any detections in the published form: why they fail, and where"
    )
    sub.add_argument("--annotations", type=Path, required=True, help="a database file")
    sub.add_argument("--detections", type=Path, required=True, help="a result file {'results': {video: [...]}}")
    sub.add_argument("--subset", required=True, help="the subset to evaluate")
    scored(sub)
    sub.add_argument("--out", type=Path, default=Path("diagnosis.html"), help="page to write (default: diagnosis.html)")

    sub = command("draw", run_draw, "the figures of a row, from the runs of all seeds")
    row(sub, seed=False)
    seeds(sub)
    sub.add_argument("--videos", nargs="+", default=[], metavar="VIDEO", help="show these before the worst and best")

    sub = command("tabulate", run_tabulate, "results tables, from the metrics of all seeds")
    rows(sub)
    sub.add_argument("--table", help="only this table (default: all)")

    sub = command("report", run_report, "one page with all tables and the drawn figures of every row")
    rows(sub)

    sub = command("page", run_page, "one page with the named tables")
    edition(sub)
    sub.add_argument("tables", nargs="+", metavar="TABLE", help="tables, in order")

    text = "take over results of an earlier version, or a copy of results, where they are up to date"
    sub = command("adopt", run_adopt, text)
    rows(sub)

    sub = command("track", run_track, "bring finished run folders into MLflow, where it lacks them")
    sub.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    sub.add_argument("--stamp", type=Path, help="file to write when it is done, for the workflow")
    sub.add_argument("--generation", type=int, default=1, help="kept in the stamp (default: 1)")

    sub = command("runs", run_runs, "the addresses under which `mlflow ui` lists and compares the runs of every table")
    sub.add_argument("--edition", default="demo", help="demo, paper, own, ... (default: demo)")
    sub.add_argument("--address", default="http://127.0.0.1:5000", help="of mlflow ui (default: http://127.0.0.1:5000)")

    sub = command("status", run_status, "which rows are done, running or missing, what is next, and what it will take")
    rows(sub)
    sub.add_argument("--cost", action="store_true", help="hours and disk per row (always shown for the paper edition)")

    sub = command("params", run_params, "print a row with every value resolved")
    row(sub, seed=False, optional=True)
    sub.add_argument("--schemas", type=Path, help="write the JSON Schemas of all params files to this folder instead")
    return parser
