"""Where everything lies: one function per stop of the way from publisher's file to table.

    data/{edition}/{dataset}/                 publishers' files
    build/{edition}/extracted/{dataset}/      features that are made of videos
    build/{edition}/{dataset}/                database and feature stores
    results/{edition}/{experiment}/seed{n}/   runs
    results/{edition}/{experiment}/earlier/   runs that others have taken the place of
    results/{edition}/{experiment}/released/  the published checkpoint, evaluated
    results/{edition}/{experiment}/figures/   figures of a row
    results/{edition}/{experiment}/README.md  its model card
    results/{edition}/{experiment}_actions/   nouns and verbs fused, a run folder per seed
    results/{edition}/tables/                 tables
    results/{edition}/report.html             all of it on one page
    results/predictions/, ...                 what a command writes that names no other place

What later stages read has a small manifest beside it (`manifest`). All paths are relative to the
folder that the command runs in; `own` is the edition of experiments given by path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from actionformer.params.dataset import Dataset, FeatureSet
from actionformer.params.experiment import OWN, Experiment

MD5_CACHE = Path("build/md5.json")
# how long steps of rows take on the machines that use this folder
SPEEDS = Path("build/speeds.json")
# in a run folder: how far training is
PROGRESS = "progress.json"
# in a run folder: what a training that has ended leaves, beside the manifest of model.pt
TRAINED = ("model.pt", "history.csv", "params.yaml", "lineage.json")
TRACKING_FILE = Path("mlflow.db")
# of it, as `mlflow ui` calls it
TRACKING_ADDRESS = f"sqlite:///{TRACKING_FILE}"
TABLE_FORMS = ("md", "csv", "tex", "html")
# in a folder of results: why MLflow lacks it
UNTRACKED = "mlflow-failed.txt"
# what commands write that name no other place
PREDICTIONS = Path("results/predictions")
SUBMISSIONS = Path("results/submissions")
TIMELINES = Path("results/timelines")
DIAGNOSES = Path("results/diagnoses")
EVALUATIONS = Path("results/evaluations")
COMPARISONS = Path("results/comparisons")
CLASSIFIED = Path("results/classified")
HUB = Path("results/hub")
CROISSANT = Path("results/croissant")
CONVERTED = Path("build/converted")
EXTRACTED = Path("build/extracted")
# runs that are trained again to be compared
AGAIN = Path("build/again")
# in the folder of a row: runs that later ones have taken the place of
EARLIER = "earlier"
# of a row, in their order on its page
FIGURES = (
    "map_tiou",
    "loss",
    "validation",
    "class_ap",
    "precision_recall",
    "calibration",
    "false_positives",
    "error_gains",
    "confusions",
    "sensitivity",
    "misses",
    "timelines",
)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone with something that several processes may write."""
    lock = Path("build/locks") / f"{path.as_posix().replace('/', '_')}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def raw_edition(edition: str) -> str:
    """The edition whose raw files are used: experiments given by path share the paper's."""
    return "paper" if edition == OWN else edition


def raw_root(dataset: Dataset, name: str, edition: str) -> Path:
    """Folder of a data set's files as their publisher made them."""
    if dataset.root is not None:
        return Path(dataset.root)
    return Path("data") / raw_edition(edition) / name


def database(edition: str, dataset: str) -> Path:
    return Path("build") / edition / dataset / "annotations.json"


def feature_store(edition: str, dataset: str, features: str) -> Path:
    return Path("build") / edition / dataset / f"{features}.h5"


def results(edition: str) -> Path:
    """The folder of an edition's results."""
    return Path("results") / edition


def run(edition: str, experiment: str, seed: int) -> Path:
    return Path("results") / edition / experiment / f"seed{seed}"


def seed_of(run: Path) -> int | None:
    """The seed of a run's folder; None of one that is called otherwise, such as `released`."""
    named = re.fullmatch(r"seed(\d+)", run.name)
    return int(named[1]) if named else None


def run_lock(run: Path) -> Path:
    """Held by who trains in a run's folder."""
    return run / ".lock"


def is_held(lock: Path) -> bool:
    """Does another process hold a lock? Asks for a moment: who takes it waits longer than that."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True


def tracking_lock(run: Path) -> Path:
    """Held by who logs a run's folder to MLflow."""
    return run / ".mlflow.lock"


def earlier(run: Path, weights: str) -> Path:
    """Where a run goes that another one takes the place of; none that lies there is overwritten."""
    folder = run.parent / EARLIER / f"{run.name}-{weights[:8]}"
    again = 2
    while folder.exists():
        folder = folder.with_name(f"{run.name}-{weights[:8]}-{again}")
        again += 1
    return folder


def manifest(product: Path) -> Path:
    """Beside a product: its md5 and what it was made with, so small that Snakemake compares it."""
    return product.with_suffix(".manifest.json")


