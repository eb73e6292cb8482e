"""`actionformer COMMAND`: all commands in one parser, and what a command's end looks like."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
from contextlib import suppress

from actionformer import __version__, interrupts, provenance
from actionformer.commands import (
    build,
    evaluate,
    export,
    extract,
    fetch,
    lineage,
    report,
    status,
    train,
)
from actionformer.errors import InputError, first_line, is_out_of_memory
from actionformer.files.writing import NO_ROOM
from actionformer.threads import spin_briefly

# packages whose exceptions come from MLflow's store
OF_MLFLOW = ("mlflow", "sqlalchemy", "sqlite3")
# in the order of the way from raw file to report
COMMANDS = (
    *fetch.COMMANDS,
    *extract.COMMANDS,
    *build.COMMANDS,
    *train.COMMANDS,
    *evaluate.COMMANDS,
    *export.COMMANDS,
    *report.COMMANDS,
    *lineage.COMMANDS,
    *status.COMMANDS,
)


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; returns its exit code.

    0, or 1 with one line on stderr for bad input, or 128 + signal when interrupted.
    """
    # torch and MLflow bring hundreds of thousands of objects that stay: at Python's default the
    # collector goes through them again and again, a tenth of what a short command takes
    gc.set_threshold(100_000)
    # nor has it to look for what can go when everything does
    atexit.register(gc.freeze)
    parsed = parser().parse_args(arguments)
    interrupts.catch()
    spin_briefly(os.environ)
    # a failed job's own message should stand out on stderr
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # like DVC (.dvc/config), MLflow tells its makers nothing of who computes what
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # a server that answers nobody is given up after half a minute; by MLflow's default after four
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    try:
        provenance.refuse_other_checkout()
        parsed.run(parsed)
    except KeyboardInterrupt:
        return _stopped(parsed, f"interrupted; {_afterwards(parsed)}", 130)
    except interrupts.Terminated:
        return _stopped(parsed, f"terminated; {_afterwards(parsed)}", 143)
    except BrokenPipeError:  # as when piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except InputError as error:
        return _stopped(parsed, str(error), 1)
    except OSError as error:
        why = str(error)
        if error.errno in NO_ROOM:
            why = f"not written ({error}): is the disk full?"
        return _stopped(parsed, why, 1)
    except Exception as error:
        if is_out_of_memory(error):
            why = f"too little memory ({first_line(error)})"
            if "gpu_slots" in parsed and "CUDA" in why:
                why += "; `--gpu-slots 1` gives a job a GPU to itself"
            return _stopped(parsed, why, 1)
        if type(error).__module__.partition(".")[0] not in OF_MLFLOW:
            raise
        # the statement that failed, and links to read about it, come after the first line
        return _stopped(parsed, f"MLflow: {first_line(error)}", 1)
    return 0


def _afterwards(parsed: argparse.Namespace) -> str:
    """What the same command will do next time."""
    if parsed.resumes:
        return "the same command goes on from here"
    return "the same command begins anew"


def _stopped(parsed: argparse.Namespace, why: str, code: int) -> int:
    # into a log on a full disk, nothing can be said
    with suppress(OSError):
        print(
            f"actionformer {parsed.command}: {' '.join(why.split())}", file=sys.stderr, flush=True
        )
    return code


def parser() -> argparse.ArgumentParser:
    """The options of every sub-command."""
    whole = argparse.ArgumentParser(
        prog="actionformer",
        description="ActionFormer's published results, reproducible from data to table.",
        epilog="`snakemake --cores all` runs every stage in order; each is also a command here.",
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.text, description=command.text)
        command.options(sub)
        sub.set_defaults(run=command.run, resumes=command.resumes)
    return whole
