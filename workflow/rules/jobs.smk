# How the jobs of a call are started, counted, limited and interrupted.
import shlex
import signal
import threading
from contextlib import suppress
from pathlib import Path

import psutil
from snakemake.scheduling.job_scheduler import JobScheduler

from actionformer import gpus
from actionformer.files.writing import write_text

# does a scheduler send jobs to other machines?
ON_CLUSTER = workflow.resource_settings.nodes is not None


def log_of(job, folder="results"):
    """The log file of a job; may hold wildcards."""
    return f"{folder}/{EDITION}/logs/{job}.log"


def attempts_of(log):
    """The file that knows of a job's failed attempts; beside the logs."""
    return log.replace("logs/", "attempts/", 1).removesuffix(".log")


def attempt(log):
    """How many attempts of a job have failed, as a param: one that failed is planned again.

    Snakemake records the params of a job that fails, too, and takes what an earlier one has left for up to date.
    """

    def failed(wildcards):
        file = Path(attempts_of(log.format(**wildcards)))
        return FAILED_BEFORE.get(file, told_attempts(file)[0])

    return failed


def told_attempts(file):
    """(how many attempts have failed, has another one begun), as a file tells."""
    try:
        # empty: killed while it was written
        count, *mark = file.read_text().split() or ["0", "begun"]
    except (
        FileNotFoundError
    ):  # no attempt has failed, or a job that ends takes it away just now
        return 0, False
    return int(count), bool(mark)


def begun_before():
    """File -> its attempts, of those that an earlier call has begun and not ended: they have failed."""
    found = {}
    for folder in (f"results/{EDITION}/attempts", f"build/{EDITION}/attempts"):
        for file in Path(folder).rglob("*"):
            count, has_begun = told_attempts(file) if file.is_file() else (0, False)
            if has_begun:
                found[file] = count + 1
    return found


# A mark that is written later is of this call, and counts for the next one alone. So a job that a cluster sends back into its
# queue, where it reads this file again, has the params that it was submitted with.
FAILED_BEFORE = begun_before() if workflow.is_main_process else {}


def count_attempts():
    """Write what earlier calls have begun as failed: where the jobs of this call read it, and under Snakemake's lock."""
    for file, count in FAILED_BEFORE.items():
        write_text(file, f"{count}\n")


def look_for_jobs_only_when_one_ends():
    """Spare the looks that Snakemake takes for its limit of 100 jobs a second, unless another limit was asked for.

    While jobs wait, every look at them sets a timer for a further one a second later: after 200 jobs there were 200 a second,
    half a core for as long as the trainings last.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def command(arguments, log):
    """The command of a rule, as a param that Snakemake does not record: editing it makes no job run again.

    Snakemake records neither functions of `input` nor, in a template that is this param alone, the text of a command.
    What makes a job run again stands in its params as a key (`actionformer.params.keys`), beside the content of its inputs.
    """
    failed = attempt(log)

    def filled(wildcards, input):
        file = log.format(**wildcards)
        attempts, file = shlex.quote(attempts_of(file)), shlex.quote(file)
        count = failed(wildcards)
        ended = f"echo {count} > {attempts}" if count else f"rm {attempts}"
        return (
            f'mkdir -p "$(dirname {attempts})"'
            f" && echo {count} begun > {attempts}"
            f" && {arguments(wildcards)} >> {file} 2> >(tee -ia {file} >&2) && {ended}"
        )

    return filled


# how long after an interrupt jobs that go on get one of their own
PATIENCE = 4.0


def interrupt_jobs():
    """Send SIGINT to every process that a job runs in."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGINT)


def interrupted(number, frame):
    """Let the jobs end, too.

    Ctrl-C reaches all processes of a terminal. A SIGINT that somebody sends to Snakemake alone does not, and Snakemake
    would wait for hours until the jobs are done.
    """
    timer = threading.Timer(PATIENCE, interrupt_jobs)
    timer.daemon = True
    timer.start()
    signal.default_int_handler(number, frame)


def end_gracefully(scheduler, *signal):
    """Snakemake's own answer to SIGTERM, in a thread of its own.

    It takes a lock that the main thread, which the signal interrupts, may hold: while it waits for the solver that chooses
    the next jobs, Snakemake would wait for itself for ever.
    """
    threading.Thread(
        target=JobScheduler.answer_to_sigterm, args=(scheduler, *signal), daemon=True
    ).start()


if workflow.is_main_process and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, interrupted)
    # a process may read this file twice, and must keep what Snakemake itself does
    if not hasattr(JobScheduler, "answer_to_sigterm"):
        JobScheduler.answer_to_sigterm = JobScheduler.exit_gracefully
        JobScheduler.exit_gracefully = end_gracefully


def forget_marks():
    """Take away Snakemake's marks of jobs that did not end, here or on a cluster.

    What a job leaves here is whole, whatever has ended it: files are made beside and moved in, the record of what they were
    made with last, and a training's checkpoint is no output. With the marks the next call would refuse such files, and
    with --rerun-incomplete it would make those alone that others read as `ancient()`, and end.
    """
    for mark in Path(".snakemake/incomplete").rglob("*"):
        if mark.is_file():
            mark.unlink(missing_ok=True)


# jobs on GPUs: on this machine as many at once as there are places; a cluster's scheduler gives every job its own
if workflow.is_main_process and not ON_CLUSTER:
    GPU_PLACES = gpus.places(None if SLOTS is None else int(SLOTS))
    if GPU_PLACES:
        workflow.global_resources.setdefault("gpu", GPU_PLACES)
