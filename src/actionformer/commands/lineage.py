"""Where numbers come from, and whether they still stand: verify."""

from __future__ import annotations

import argparse
import sys
import time

from actionformer.commands.options import Command
from actionformer.errors import InputError


def verify_options(parser: argparse.ArgumentParser) -> None:
    text = "demo, paper, own, ... (default: demo)"
    parser.add_argument("--edition", default="demo", help=text)


def verify(args: argparse.Namespace) -> None:
    from actionformer.stages import verify as stage

    began = time.monotonic()
    found = stage.verify(args.edition)
    for remark in found.remarks:
        print(remark)
    for mismatch in found.mismatches:
        print(mismatch, file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"{found.numbers:,} numbers in {found.files} files computed again, {seconds:.0f} s")
    if found.mismatches:
        count = len(found.mismatches)
        raise InputError(f"{count} mismatch{'' if count == 1 else 'es'}; each has a line above")
    print("every one is what its inputs give")


COMMANDS = (
    Command(
        "verify",
        "compute metrics, tables, cards, figures and the report again, and compare every digit",
        verify_options,
        verify,
    ),
)
