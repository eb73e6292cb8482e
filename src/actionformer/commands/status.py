"""Where things stand: status, params; and results of an earlier version: adopt."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from actionformer.commands.options import (
    Command,
    chosen_row,
    chosen_rows,
    row_options,
    rows_options,
)
from actionformer.files.writing import write_text
from actionformer.params.experiment import OWN, Experiment
from actionformer.params.files import PARAMS, as_yaml, load_edition, published_rows, schemas


def status_options(parser: argparse.ArgumentParser) -> None:
    rows_options(parser)
    text = "hours and disk per row (always shown for the paper edition)"
    parser.add_argument("--cost", action="store_true", help=text)
    text = (
        "run some steps of every row, a few minutes for all, and reckon its hours from these; "
        "what was measured on this machine is kept"
    )
    parser.add_argument("--measure", action="store_true", help=text)


def status(args: argparse.Namespace) -> None:
    from actionformer.stages import status as stage

    if args.edition == OWN and not args.rows:
        args.rows = stage.own_rows()
    rows, seeds = chosen_rows(args)
    cost = args.cost or load_edition(args.edition, args.params).origin != "dvc"
    calls = {}
    for given, row in zip(args.rows or published_rows(args.params), rows, strict=True):
        config = shlex.join(_snakemake_config(args, given, row))
        calls[row.name] = f"snakemake --cores all{' --config ' if config else ''}{config}"
    said = stage.status(rows, seeds, calls, released=args.released, cost=cost, measure=args.measure)
    print(said, end="")


def params_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser, optional=True)
    text = "write the JSON Schemas of all params files to this folder instead"
    parser.add_argument("--schemas", type=Path, help=text)


def params(args: argparse.Namespace) -> None:
    if args.schemas is None:
        print(as_yaml(chosen_row(args)), end="")
        return
    for name, text in schemas().items():
        write_text(args.schemas / name, text)


def adopt(args: argparse.Namespace) -> None:
    from actionformer.stages import adopt as stage

    rows, seeds = chosen_rows(args)
    config = _snakemake_config(args, (args.rows or [rows[0].name])[0], rows[0])
    stage.adopt(rows, seeds, config, released=args.released, say=print)


def _snakemake_config(args: argparse.Namespace, given: str, row: Experiment) -> list[str]:
    """What Snakemake is called with, so that it plans the rows and seeds of this command.

    Args:
        given: the first of them as the command line names it.
    """
    config = []
    # what Snakemake takes unless it is told
    usual = Path("params") if Path("params").exists() else PARAMS
    if args.params.resolve() != usual.resolve():
        config.append(f"params={args.params}")
    if row.edition == OWN:
        config.append(f"experiment={given}")
        if args.dataset:
            config.append(f"dataset={args.dataset}")
    else:
        if args.edition != "demo":
            config.append(f"edition={args.edition}")
        if args.rows:
            config.append(f"rows={','.join(args.rows)}")
    if args.set:
        config.append(f"set={','.join(args.set)}")
    if args.seeds:
        config.append(f"seeds={','.join(map(str, args.seeds))}")
    if not args.released:
        config.append("released=false")
    return config


COMMANDS = (
    Command(
        "status",
        "which rows are done, running or missing, what is next, and what it will take",
        status_options,
        status,
    ),
    Command("params", "print a row with every value resolved", params_options, params),
    Command(
        "adopt",
        "take over results of an earlier version, or a copy of results, where they are up to date",
        rows_options,
        adopt,
    ),
)
