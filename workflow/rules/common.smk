# What the rules share: which rows and seeds there are, and what makes a job run again.
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.data import plan
from actionformer.errors import InputError
from actionformer.experiment import (
    OWN,
    load_edition,
    load_experiment,
)
from actionformer.files import digest

# commands come from the environment that Snakemake itself runs in
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


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
        "mirror",
    ]
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise InputError(
            f"--config: unknown key {', '.join(unknown)}; there are {', '.join(known)}"
        )
    if config.get("dataset") and not config.get("experiment"):
        raise InputError("--config: dataset= goes with experiment=")
    params = Path(config["params"])
    if not params.is_absolute() and not params.exists():
        params = Path(workflow.basedir) / params
    if config.get("experiment"):
        path = config["experiment"]
        if not path.endswith((".yaml", ".yml")):
            raise InputError(
                f"--config: experiment={path} is no YAML file; rows= names rows of params"
            )
        row = load_experiment(path, dataset=config.get("dataset"), params=params)
        return OWN, load_edition(OWN), {row.name: row}, params
    edition = config["edition"]
    wanted = listed(config["rows"] or "")
    rows = {name: load_experiment(name, edition, params=params) for name in wanted}
    return edition, load_edition(edition, params), rows, params


def chosen_seeds(edition):
    """The seeds of this call, each once."""
    given = edition.seeds if config["seeds"] is None else listed(config["seeds"])
    if not all(str(seed).isdigit() for seed in given):
        raise InputError(
            f"--config: seeds={config['seeds']}: expected numbers from 0 on"
        )
    return list(dict.fromkeys(int(seed) for seed in given))


try:
    EDITION, CHOSEN, ROWS, PARAMS = planned()
    SEEDS = chosen_seeds(CHOSEN)
except InputError as error:
    raise WorkflowError(str(error))

if str(config["released"]).lower() not in ("true", "false"):
    raise WorkflowError(
        f"--config: released={config['released']}: expected true or false"
    )
RELEASED = str(config["released"]).lower() == "true"

TABLES = {}
for _row in ROWS.values():
    TABLES.setdefault(_row.table, []).append(_row)
# rows of nouns whose row of verbs is there, too: fused into actions
FUSED = {name: row for name, row in ROWS.items() if row.actions_with in ROWS}
INDEX = layout.tables(EDITION) / "index.md"
TRACKING = (
    [] if os.environ.get("MLFLOW_TRACKING_URI") else layout.TRACKING_FILE.as_posix()
)

# one row of every data set and of every feature set that these rows need
DATASETS = {row.data.dataset: row for row in ROWS.values()}
STORES = {(row.feature_owner, row.data.features): row for row in ROWS.values()}
RAW = sorted(
    {
        path.as_posix()
        for row in ROWS.values()
        for path in (
            *layout.annotation_files_of(row),
            layout.features_of(row),
            layout.classifier_of(row),
            layout.released_checkpoint_of(row) if RELEASED else None,
        )
        if path is not None
    }
)

# where the raw files of this call lie, and which of them have yet to come: only those have a rule, so that Snakemake
# never deletes one that is there
RAW_EDITION = "paper" if EDITION == OWN else EDITION
MISSING = [
    path
    for path in RAW
    if path.startswith(f"data/{RAW_EDITION}/") and not Path(path).exists()
]

# a lab's own copy of the files, tried before their publishers
MIRROR = f" --mirror {shlex.quote(config['mirror'])}" if config["mirror"] else ""

# what a call ends with
AFTERWARDS = []

# options of every command
OPTIONS = f"--edition {EDITION} --params {shlex.quote(str(PARAMS))}"
ROW_OPTIONS = OPTIONS + (
    f" --dataset {shlex.quote(config['dataset'])}" if config.get("dataset") else ""
)


def untracked(value):
    """A param that says where, not what: Snakemake does not record functions of `input`, so it makes no job run again."""
    return lambda wildcards, input: value(wildcards) if callable(value) else value


def row_name(row):
    """How commands name a row."""
    return shlex.quote(config.get("experiment") or row.name)


def dataset_argument(name):
    """A data set on the command line."""
    row = DATASETS.get(name)
    return (
        shlex.quote(row.dataset_file) if row is not None and row.dataset_file else name
    )


def md5s(paths, manifest):
    """md5 of raw files, of those that are gone as `manifest` recorded them."""
    return {
        path.as_posix(): provenance.recorded_md5(path, manifest)
        for path in paths
        if path is not None
    }


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


wildcard_constraints:
    row="|".join(ROWS),
    dataset="|".join(sorted({*DATASETS, *(owner for owner, _ in STORES)})),
    features="|".join(sorted({features for _, features in STORES})),
    seed=r"\d+",
    table="|".join(TABLES),


# jobs on GPUs: as many at once as this machine has, each on one of its own
GPUS = provenance.gpu_count()
if GPUS:
    workflow.global_resources.setdefault("gpu", GPUS)
