# What the rules share: which rows and seeds there are, and what makes a job run again.
import os
import re
import shlex
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
from snakemake.exceptions import WorkflowError
from snakemake.scheduling.job_scheduler import JobScheduler

from actionformer import disks, gpus, layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.data import plan
from actionformer.errors import InputError
from actionformer.files.reading import read_json
from actionformer.files.writing import write_text
from actionformer.params import keys
from actionformer.params.experiment import OWN
from actionformer.params.files import PARAMS as PACKAGE_PARAMS
from actionformer.params.files import load_edition, load_experiment, load_extractor
from actionformer.stages import status


def listed(value):
    """A config value that may be a list, a single value, or several separated by commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def planned():
    """(edition's name, edition, rows by name, params folder) of this call."""
    known = [
        "edition",
        "params",
        "seeds",
        "rows",
        "experiment",
        "dataset",
        "released",
        "trust_released",
        "mirror",
        "link",
        "set",
        "results",
        "gpu",
        "gpu_slots",
        "scratch",
        "cache",
        "container",
    ]
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise InputError(
            f"--config: unknown key {', '.join(unknown)}; there are {', '.join(known)}"
        )
    if DATASET and not config.get("experiment"):
        raise InputError("--config: dataset= goes with experiment=")
    params = Path(str(config["params"]))
    if not params.exists() and config["params"] == "params":
        params = PACKAGE_PARAMS
    if config.get("experiment"):
        path = str(config["experiment"])
        if not path.endswith((".yaml", ".yml")):
            raise InputError(
                f"--config: experiment={path} is no YAML file; rows= names rows of params"
            )
        row = load_experiment(
            path, dataset=DATASET or None, params=params, overrides=OVERRIDES
        )
        return OWN, load_edition(OWN), {row.name: row}, params
    edition = str(config["edition"])
    rows = {}
    for name in map(str, listed(config["rows"] or "")):
        row = load_experiment(name, edition, params=params, overrides=OVERRIDES)
        rows[row.name] = row
    return edition, load_edition(edition, params), rows, params


def chosen_seeds(edition):
    """The seeds of this call, each once."""
    given = edition.seeds if config["seeds"] is None else listed(config["seeds"])
    if not all(re.fullmatch("[0-9]{1,9}", str(seed)) for seed in given):
        raise InputError(
            f"--config: seeds={config['seeds']}: expected numbers from 0 on"
        )
    return list(dict.fromkeys(int(seed) for seed in given))


def chosen_overrides():
    """Values on top of the params: set=training.lr=0.001,data.videos=20, or a list."""
    given = config.get("set") or []
    if not isinstance(given, list):
        # a value may hold commas of its own: evaluation.tiou=[0.5,0.7]
        given = re.split(r",(?=[\w.]+=)", str(given))
    return [str(text) for text in given]


OVERRIDES = chosen_overrides()
# Snakemake takes mirror=5 for a number
DATASET = str(config.get("dataset") or "")
MIRROR = str(config["mirror"] or "")

try:
    provenance.refuse_other_checkout()
    EDITION, CHOSEN, ROWS, PARAMS = planned()
    SEEDS = chosen_seeds(CHOSEN)
except InputError as error:
    raise WorkflowError(str(error))


def is_true(key):
    """A config value that says yes or no."""
    value = str(config[key]).lower()
    if value not in ("true", "false"):
        raise WorkflowError(f"--config: {key}={config[key]}: expected true or false")
    return value == "true"


RELEASED = is_true("released")
TRUST_RELEASED = is_true("trust_released")
LINK = is_true("link")
IGNORE_RELEASED = "" if TRUST_RELEASED else " --ignore-released"

TABLES = {}
for _row in ROWS.values():
    TABLES.setdefault(_row.table, []).append(_row)
# rows of nouns whose row of verbs is there, too: fused into actions
FUSED = {name: row for name, row in ROWS.items() if row.actions_with in ROWS}
INDEX = layout.tables(EDITION) / "index.md"
# the stamp of what is in MLflow; none for a server of one's own
ELSEWHERE = os.environ.get("MLFLOW_TRACKING_URI", "") not in (
    "",
    layout.TRACKING_ADDRESS,
)
TRACKING = [] if ELSEWHERE else layout.tracked(EDITION).as_posix()

# one row of every data set and of every feature set that these rows need
DATASETS = {row.dataset_folder: row for row in ROWS.values()}
STORES = {(row.feature_owner, row.data.features): row for row in ROWS.values()}


def raw_files_of(row):
    """The publishers' files that a row reads."""
    files = [*layout.annotation_files_of(row), layout.raw_features_of(row)]
    more = [layout.classifier_of(row)]
    if RELEASED:
        more.append(layout.released_checkpoint_of(row))
    return files + [path for path in more if path is not None]


RAW = sorted({path.as_posix() for row in ROWS.values() for path in raw_files_of(row)})

# where the raw files of this call lie, and which of them have yet to come: only those have a rule
RAW_EDITION = layout.raw_edition(EDITION)
MISSING = [
    path
    for path in RAW
    if path.startswith(f"data/{RAW_EDITION}/") and not Path(path).exists()
]

if MISSING and MIRROR:
    # requests, which a call that fetches nothing does without
    from actionformer.data.fetch import check_mirror

    try:
        check_mirror(MIRROR)
    except InputError as error:
        raise WorkflowError(str(error))
elif MISSING and CHOSEN.origin == "mirror":
    raise WorkflowError(
        f"--config: edition={EDITION} reads files that `actionformer rehearse` has written, and {len(MISSING)} of them"
        " have not been brought yet: name their folder with mirror="
    )

# how many jobs share a GPU; by default as many as fit its memory
SLOTS = config["gpu_slots"]
if SLOTS is not None and not re.fullmatch("[1-9][0-9]{0,8}", str(SLOTS)):
    raise WorkflowError(
        f"--config: gpu_slots={SLOTS}: expected a whole number from 1 on"
    )
GPU_SLOTS = "" if SLOTS is None else f" --gpu-slots {SLOTS}"

# how many GPUs a training or detection job asks for
GPU = config["gpu"]
if str(GPU) not in ("0", "1"):
    raise WorkflowError(f"--config: gpu={GPU}: expected 1, or 0 for jobs without a GPU")
DEVICE = GPU_SLOTS + ("" if int(GPU) else " --device cpu")
MACHINE = DEVICE
# a folder of the machine that a job runs on; in quotes, so that its variables are those of that machine
if config["scratch"]:
    MACHINE += f" --scratch {shlex.quote(str(config['scratch']))}"
# where finished runs are shared
if config["cache"]:
    MACHINE += f" --cache {shlex.quote(str(config['cache']))}"

# a training may take so many times the hours that were measured: other machines are slower, and share their disks
TIMES_MEASURED = 3
# of jobs that detect, and of those that extract a data set's videos
MINUTES_TO_DETECT = 240
MINUTES_TO_EXTRACT = 24 * 60


def minutes_of(row):
    """The time limit of training one seed; a job that is sent again goes on from its checkpoint."""
    return max(60, round(TIMES_MEASURED * 60 * row.expect.hours))


def memory_of(row):
    """Megabytes of training a row or detecting with it."""
    return CHOSEN.memory_mb or row.expect.memory_mb


# what a call ends with
AFTERWARDS = []

# options of every command
OPTIONS = f"--edition {shlex.quote(EDITION)} --params {shlex.quote(str(PARAMS))}"
ROW_OPTIONS = OPTIONS + (f" --dataset {shlex.quote(DATASET)}" if DATASET else "")
if OVERRIDES:
    ROW_OPTIONS += f" --set {shlex.join(OVERRIDES)}"
SEED_LIST = " ".join(map(str, SEEDS))
SEED_OPTIONS = f"--seeds {SEED_LIST}" + ("" if RELEASED else " --no-released")


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


def fetch_command(wildcards):
    """The command that brings a raw file."""
    dataset, file = wildcards.path.split("/", 1)
    options = (
        f"--edition {shlex.quote(RAW_EDITION)} --params {shlex.quote(str(PARAMS))}"
    )
    if MIRROR:
        options += f" --mirror {shlex.quote(MIRROR)}"
        options += " --link" if LINK else ""
    path = shlex.quote(f"data/{RAW_EDITION}/{wildcards.path}")
    # a file that somebody puts there meanwhile is what was wanted, and a job that fails would have it deleted
    return f"{{ actionformer fetch {shlex.quote(dataset)} {options} --files {shlex.quote(file)} || [ -e {path} ]; }}"


# (data set, features) -> a row that reads them, of those whose features are made here
EXTRACTED = {key: row for key, row in STORES.items() if row.features.videos is not None}


def weights_of(row):
    """The weights of a row's extractor."""
    return load_extractor(row.features.extractor, PARAMS)[2]


def extractor_key(row):
    """A name for what features depend on beside videos and weights."""
    return load_extractor(row.features.extractor, PARAMS)[1].identity


MISSING_WEIGHTS = {
    weights_of(row).as_posix(): row.features.extractor
    for row in EXTRACTED.values()
    if not weights_of(row).exists()
}


def packed_from(row):
    """What a store is packed from: a publisher's file, or videos once they are extracted."""
    if row.features.videos is None:
        return ancient(layout.features_of(row))
    return layout.extracted_manifest(row)


def fetch_weights_command(wildcards):
    """The command that brings the weights of an extractor."""
    options = f"--params {shlex.quote(str(PARAMS))}"
    if MIRROR:
        options += f" --mirror {shlex.quote(MIRROR)}"
        options += " --link" if LINK else ""
    name = MISSING_WEIGHTS[wildcards.path]
    return f"actionformer fetch --extractor {shlex.quote(name)} {options}"


def row_name(row):
    """How commands name a row."""
    return shlex.quote(row.called)


def row_names(rows):
    """How commands name several rows."""
    return " ".join(row_name(row) for row in rows)


def row_arguments(name):
    """A row and its options on the command line."""
    return f"{row_name(ROWS[name])} {ROW_OPTIONS}"


def dataset_argument(name):
    """A data set on the command line."""
    row = DATASETS.get(name)
    return shlex.quote(name if row is None else row.dataset_argument)


def run_of(row, seed):
    """The folder of a run."""
    return layout.run(EDITION, row, int(seed))


def fused_runs(nouns, seed, name):
    """A file of the run of nouns and of the run of verbs that are fused."""
    return [run_of(row, seed) / name for row in (nouns, FUSED[nouns].actions_with)]


def database_manifest(row):
    """The manifest of the database that a row reads."""
    return databases.manifest_path(layout.database_of(row))


def store_manifest(row):
    """The manifest of the feature store that a row reads."""
    return stores.manifest_path(layout.store_of(row))


def md5s(paths, manifest):
    """md5 of raw files, of those that are gone as `manifest` recorded them."""
    return {
        path.as_posix(): provenance.recorded_md5(path, manifest)
        for path in paths
        if path is not None
    }


def pinned(rows):
    """Are the raw files of these rows those of the pinned version? They may be pinned after they were used."""
    return all(
        provenance.is_pinned(provenance.sources(raw_files_of(row))) for row in rows
    )


def classifier_files(row):
    """The external classifier's file of a row, if it reads one."""
    path = layout.classifier_of(row)
    return [] if path is None else [path]


def released_checkpoint(row):
    """The published checkpoint of a row, or one line that says that it has none."""
    path = layout.released_checkpoint_of(ROWS[row])
    if path is None:
        raise WorkflowError(
            f"{row}: has no released checkpoint in the {EDITION} edition"
        )
    return path


def released_of(rows):
    """The metrics of every published checkpoint of these rows."""
    return [
        layout.released_run(row) / "metrics.json"
        for row in rows
        if row.released is not None and RELEASED
    ]


def bootstraps_of(rows):
    """How much of these rows' numbers is luck with their videos, where those compare with published ones."""
    return [layout.bootstrap(row) for row in rows if row.comparable]


def released_before(row):
    """What a published checkpoint scores, where training must not begin unless that is as published."""
    waits = TRUST_RELEASED and CHOSEN.released_tolerance is not None
    return released_of([row]) if waits else []


def files_of_runs(row, names):
    """These files of every run of a row."""
    return [layout.run(EDITION, row, seed) / name for seed in SEEDS for name in names]


def actions_of(table):
    """The metrics of fused actions of every seed, for the rows of a table that have them."""
    return [
        layout.run(EDITION, layout.actions(row), seed) / "metrics.json"
        for row in TABLES[table]
        if row.name in FUSED
        for seed in SEEDS
    ]


def runs_of(table, name):
    """A file of every run of a table."""
    return [
        layout.run(EDITION, row.name, seed) / name
        for row in TABLES[table]
        for seed in SEEDS
    ]


def generation():
    """How many times MLflow's database has been made here: one more where it is gone."""
    stamp = layout.tracked(EDITION)
    known = read_json(stamp)["generation"] if stamp.exists() else 0
    return known if known and layout.TRACKING_FILE.exists() else known + 1


GENERATION = generation()


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


# does a scheduler send jobs to other machines?
ON_CLUSTER = workflow.resource_settings.nodes is not None


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


wildcard_constraints:
    row="|".join(re.escape(name) for name in ROWS),
    dataset="|".join(
        re.escape(name)
        for name in sorted({*DATASETS, *(owner for owner, _ in STORES)})
    ),
    features="|".join(sorted({re.escape(features) for _, features in STORES})),
    seed=r"\d+",
    table="|".join(re.escape(table) for table in TABLES),


# jobs on GPUs: on this machine as many at once as there are places; a cluster's scheduler gives every job its own
if workflow.is_main_process and not ON_CLUSTER:
    GPU_PLACES = gpus.places(None if SLOTS is None else int(SLOTS))
    if GPU_PLACES:
        workflow.global_resources.setdefault("gpu", GPU_PLACES)
