"""From raw files to what training reads: convert, pack, audit."""

from __future__ import annotations

import argparse
from pathlib import Path

from actionformer import layout
from actionformer.commands.options import (
    Command,
    chosen_dataset,
    chosen_row,
    dataset_argument,
    edition_options,
    row_options,
    say,
)
from actionformer.errors import InputError
from actionformer.params.files import PARAMS, load_dataset


def convert_options(parser: argparse.ArgumentParser) -> None:
    dataset_argument(parser)
    edition_options(parser)
    text = "folder with annotation files in any form (default: the edition's files)"
    parser.add_argument("--source", type=Path, help=text)
    text = "with --source: csv or JSON of durations, which THUMOS files lack"
    parser.add_argument("--video-info", type=Path, help=text)
    text = f"with --source: database to write (default: {layout.CONVERTED}/DATASET.json)"
    parser.add_argument("--out", type=Path, help=text)


def convert(args: argparse.Namespace) -> None:
    from actionformer.stages import build as stage

    dataset, name, edition = chosen_dataset(args)
    if args.source is not None:
        out = args.out or layout.CONVERTED / f"{name}.json"
        print(stage.convert_source(dataset, args.source, args.video_info, out))
    elif args.out is not None or args.video_info is not None:
        raise InputError("--out and --video-info go with --source")
    else:
        print(stage.convert(dataset, name, edition))


def pack_options(parser: argparse.ArgumentParser) -> None:
    dataset_argument(parser)
    parser.add_argument("features", metavar="FEATURES", help="one of its feature sets")
    edition_options(parser)


def pack(args: argparse.Namespace) -> None:
    from actionformer.stages import build as stage

    print(stage.pack(*chosen_dataset(args), args.features))


def audit_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser, edition=None)
    text = "audit this database file; ROW is then a data set's name"
    parser.add_argument("--annotations", type=Path, help=text)
    text = "or convert this folder of annotation files first"
    parser.add_argument("--source", type=Path, help=text)
    text = "with --source: csv or JSON of durations"
    parser.add_argument("--video-info", type=Path, help=text)
    text = "with --store: the feature set's name (default: the data set's first)"
    parser.add_argument("--features", help=text)
    parser.add_argument("--store", type=Path, help="packed features to compare with")
    text = "published class list to compare the order with"
    parser.add_argument("--classes", type=Path, help=text)
    text = "JSON report (default: audit.json)"
    parser.add_argument("--out", type=Path, default=Path("audit.json"), help=text)


def audit(args: argparse.Namespace) -> None:
    from actionformer.stages import build as stage

    if args.annotations is None and args.source is None:
        args.edition = args.edition or "demo"
        stage.audit(chosen_row(args), print)
        return
    dataset = load_dataset(args.row, args.edition or "paper", args.params)
    if args.features is not None and args.store is None:
        raise InputError("--features names a feature set; --store gives its packed file")
    given = stage.Audited(
        annotations=args.annotations,
        folder=args.source,
        video_info=args.video_info,
        features=args.features,
        store=args.store,
        classes=args.classes,
    )
    stage.audit_files(dataset, given, out=args.out, say=print)


def init_options(parser: argparse.ArgumentParser) -> None:
    text = "a folder with annotations (JSON) and features (a folder, an archive or h5)"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=text)


def init(args: argparse.Namespace) -> None:
    from actionformer.stages import init as stage

    stage.init(args.folder, say=say)


def suggest_options(parser: argparse.ArgumentParser) -> None:
    text = "a database file (docs/own-dataset.md)"
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS", help=text)
    text = "a folder, an archive or an h5 file of features"
    parser.add_argument("--features", type=Path, required=True, metavar="FOLDER", help=text)
    text = (
        "folder of the two YAML files and the picture, which are called after it (default: that of "
        "the annotations)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    text = (
        "name or YAML file of the extractor that made the features (default: as they say "
        "themselves, which is no path); they must say so"
    )
    parser.add_argument("--extractor", metavar="NAME", help=text)
    text = "folder of params (default: the checkout's)"
    parser.add_argument("--params", type=Path, default=PARAMS, help=text)


def suggest(args: argparse.Namespace) -> None:
    from actionformer.stages import init as stage

    for path in (args.annotations, args.features):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    out = args.out or args.annotations.parent
    stage.suggest_for(
        args.annotations, args.features, out, extractor=args.extractor, params=args.params, say=say
    )


COMMANDS = (
    Command(
        "suggest",
        "what has to be set for a data set of your own, from its annotations and features",
        suggest_options,
        suggest,
    ),
    Command(
        "init",
        "write the two YAML files of a data set of your own, from what lies in a folder",
        init_options,
        init,
    ),
    Command("convert", "publisher's annotations -> the one database", convert_options, convert),
    Command("pack", "publisher's features -> one HDF5 store", pack_options, pack, resumes=True),
    Command(
        "audit",
        "check annotations and features against each other and what is published of them",
        audit_options,
        audit,
    ),
)
