# What the rules share: which rows and seeds there are, what their commands are told, and which files they read.
import os
import re
import shlex
from pathlib import Path

from snakemake.exceptions import WorkflowError

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.errors import InputError
from actionformer.files.reading import read_json
from actionformer.params import keys
from actionformer.params.experiment import OWN
from actionformer.params.files import PARAMS as PACKAGE_PARAMS
from actionformer.params.files import load_edition, load_experiment, load_extractor


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
    # their defaults stand in the config, too: what was asked for is looked at
    asked = [
        key for key in ("rows", "edition") if key in workflow.config_settings.config
    ]
    if config.get("experiment") and asked:
        raise InputError(
            f"--config: {asked[0]}= and experiment= exclude each other; an experiment of one's own is a row by itself"
        )
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


wildcard_constraints:
    row="|".join(re.escape(name) for name in ROWS),
    dataset="|".join(
        re.escape(name)
        for name in sorted({*DATASETS, *(owner for owner, _ in STORES)})
    ),
    features="|".join(sorted({re.escape(features) for _, features in STORES})),
    seed=r"\d+",
    table="|".join(re.escape(table) for table in TABLES),
