# What is refused, or said, before anything is computed.
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from actionformer import disks, layout
from actionformer.data import plan
from actionformer.errors import InputError
from actionformer.stages import status


def say_what_is_outdated():
    """Why runs that are there would be made again, before anything is."""
    unknown = 0
    for row in ROWS.values():
        for seed in SEEDS:
            if not (run_of(row.name, seed) / "metrics.json").exists():
                continue
            stage, why = status.outdated(row, seed)
            if why == [status.WHY_NO_RECORD]:
                unknown += 1
            elif stage:
                print(
                    f"outdated: {row.name}, seed {seed}, {stage}: {'; '.join(why)}",
                    file=sys.stderr,
                )
    if unknown:
        print(
            f"{unknown} runs do not say what they were made with; `actionformer adopt` keeps those"
            " that are up to date (docs/rerun.md)",
            file=sys.stderr,
        )


def refuse_disk():
    """What would go wrong after hours on a disk of this kind is said before anything is computed."""
    try:
        if TRACKING:
            disks.refuse_database(layout.TRACKING_FILE)
        if ON_CLUSTER:
            disks.refuse_local_locks(Path())
    except InputError as error:
        raise WorkflowError(str(error))


def refuse_cache():
    """A misspelt address is said once, and not by every job."""
    if not config["cache"]:
        return
    # fsspec, which a call without a cache does without
    from actionformer.result_cache import ResultCache

    try:
        ResultCache(str(config["cache"]))
    except InputError as error:
        raise WorkflowError(f"--config: cache={error}")


def refuse_names():
    """Snakemake's executors write these paths into their scripts as they are."""
    for path in (sys.executable, workflow.main_snakefile):
        if ON_CLUSTER and shlex.quote(path) != path:
            raise WorkflowError(
                f"{path}: on a cluster no path of the checkout or its environment may have a space or a quote in it"
            )


if workflow.is_main_process:
    refuse_disk()
    refuse_cache()
    refuse_names()
    forget_marks()
    if workflow.dryrun or (MISSING and CHOSEN.origin != "dvc"):
        print(
            plan.overview(
                list(ROWS.values()),
                SEEDS,
                released=RELEASED,
                params=PARAMS,
                mirror=MIRROR or None,
            ),
            file=sys.stderr,
        )
    say_what_is_outdated()