def actions(experiment: Experiment) -> str:
    """The name under which a row of nouns, fused with one of verbs, stands among the rows."""
    return f"{experiment.name}_actions"


def released_run(experiment: Experiment) -> Path:
    """Where the evaluation of a row's published checkpoint goes."""
    return Path("results") / experiment.edition / experiment.name / "released"


def released_checkpoint_of(experiment: Experiment) -> Path | None:
    """The checkpoint that was published with a row."""
    if experiment.released is None:
        return None
    return (
        raw_root(experiment.dataset, experiment.data.dataset, experiment.edition)
        / experiment.released.file
    )


def tables(edition: str) -> Path:
    return Path("results") / edition / "tables"


def row(experiment: Experiment) -> Path:
    """The folder of everything that was computed for a row."""
    return Path("results") / experiment.edition / experiment.name


def figures(experiment: Experiment) -> Path:
    """The figures of a row, of all its seeds."""
    return row(experiment) / "figures"


def figures_of_run(run: Path) -> Path:
    """The figures of one seed."""
    return run / "figures"


def bootstrap(experiment: Experiment) -> Path:
    """How much of a row's numbers is luck with the evaluated videos."""
    return row(experiment) / "bootstrap.json"


def model_card(experiment: Experiment) -> Path:
    """Where the Hugging Face Hub looks for it."""
    return Path("results") / experiment.edition / experiment.name / "README.md"


def tracked(edition: str) -> Path:
    """Says that the finished runs of an edition are in MLflow."""
    return Path("build") / edition / "tracked.json"


def report(edition: str) -> Path:
    return Path("results") / edition / "report.html"


def database_of(experiment: Experiment) -> Path:
    """The database that a row reads."""
    return database(experiment.edition, experiment.dataset_folder)


def store_of(experiment: Experiment) -> Path:
    """The feature store that a row reads, possibly another data set's."""
    return feature_store(experiment.edition, experiment.feature_owner, experiment.data.features)


def extracted(edition: str, dataset: str, features: FeatureSet) -> Path:
    """The folder of features that are made of a data set's videos."""
    return Path("build") / edition / "extracted" / dataset / features.file


def extracted_manifest(experiment: Experiment) -> Path:
    """Says that all videos of a row's data set are extracted, and with what."""
    folder = Path("build") / experiment.edition / "extracted" / experiment.dataset_folder
    return folder / f"{experiment.data.features}.json"


def videos_of(experiment: Experiment) -> Path:
    """The folder of videos that a row's features are made of."""
    assert experiment.features.videos is not None
    root = raw_root(experiment.dataset, experiment.data.dataset, experiment.edition)
    return root / experiment.features.videos


def raw_features_of(experiment: Experiment) -> Path:
    """What a row's features begin as: the publisher's archive or folder, or videos."""
    if experiment.features.videos is not None:
        return videos_of(experiment)
    return features_of(experiment)


def features_of(experiment: Experiment) -> Path:
    """The archive or folder that a row's feature store is packed from."""
    features = experiment.features
    if features.videos is not None:
        return extracted(experiment.edition, experiment.dataset_folder, features)
    if features.dataset is not None:
        return Path("data") / raw_edition(experiment.edition) / features.dataset / features.file
    root = raw_root(experiment.dataset, experiment.data.dataset, experiment.edition)
    return root / features.file


def annotation_files(dataset: Dataset, name: str, edition: str) -> list[Path]:
    """The publisher's files that a data set's database is made from."""
    root = raw_root(dataset, name, edition)
    listed = [*dataset.annotations, *dataset.class_lists.values()]
    if dataset.blocked:
        listed.append(dataset.blocked)
    return [root / file for file in listed]


def annotation_files_of(experiment: Experiment) -> list[Path]:
    """The publisher's files that a row's database is made from."""
    return annotation_files(experiment.dataset, experiment.data.dataset, experiment.edition)


def classifier_of(experiment: Experiment) -> Path | None:
    """The external classifier's scores that a row reads."""
    if not experiment.inference.use_classifier or experiment.dataset.classifier is None:
        return None
    root = raw_root(experiment.dataset, experiment.data.dataset, experiment.edition)
    return root / experiment.dataset.classifier.file


def audit(experiment: Experiment) -> Path:
    """What the audit of a row found."""
    return Path("build") / experiment.edition / "audit" / f"{experiment.name}.json"


def run_name(row: str, seed: int | None, identity: str, kind: str = "") -> str:
    """Name of a run in tables and in MLflow; equal inputs, equal name.

    Args:
        seed: None for the published checkpoint.
        kind: 'actions' where nouns and verbs were fused.
    """
    parts = [row]
    if kind == "actions":
        parts.append("actions")
    parts += ["released" if seed is None else f"seed{seed}", identity[:8]]
    return "-".join(parts)
