"""Raw files: demo-data, fetch, plan."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from actionformer.commands.options import Command, edition_options, say, whole_number
from actionformer.errors import InputError
from actionformer.params.experiment import Experiment
from actionformer.params.files import (
    load_dataset,
    load_edition,
    load_experiment,
    load_extractor,
    published_rows,
    seeds_of,
)


def demo_data_options(parser: argparse.ArgumentParser) -> None:
    text = "folder to write (default: data/demo)"
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help=text)


def demo_data(args: argparse.Namespace) -> None:
    from actionformer.stages import fetch as stage

    print(stage.demo_data(args.out))


def rehearse_options(parser: argparse.ArgumentParser) -> None:
    text = "rows of params/experiments (default: all)"
    parser.add_argument("rows", metavar="ROW", nargs="*", help=text)
    text = "the mirror to write: a folder (default: build/rehearsal-mirror)"
    parser.add_argument("--out", type=Path, default=Path("build/rehearsal-mirror"), help=text)
    text = "only so many training and so many evaluated videos of every data set (default: all)"
    parser.add_argument("--videos", type=whole_number, metavar="N", help=text)
    text = (
        "folder with real annotations, one folder per data set; what it lacks is drawn to the "
        "published counts"
    )
    parser.add_argument("--annotations", type=Path, metavar="FOLDER", help=text)
    edition_options(parser, "rehearsal")


def rehearse(args: argparse.Namespace) -> None:
    from actionformer.stages.rehearse import rehearse as stage

    if args.annotations is not None and not args.annotations.is_dir():
        raise InputError(f"{args.annotations}: no such folder")
    stage(
        _named_rows(args),
        args.out,
        videos=args.videos,
        annotations=args.annotations,
        params=args.params,
        say=say,
    )
    named = f" rows={','.join(args.rows)}" if args.rows else ""
    config = f"edition={args.edition} mirror={shlex.quote(str(args.out))}{named}"
    say(f"to run them: snakemake --cores all --config {config}")


def _named_rows(args: argparse.Namespace) -> list[Experiment]:
    """The rows of the command line, or all."""
    names = args.rows or published_rows(args.params)
    return [load_experiment(name, args.edition, params=args.params) for name in names]


def fetch_options(parser: argparse.ArgumentParser) -> None:
    text = "a data set of params/datasets"
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help=text)
    text = "instead of a data set the weights of this extractor (params/extractors)"
    parser.add_argument("--extractor", metavar="NAME", help=text)
    parser.add_argument("--files", nargs="+", metavar="FILE", help="only these (default: all)")
    text = "folder or http address that holds the same files; tried first"
    parser.add_argument("--mirror", help=text)
    text = "link to the files of a mirror on this machine instead of copying them"
    parser.add_argument("--link", action="store_true", help=text)
    text = "you hold the licences that gated files need"
    parser.add_argument("--accepted", action="store_true", help=text)
    edition_options(parser, "paper")


def fetch(args: argparse.Namespace) -> None:
    from actionformer.stages import fetch as stage

    if (args.dataset is None) == (args.extractor is None):
        raise InputError("name a data set, or an extractor with --extractor, and not both")
    if args.extractor is not None:
        stage.fetch_weights(
            *load_extractor(args.extractor, args.params),
            mirror=args.mirror,
            accepted=args.accepted,
            link=args.link,
            say=say,
        )
        return
    origin = load_edition(args.edition, args.params).origin
    if origin == "dvc":
        files = f"the files of the {args.edition} edition"
        raise InputError(f"{files} come with `dvc pull`, not from their publishers")
    if origin == "mirror" and args.mirror is None:
        files = f"the files of the {args.edition} edition"
        raise InputError(f"{files} come from a mirror alone: name it with --mirror")
    dataset = load_dataset(args.dataset, args.edition, args.params)
    stage.fetch(
        dataset,
        args.dataset,
        args.edition,
        args.files or dataset.needed_files(),
        mirror=args.mirror,
        mirror_alone=origin == "mirror",
        link=args.link,
        accepted=args.accepted,
        say=say,
    )


def pin_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a data set of params/datasets")
    text = "the remote of DVC's that its files go to and come from (`dvc remote add NAME ADDRESS`)"
    parser.add_argument("--remote", required=True, help=text)
    edition_options(parser, "paper")


def pin(args: argparse.Namespace) -> None:
    from actionformer.stages import fetch as stage

    if load_edition(args.edition, args.params).origin != "publisher":
        raise InputError(f"the files of the {args.edition} edition are not yours to pin")
    dataset = load_dataset(args.dataset, args.edition, args.params)
    print(stage.pin(dataset, args.dataset, args.edition, args.remote))


def plan_options(parser: argparse.ArgumentParser) -> None:
    text = "every file of these rows (default: all rows, a line each)"
    parser.add_argument("rows", metavar="ROW", nargs="*", help=text)
    parser.add_argument("--markdown", action="store_true", help="the table of docs/data.md")
    edition_options(parser, "paper")


def plan(args: argparse.Namespace) -> None:
    from actionformer.stages import fetch as stage

    rows = _named_rows(args)
    if args.rows or args.markdown:
        print(stage.plan(rows, markdown=args.markdown), end="")
    else:
        print(stage.overview(rows, seeds_of(rows[0], args.params), args.params), end="")


COMMANDS = (
    Command("demo-data", "write the demo edition's publisher files", demo_data_options, demo_data),
    Command(
        "rehearse",
        "write a mirror of what the publishers of rows publish, of that size, for a rehearsal",
        rehearse_options,
        rehearse,
    ),
    Command(
        "fetch",
        "download a data set's files, or an extractor's weights, from their publishers",
        fetch_options,
        fetch,
        resumes=True,
    ),
    Command(
        "pin",
        "make a fetched data set part of the version of the data, with a remote of its own",
        pin_options,
        pin,
    ),
    Command(
        "plan",
        "what each row has to train and fetch, what is gated, and the disk it takes, on one "
        "screen; of rows that are named every file, its source and size",
        plan_options,
        plan,
    ),
)
