"""Detections and their scores: detect, evaluate, actions, evaluate-released, classify."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from actionformer import layout
from actionformer.commands.options import (
    TIOU,
    Command,
    chosen_machine,
    chosen_row,
    files_options,
    machine_options,
    row_options,
    say,
    seed_option,
    use_threads,
    whole_number,
)
from actionformer.errors import InputError
from actionformer.params.experiment import EvaluationParams
from actionformer.params.files import load_edition


def run_options(parser: argparse.ArgumentParser) -> None:
    """A row with one seed, and what it runs on."""
    row_options(parser)
    seed_option(parser)
    machine_options(parser)


def detect(args: argparse.Namespace) -> None:
    from actionformer.stages import detect as stage

    experiment = chosen_row(args)
    use_threads(experiment)
    print(stage.detect(experiment, args.seed, **chosen_machine(args)))


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser, optional=True)
    seed_option(parser)
    files_options(parser, required=False)
    text = (
        "also recall at k times the ground truth of a video and class, as for Ego4D (such as 1 5)"
    )
    parser.add_argument(
        "--recall-top-k", type=whole_number, nargs="+", default=[], metavar="K", help=text
    )
    text = f"of --annotations: JSON to write (default: {layout.EVALUATIONS}/DETECTIONS.json)"
    parser.add_argument("--out", type=Path, help=text)


def evaluate(args: argparse.Namespace) -> None:
    if args.annotations is not None and args.row is not None:
        raise InputError("a row has its own files: name one, or give --annotations, not both")
    if args.annotations is None:
        _refuse_of_files(args)
        _evaluate_row(args)
        return
    if args.detections is None or args.subset is None:
        raise InputError("--annotations needs --detections and --subset, too")
    from actionformer.stages import evaluate as stage

    params = EvaluationParams(
        tiou=args.tiou, recall_top_k=args.recall_top_k, use_blocked_list=args.blocked
    )
    out = args.out or layout.EVALUATIONS / f"{args.detections.stem}.json"
    said, percent = stage.evaluate_files(
        args.annotations,
        args.detections,
        params,
        subset=args.subset,
        label_field=args.label_field,
        out=out,
    )
    print(said)
    _print_percent(percent)
    print(f"written to {out}")


def _evaluate_row(args: argparse.Namespace) -> None:
    experiment = chosen_row(args)
    from actionformer.stages import evaluate as stage

    _print_percent(stage.evaluate(experiment, args.seed))


def _refuse_of_files(args: argparse.Namespace) -> None:
    """A row has files and params of its own."""
    given = {
        "--detections": args.detections is not None,
        "--subset": args.subset is not None,
        "--tiou": args.tiou != TIOU,
        "--recall-top-k": bool(args.recall_top_k),
        "--label-field": args.label_field != "label",
        "--no-blocked": not args.blocked,
        "--out": args.out is not None,
    }
    wrong = [option for option, is_given in given.items() if is_given]
    if wrong:
        raise InputError(
            f"{', '.join(wrong)}: of --annotations; a row's own stand in its params. To score "
            "its detections otherwise, name the files: --annotations build/EDITION/DATASET/"
            "annotations.json --detections RUN/detections.json --subset SUBSET"
        )


def _print_percent(percent: dict[str, float]) -> None:
    for key, value in percent.items():
        print(f"{key:<16} {value:6.2f}")


def actions(args: argparse.Namespace) -> None:
    from actionformer.stages import actions as stage

    experiment = chosen_row(args)
    use_threads(experiment)
    machine = chosen_machine(args)
    print(stage.detect_actions(experiment, args.params, args.seed, **machine))


def evaluate_released_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    machine_options(parser)


def evaluate_released(args: argparse.Namespace) -> None:
    from actionformer.stages import released as stage

    experiment = chosen_row(args)
    use_threads(experiment)
    machine = chosen_machine(args)
    said, percent = stage.evaluate_released(experiment, args.params, **machine)
    print(said)
    _print_percent(percent)
    tolerance = load_edition(experiment.edition, args.params).released_tolerance
    beside, is_far = stage.beside_published(experiment, tolerance)
    if experiment.comparable and beside and not is_far:
        print(beside)
    if is_far:
        # into the log, and to whoever started the job
        warning = f"{experiment.name}: {beside}, {stage.what_to_check(experiment)}"
        print(warning, file=sys.stderr)


def classify_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    text = "features of new videos: files, folders, archives (default: the row's evaluated videos)"
    parser.add_argument("--on", type=Path, nargs="+", default=[], metavar="FILE", help=text)
    text = f"JSON to write (default: {layout.CLASSIFIED}/ROW.json)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)


def classify(args: argparse.Namespace) -> None:
    for path in args.on:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    experiment = chosen_row(args)
    from actionformer.stages.classify import classify as stage

    use_threads(experiment)
    out = args.out or layout.CLASSIFIED / f"{experiment.name}.json"
    stage(experiment, args.on, out, say=say)


COMMANDS = (
    Command("detect", "run a trained row over its evaluated videos", run_options, detect),
    Command(
        "evaluate",
        "score a row's detections, or any two files in the published form",
        evaluate_options,
        evaluate,
    ),
    Command(
        "actions",
        "fuse a row of nouns with its row of verbs, and score the actions",
        run_options,
        actions,
    ),
    Command(
        "classify",
        "score whole videos with a linear probe, for class-agnostic rows on new videos",
        classify_options,
        classify,
    ),
    Command(
        "evaluate-released",
        "score a row's published checkpoint, without training",
        evaluate_released_options,
        evaluate_released,
    ),
)
