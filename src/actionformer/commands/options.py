"""What the commands share: what a command is, and the options that several of them take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from actionformer.errors import InputError
from actionformer.params.dataset import YAML, Dataset, folder_name
from actionformer.params.experiment import OWN, Experiment
from actionformer.params.files import (
    PARAMS,
    load_dataset,
    load_experiment,
    published_rows,
    seeds_of,
)

if TYPE_CHECKING:
    from actionformer.result_cache import ResultCache


@dataclass(frozen=True)
class Command:
    """A sub-command."""

    name: str
    # what it does, for --help
    text: str
    # adds its options
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    # interrupted, does the same command go on from there?
    resumes: bool = False


# of files, unless --tiou says otherwise
TIOU = [0.3, 0.4, 0.5, 0.6, 0.7]


def say(line: str) -> None:
    """Print a line at once: a log is read while a job runs."""
    print(line, flush=True)


# ----------------------------------------------------------------------------------------- options


def edition_options(parser: argparse.ArgumentParser, default: str | None = "demo") -> None:
    """Which params are read."""
    said = default or "demo for a row, paper for files"
    text = f"demo, paper, ... (params/editions; default: {said})"
    parser.add_argument("--edition", default=default, help=text)
    text = "folder of params (default: the checkout's)"
    parser.add_argument("--params", type=Path, default=PARAMS, help=text)


def set_option(parser: argparse.ArgumentParser) -> None:
    """Values on top of a row's own."""
    text = (
        "values on top of the params, such as training.schedule_epochs=4 data.videos=20; the "
        "result has a folder of its own beside the row's"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text
    )


def dataset_argument(parser: argparse.ArgumentParser) -> None:
    """A data set."""
    text = "a data set of params/datasets, or the path of a YAML file"
    parser.add_argument("dataset", metavar="DATASET", help=text)


def row_options(
    parser: argparse.ArgumentParser, *, optional: bool = False, edition: str | None = "demo"
) -> None:
    """One row of the tables."""
    text = "a row of params/experiments, or the path of an experiment's YAML file"
    parser.add_argument("row", metavar="ROW", nargs="?" if optional else None, help=text)
    edition_options(parser, edition)
    text = "data set to use instead of the row's (name or path of a YAML file)"
    parser.add_argument("--dataset", help=text)
    set_option(parser)


def seed_option(parser: argparse.ArgumentParser) -> None:
    """One seed."""
    text = "seed of weights, crops and dropout (default: 0)"
    parser.add_argument("--seed", type=seed_number, default=0, help=text)


def device_option(parser: argparse.ArgumentParser) -> None:
    """What a job runs on."""
    text = "auto, cpu, cuda:0, ... (default: a free GPU, or the CPU)"
    parser.add_argument("--device", default="auto", help=text)
    text = "how many jobs may share a GPU (default: as many as fit its memory, 8 GB each)"
    parser.add_argument("--gpu-slots", type=whole_number, metavar="N", help=text)


class Machine(TypedDict):
    """What a job that runs a network is told of machines, as its stage takes it."""

    device: str
    gpu_slots: int | None
    scratch: Path | None
    cache: ResultCache | None


def machine_options(parser: argparse.ArgumentParser) -> None:
    """What a job runs on, and where finished products are shared."""
    device_option(parser)
    text = "folder of this machine, such as $TMPDIR: features are copied there once, and read there"
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help=text)
    text = (
        "folder or bucket (s3://...) of results that several machines share: what is there is "
        "fetched, what isn't is computed and put there"
    )
    parser.add_argument("--cache", metavar="ADDRESS", help=text)


def whole_number(text: str) -> int:
    """A number of things, of which there is at least one."""
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number from 1 on")
    return int(text)


def seed_number(text: str) -> int:
    """What random numbers begin with."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number from 0 on")
    return int(text)


def seeds_options(parser: argparse.ArgumentParser) -> None:
    """All seeds of a row, and its published checkpoint."""
    text = "seeds (default: those of the edition)"
    parser.add_argument("--seeds", nargs="+", type=seed_number, metavar="SEED", help=text)
    text = "without the published checkpoints"
    parser.add_argument("--no-released", dest="released", action="store_false", help=text)


def rows_options(parser: argparse.ArgumentParser) -> None:
    """Several rows with all their seeds."""
    edition_options(parser)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows (default: all)")
    text = "data set to use instead of the rows' (name or path of a YAML file)"
    parser.add_argument("--dataset", help=text)
    set_option(parser)
    seeds_options(parser)


def files_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Any detections, and the ground truth that they are held against."""
    text = "a database file" if required else "a database file, instead of a row"
    parser.add_argument("--annotations", type=Path, required=required, help=text)
    text = "a result file {'results': {video: [...]}}"
    parser.add_argument("--detections", type=Path, required=required, help=text)
    parser.add_argument("--subset", required=required, help="the subset to evaluate")
    text = f"tIoU thresholds (default: {' '.join(map(str, TIOU))})"
    parser.add_argument("--tiou", type=float, nargs="+", default=TIOU, help=text)
    text = "noun or verb in EPIC's database (default: label)"
    parser.add_argument("--label-field", default="label", help=text)
    text = (
        "evaluate the videos of the database's blocked list, too (default: without them, as "
        "published)"
    )
    parser.add_argument("--no-blocked", dest="blocked", action="store_false", help=text)


# ---------------------------------------------------------------------------------- what they mean


def chosen_dataset(args: argparse.Namespace) -> tuple[Dataset, str, str]:
    """A data set, its folder's name and its edition: 'own' for one given by path."""
    dataset = load_dataset(args.dataset, args.edition, args.params)
    edition = OWN if args.dataset.endswith(YAML) else args.edition
    return dataset, folder_name(args.dataset), edition


def chosen_row(args: argparse.Namespace) -> Experiment:
    """The row that a command is about."""
    if args.row is None:
        raise InputError("name a row, or the path of an experiment's YAML file")
    return _loaded(args, args.row)


def _loaded(args: argparse.Namespace, name: str) -> Experiment:
    """A row with what the command line says of all rows."""
    return load_experiment(
        name, args.edition, dataset=args.dataset, params=args.params, overrides=args.set
    )


def chosen_seeds(args: argparse.Namespace, experiment: Experiment) -> Sequence[int]:
    """The seeds named, or those of the row's edition."""
    return args.seeds or seeds_of(experiment, args.params)


def chosen_rows(args: argparse.Namespace) -> tuple[list[Experiment], Sequence[int]]:
    """The rows of a table or report, and their seeds."""
    rows = []
    for name in args.rows or published_rows(args.params):
        rows.append(_loaded(args, name))
    return rows, chosen_seeds(args, rows[0])


def opened_cache(address: str) -> ResultCache:
    """The cache of results of this address."""
    # fsspec, which most commands do without
    from actionformer.result_cache import ResultCache

    return ResultCache(address)


def chosen_machine(args: argparse.Namespace) -> Machine:
    """What `machine_options` say."""
    return {
        "device": args.device,
        "gpu_slots": args.gpu_slots,
        "scratch": args.scratch,
        "cache": None if args.cache is None else opened_cache(args.cache),
    }


def use_threads(experiment: Experiment) -> None:
    """Use as many threads as the params say, and keep freed memory.

    For commands alone: both change the whole process.
    """
    # torch, which most commands do without
    from actionformer.training.device import prepare_cpu

    prepare_cpu(experiment.training.threads)
