"""A folder with the demo edition's raw data, shared by the tests that run commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from actionformer import load_experiment
from actionformer.data.annotations import load_database
from actionformer.data.features import FeatureStore, pack
from actionformer.data.publishers import convert
from actionformer.data.view import views
from actionformer.synthetic import demo

CHECKOUT = Path(__file__).resolve().parents[1]
REAL = CHECKOUT.parent / "shared" / "real"

torch.set_num_threads(1)
# how long an example takes says something of the machine, and nothing of the code
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# files that take minutes, which begin first: one that comes last has one of the two cores idle
SLOW = (
    *("cluster", "parity", "rerun", "campaign", "lineage", "docs", "video_road", "lab"),
    *("workflow", "outputs", "result_cache"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; within a file nothing changes its place."""
    slow = [f"test_{name}.py" for name in SLOW]
    places = {name: place for place, name in enumerate(slow)}
    items.sort(key=lambda item: places.get(item.path.name, len(slow)))


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/demo as `actionformer demo-data` writes it. Read only."""
    root = tmp_path_factory.mktemp("demo")
    demo.write_all(root)
    return root


@pytest.fixture(scope="session")
def short_training(demo_data, tmp_path_factory):
    """(demo experiment of three epochs, training views, classes)"""
    experiment = load_experiment("thumos14_i3d", "demo")
    training = experiment.training.model_copy(update={"schedule_epochs": 3, "warmup_epochs": 1})
    experiment = experiment.model_copy(update={"training": training})
    database = load_database(convert(experiment.dataset, demo_data / "thumos14"))
    store = tmp_path_factory.mktemp("store") / "i3d.h5"
    pack(demo_data / "thumos14" / experiment.features.file, store, dim=experiment.features.dim)
    return (
        experiment,
        views(database, FeatureStore(store), experiment, "train")[:12],
        database.classes,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, demo_data: Path) -> Path:
    """A working folder: raw demo data, its pinned version, and nothing built yet."""
    folder = tmp_path_factory.mktemp("it's a workspace")
    shutil.copytree(demo_data, folder / "data/demo")
    shutil.copy(CHECKOUT / "data.dvc", folder / "data.dvc")
    shutil.copytree(CHECKOUT / ".dvc/store", folder / ".dvc/store")
    return folder


@pytest.fixture
def tree(tmp_path: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with its own copy of the demo data."""
    shutil.copytree(demo_data, tmp_path / "data/demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the checkout without its code, which would ask for an environment of its own."""
    run_command(tmp_path, "git", "clone", "--quiet", str(CHECKOUT), "clone")
    shutil.rmtree(tmp_path / "clone/src")
    return tmp_path / "clone"


def environment(**more: str) -> dict[str, str]:
    """That of a command of this environment, whose MLflow writes into its own folder."""
    variables = dict(os.environ)
    variables.pop("MLFLOW_TRACKING_URI", None)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    variables["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "0.5"
    # a server starts as one process, and without those that judge texts
    variables["MLFLOW_WORKERS"] = "1"
    variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    return variables | more


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def assert_same_tensors(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> None:
    """Equal names, and equal values to the last bit."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def run_command(
    folder: Path, *command: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in `folder`."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment(), check=False
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done
