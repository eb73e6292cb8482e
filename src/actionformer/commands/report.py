"""Pages and pictures (draw, timeline, diagnose, card, tabulate, page, report), what they need
beside the runs (bootstrap), and MLflow runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from actionformer import layout
from actionformer.commands.options import (
    Command,
    chosen_row,
    chosen_rows,
    chosen_seeds,
    edition_options,
    files_options,
    row_options,
    rows_options,
    seed_option,
    seeds_options,
)
from actionformer.errors import InputError
from actionformer.params.experiment import EvaluationParams


def draw_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    seeds_options(parser)
    text = "show these before the worst and best"
    parser.add_argument("--videos", nargs="+", default=[], metavar="VIDEO", help=text)


def draw(args: argparse.Namespace) -> None:
    from actionformer.stages import figures as stage

    experiment = chosen_row(args)
    seeds = chosen_seeds(args, experiment)
    print(stage.draw(experiment, seeds, videos=args.videos, released=args.released))


def bootstrap_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    seeds_options(parser)


def bootstrap(args: argparse.Namespace) -> None:
    from actionformer.stages import bootstrap as stage

    experiment = chosen_row(args)
    seeds = chosen_seeds(args, experiment)
    print(stage.bootstrap(experiment, seeds, released=args.released))


def timeline_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    seed_option(parser)
    parser.add_argument("--video", required=True, help="a video of the evaluated subset")
    text = "from this score on (default: as many as there is ground truth)"
    parser.add_argument("--min-score", type=float, help=text)
    text = f"png, svg or pdf (default: {layout.TIMELINES}/ROW-VIDEO.png)"
    parser.add_argument("--out", type=Path, help=text)


def timeline(args: argparse.Namespace) -> None:
    from actionformer.stages import figures as stage

    experiment = chosen_row(args)
    usual = layout.TIMELINES / f"{experiment.name}-{args.video.replace('/', '_')}.png"
    out = args.out or usual
    stage.timeline(experiment, args.seed, args.video, min_score=args.min_score, out=out)
    print(out)


def diagnose_options(parser: argparse.ArgumentParser) -> None:
    files_options(parser, required=True)
    text = f"page to write (default: {layout.DIAGNOSES}/DETECTIONS.html)"
    parser.add_argument("--out", type=Path, help=text)


def diagnose(args: argparse.Namespace) -> None:
    from actionformer.stages import figures as stage

    said = stage.report_files(
        args.annotations,
        args.detections,
        EvaluationParams(tiou=args.tiou, use_blocked_list=args.blocked),
        subset=args.subset,
        label_field=args.label_field,
        out=args.out or layout.DIAGNOSES / f"{args.detections.stem}.html",
    )
    print("\n".join(said))


def compare_options(parser: argparse.ArgumentParser) -> None:
    text = "folder of a run (results/EDITION/ROW/seed0), or of a row with all its seeds"
    parser.add_argument("first", type=Path, metavar="A", help=text)
    parser.add_argument("second", type=Path, metavar="B", help="the same")
    text = f"page to write (default: {layout.COMPARISONS}/A-B.html)"
    parser.add_argument("--out", type=Path, help=text)


def compare(args: argparse.Namespace) -> None:
    from actionformer.stages import compare as stage

    names = [folder.as_posix().replace("/", "_") for folder in (args.first, args.second)]
    names = [name.removeprefix("results_") for name in names]
    out = args.out or layout.COMPARISONS / f"{names[0]}-{names[1]}.html"
    print("\n".join(stage.compare(args.first, args.second, out=out)))


def card_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    seeds_options(parser)


def card(args: argparse.Namespace) -> None:
    from actionformer.stages import report as stage

    experiment = chosen_row(args)
    print(stage.write_card(experiment, chosen_seeds(args, experiment), args.params))


def tabulate_options(parser: argparse.ArgumentParser) -> None:
    rows_options(parser)
    parser.add_argument("--table", help="only this table (default: all)")


def tabulate(args: argparse.Namespace) -> None:
    from actionformer.stages import report as stage

    rows, seeds = chosen_rows(args)
    chosen = [row for row in rows if args.table in (None, row.table)]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.table for row in rows))
        raise InputError(f"no row belongs to table '{args.table}'; there are {known}")
    print("\n".join(stage.tabulate(chosen, seeds, args.params, released=args.released)))


def page_options(parser: argparse.ArgumentParser) -> None:
    edition_options(parser)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="tables, in order")


def page(args: argparse.Namespace) -> None:
    from actionformer.stages import report as stage

    print(stage.page(args.edition, args.tables))


def report(args: argparse.Namespace) -> None:
    from actionformer.stages import report as stage

    rows, seeds = chosen_rows(args)
    print(stage.write_report(rows, seeds, args.params, released=args.released))


def track_options(parser: argparse.ArgumentParser) -> None:
    text = "folder of results (default: results)"
    parser.add_argument("--results", type=Path, default=Path("results"), help=text)
    text = "file to write when it is done, for the workflow"
    parser.add_argument("--stamp", type=Path, help=text)
    text = "kept in the stamp (default: 1)"
    parser.add_argument("--generation", type=int, default=1, help=text)


def track(args: argparse.Namespace) -> None:
    from actionformer.stages import report as stage

    print(stage.track(args.results, args.stamp, args.generation))


def runs_options(parser: argparse.ArgumentParser) -> None:
    text = "demo, paper, own, ... (default: demo)"
    parser.add_argument("--edition", default="demo", help=text)
    address = "http://127.0.0.1:5000"
    text = f"of mlflow ui (default: {address})"
    parser.add_argument("--address", default=address, help=text)


def runs(args: argparse.Namespace) -> None:
    from actionformer.stages import report as stage

    print(stage.runs(args.edition, args.address))


COMMANDS = (
    Command("draw", "the figures of a row, from the runs of all seeds", draw_options, draw),
    Command(
        "bootstrap",
        "how much of a row's numbers is luck with its videos, and against the published checkpoint",
        bootstrap_options,
        bootstrap,
    ),
    Command(
        "timeline",
        "picture of a video's ground truth and detections",
        timeline_options,
        timeline,
    ),
    Command(
        "diagnose",
        "a report on any detections in the published form: why they fail, and where",
        diagnose_options,
        diagnose,
    ),
    Command(
        "compare",
        "two runs, seeds or rows side by side: differences per class, error, video, and chance",
        compare_options,
        compare,
    ),
    Command("card", "a row's model card, from the runs of all seeds", card_options, card),
    Command(
        "tabulate",
        "results tables, from the metrics of all seeds",
        tabulate_options,
        tabulate,
    ),
    Command("page", "one page with the named tables", page_options, page),
    Command(
        "report",
        "one page with all tables and the drawn figures of every row",
        rows_options,
        report,
    ),
    Command(
        "track",
        "bring finished runs into MLflow, where it lacks them, and figures, tables and model cards",
        track_options,
        track,
    ),
    Command(
        "runs",
        "the addresses under which `mlflow ui` lists and compares the runs of every table",
        runs_options,
        runs,
    ),
)
