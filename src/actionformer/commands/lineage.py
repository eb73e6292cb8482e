"""Where numbers come from, and whether they still stand: trace, verify, archive, rebuild,
share.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from actionformer.commands.options import (
    Command,
    chosen_row,
    device_option,
    edition_options,
    opened_cache,
    row_options,
    say,
    seed_option,
    use_threads,
)
from actionformer.errors import InputError
from actionformer.params.files import PARAMS


def verify_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser, optional=True)
    seed_option(parser)
    device_option(parser)
    text = (
        "train the row again, with --seed, and compare weights and detections bit for bit, which "
        "only the same kind of device can repeat"
    )
    parser.add_argument("--rerun", action="store_true", help=text)
    text = "check an archive, and compute again what it holds, from nothing else"
    parser.add_argument("--archive", type=Path, metavar="FILE.zip", help=text)


def verify(args: argparse.Namespace) -> None:
    if args.rerun != (args.row is not None):
        raise InputError("a row goes with --rerun, which trains it again: verify --rerun ROW")
    if args.archive is not None and args.rerun:
        raise InputError("--archive holds no features to train with; --rerun is of a row here")
    if args.rerun:
        _rerun(args)
        return
    from actionformer.stages import archive as archives
    from actionformer.stages import verify as stage

    began = time.monotonic()
    if args.archive is not None:
        found = archives.verify_archive(args.archive)
    else:
        found = stage.verify(args.edition)
    for remark in [*found.unchecked, *found.remarks]:
        print(remark)
    for mismatch in found.mismatches:
        print(mismatch, file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"{found.numbers:,} numbers in {found.files} files computed again, {seconds:.0f} s")
    _refuse_mismatches(len(found.mismatches))
    print("every one is what its inputs give")
    if found.unchecked:
        print(f"{len(found.unchecked)} not checked: they need annotations")


def _rerun(args: argparse.Namespace) -> None:
    from actionformer.stages import retrain as stage

    experiment = chosen_row(args)
    use_threads(experiment)
    different = stage.train_again(
        experiment, args.seed, device=args.device, gpu_slots=args.gpu_slots, say=say
    )
    for line in different:
        print(line, file=sys.stderr)
    _refuse_mismatches(len(different))
    print(f"{experiment.name}, seed {args.seed}: the same weights and detections, bit for bit")


def _refuse_mismatches(count: int) -> None:
    if count:
        raise InputError(f"{count} mismatch{'' if count == 1 else 'es'}; each has a line above")


def trace_options(parser: argparse.ArgumentParser) -> None:
    text = (
        "a table in any form, a figure, a model card, the report, a row's or run's folder, a file "
        "of a run, or the id of a run in MLflow"
    )
    parser.add_argument("subject", nargs="?", metavar="NUMBER", help=text)
    text = "instead: every number that stands on this file, of data or of params"
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="for programs")
    text = "folder of params (default: the checkout's)"
    parser.add_argument("--params", type=Path, default=PARAMS, help=text)


def trace(args: argparse.Namespace) -> None:
    if (args.subject is None) == (args.source is None):
        raise InputError("expected a number to trace back, or --from FILE to trace forward")
    from actionformer.reporting import lineage_tree
    from actionformer.stages import trace as stage

    if args.subject is not None:
        root = stage.trace(args.subject)
        text = lineage_tree.as_text(root).rstrip()
        print(_json(lineage_tree.as_json(root)) if args.json else text)
        return
    standing = stage.standing_on(args.source, args.params)
    if args.json:
        print(_json([{**asdict(item), "path": str(item.path)} for item in standing]))
        return
    for item in standing:
        average = f"  average mAP {item.average}" if item.average else ""
        still = f"outdated: {item.outdated}" if item.outdated else "stands"
        print(f"{item.path}{average}  {still}")


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)


def archive_options(parser: argparse.ArgumentParser) -> None:
    edition_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.zip", help="to write")
    text = "model.pt of every run, or of none (default: all)"
    parser.add_argument("--weights", choices=("all", "none"), default="all", help=text)


def archive(args: argparse.Namespace) -> None:
    from actionformer.stages import archive as stage

    print(stage.archive(args.edition, args.out, args.weights, args.params))


def rebuild_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, help="what `actionformer archive` has written")


def rebuild(args: argparse.Namespace) -> None:
    from actionformer.stages import archive as stage

    print("\n".join(stage.rebuild(args.archive)))


def share_options(parser: argparse.ArgumentParser) -> None:
    text = "folder or bucket (s3://...), as of --config cache="
    parser.add_argument("cache", metavar="ADDRESS", help=text)
    edition_options(parser)


def share(args: argparse.Namespace) -> None:
    from actionformer.stages import share as stage

    cache = opened_cache(args.cache)
    there, count = stage.share(cache, args.edition)
    print(f"{args.cache}: has {there} of {count} finished products of the {args.edition} edition")
    if there < count:
        raise InputError(f"{count - there} not shared; each has a line above")


COMMANDS = (
    Command(
        "archive",
        "an edition's results as one file, an RO-Crate that can be checked and built from",
        archive_options,
        archive,
    ),
    Command(
        "rebuild",
        "tables, cards and report of an archive, in this folder, without features or a GPU",
        rebuild_options,
        rebuild,
    ),
    Command(
        "share",
        "put an edition's finished runs into a cache of results, from which others fetch them",
        share_options,
        share,
    ),
    Command(
        "trace",
        "what made a number: runs, weights, seeds, commits, data; or what stands on a file",
        trace_options,
        trace,
    ),
    Command(
        "verify",
        "compute metrics, tables, cards, figures and the report again, and compare every digit",
        verify_options,
        verify,
        resumes=True,
    ),
)
