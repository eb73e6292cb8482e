"""Training: the command train."""

from __future__ import annotations

import argparse

from actionformer.commands.options import (
    Command,
    chosen_machine,
    chosen_row,
    machine_options,
    row_options,
    say,
    seed_option,
    use_threads,
)
from actionformer.params.files import load_edition


def train_options(parser: argparse.ArgumentParser) -> None:
    row_options(parser)
    seed_option(parser)
    machine_options(parser)
    text = "start over; what lies in the run's folder is kept under earlier/"
    parser.add_argument("--anew", action="store_true", help=text)
    text = "train although the row's published checkpoint scores something else than published"
    parser.add_argument("--ignore-released", action="store_true", help=text)


def train(args: argparse.Namespace) -> None:
    from actionformer.stages import train as stage
    from actionformer.stages.released import refuse_if_far_from_published

    experiment = chosen_row(args)
    use_threads(experiment)
    if not args.ignore_released:
        tolerance = load_edition(experiment.edition, args.params).released_tolerance
        refuse_if_far_from_published(experiment, tolerance)
    stage.train(experiment, args.seed, anew=args.anew, say=say, **chosen_machine(args))


COMMANDS = (
    Command(
        "train",
        "train a row with one seed, or go on with it",
        train_options,
        train,
        resumes=True,
    ),
)
