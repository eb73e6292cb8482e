"""How soon a command answers, by what it imports; and what is there without a checkout."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys

import pytest

import actionformer
from actionformer import layout, load_experiment
from actionformer.commands.main import COMMANDS, main, parser
from actionformer.files.writing import write_json
from actionformer.params import keys
from conftest import CHECKOUT, environment, run_command

# each of these takes from a tenth of a second to some seconds to import
HEAVY = {
    "torch",
    "numba",
    "mlflow",
    "pandas",
    "numpy",
    "h5py",
    "scipy",
    "onnx",
    "vl_convert",
    "requests",
}


def imported_by(code: str) -> set[str]:
    """The packages that are there after some code, in a process of its own."""
    told = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in modules}


def test_help_imports_nothing_heavy():
    code = "from actionformer.commands.main import parser\nparser().format_help()"
    assert imported_by(code) & HEAVY == set()


def test_the_package_itself_imports_nothing_heavy():
    """What `from actionformer import ...` gives is imported when it is asked for."""
    assert imported_by("import actionformer") & HEAVY == set()


def test_params_are_read_without_torch():
    found = imported_by("from actionformer import Experiment, load_experiment")
    assert found & {"torch", "numba", "mlflow"} == set()


def test_a_command_that_ends_leaves_the_collector_nothing_to_look_through(tmp_path):
    """After torch and MLflow it would take half a second."""
    code = """
import atexit, gc
atexit.register(lambda: print(len(gc.get_objects())))
from actionformer.commands.main import main
main(["status"])
"""
    done = run_command(tmp_path, sys.executable, "-c", code)
    assert int(done.stdout.splitlines()[-1]) < 1000


@pytest.mark.parametrize(
    ("variable", "default", "given"),
    [
        # like DVC, by .dvc/config, it tells its makers nothing
        ("MLFLOW_DISABLE_TELEMETRY", "True", "False"),
        # by its default of 7 a server that doesn't answer costs every command four minutes
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4", "9"),
    ],
)
def test_mlflow_is_set_up_unless_the_user_says_otherwise(
    tmp_path, monkeypatch, variable, default, given
):
    # whether it tells, MLflow denies in any test and any CI: what it reads is looked at instead
    code = f"""
from actionformer.commands.main import main
main(["status"])
from mlflow.environment_variables import {variable}
print({variable}.get())
"""
    monkeypatch.delenv(variable, raising=False)
    said = run_command(tmp_path, sys.executable, "-c", code).stdout
    assert said.splitlines()[-1] == default
    monkeypatch.setenv(variable, given)
    said = run_command(tmp_path, sys.executable, "-c", code).stdout
    assert said.splitlines()[-1] == given


# What a stage imports, every one of its jobs waits for: torch and MLflow together for longer than
# all its work on the demo edition.
@pytest.mark.parametrize(
    ("stage", "does_without"),
    [
        ("fetch", {"torch", "numba", "mlflow", "pandas"}),
        *(
            (stage, {"torch", "numba", "mlflow", "pandas", "requests"})
            for stage in ("build", "status")
        ),
        ("detect", {"mlflow", "pandas", "requests"}),
        ("evaluate", {"torch"}),
        ("figures", {"torch", "mlflow", "pandas", "requests"}),
        ("report", {"torch", "numba", "mlflow", "pandas", "requests", "scipy", "h5py"}),
        ("export", {"mlflow"}),
    ],
)
def test_a_stage_imports_what_its_work_needs(stage, does_without):
    assert imported_by(f"import actionformer.stages.{stage}") & does_without == set()


def test_a_training_imports_no_compiler(tree):
    """Which takes as long as torch itself, and which only `training.compile` has work for.

    From its first step to its last checkpoint, and where it goes on after an interruption.
    """
    code = """
import sys
from pathlib import Path

from actionformer import load_experiment
from actionformer.data.annotations import load_database
from actionformer.data.features import FeatureStore, pack
from actionformer.data.publishers import convert
from actionformer.data.view import views
from actionformer.training.loop import train
from actionformer.training.observer import Observer


class Interrupting(Observer):
    def epoch_finished(self, epoch, record):
        raise KeyboardInterrupt


experiment = load_experiment("thumos14_i3d", "demo")
training = {"schedule_epochs": 2, "warmup_epochs": 1}
training = experiment.training.model_copy(update=training)
experiment = experiment.model_copy(update={"training": training})
raw = Path("data/demo/thumos14")
database = load_database(convert(experiment.dataset, raw))
pack(raw / experiment.features.file, Path("store.h5"), dim=experiment.features.dim)
training_views = views(database, FeatureStore(Path("store.h5")), experiment, "train")[:4]
options = {"seed": 0, "run": Path("run")}
try:
    train(experiment, training_views, database.classes, **options, observer=Interrupting())
except KeyboardInterrupt:
    train(experiment, training_views, database.classes, **options)
    assert Path("run/model.pt").exists()
    assert "torch._dynamo" not in sys.modules
else:
    raise AssertionError("not interrupted")
"""
    imported_by(code)


def test_a_dry_run_asks_why_a_run_is_outdated_without_torch_and_mlflow(tmp_path, monkeypatch):
    """The workflow asks for every row and seed before it plans anything."""
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment("thumos14_i3d", "demo")
    model = layout.run("demo", experiment.name, 0) / "model.pt"
    made = keys.record("train", experiment, {"seed": 1})
    write_json(layout.manifest(model), {"md5": "of another seed", "made_with": made})
    code = "from actionformer.params.files import load_experiment\n"
    code += "from actionformer.stages.status import outdated\n"
    code += "found = outdated(load_experiment('thumos14_i3d', 'demo'), 0)\n"
    code += "assert found == ('train', ['seed: another content']), found"
    assert imported_by(code) & {"torch", "numba", "mlflow"} == set()


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "5"}, "5")],
)
def test_threads_that_wait_spin_briefly_unless_the_user_says_otherwise(given, spins):
    """OpenMP asks once, when torch is imported."""
    code = "import os, sys\nfrom actionformer.commands.main import main\n"
    code += "main(['params', 'thumos14_i3d'])\nassert 'torch' not in sys.modules\n"
    code += "print(os.environ.get('GOMP_SPINCOUNT'))"
    said = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    before = {key: value for key, value in os.environ.items() if key not in said}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=before | given, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == spins


def test_every_command_has_a_name_and_a_help_of_its_own():
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    texts = [command.text for command in COMMANDS]
    assert all(texts)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_names_the_edition_that_is_the_default(command):
    """`fetch` and `plan` are about the paper's files, the others about the demo's."""
    parser = argparse.ArgumentParser()
    command.options(parser)
    for action in parser._actions:
        if action.dest == "edition" and action.default is not None:
            assert f"default: {action.default})" in action.help


def test_an_installed_package_has_the_params_and_says_its_version(tmp_path):
    """From a wheel, in a folder that is no checkout, beside no repository of ours."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("src", "params"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(CHECKOUT / name, source / name, symlinks=True, ignore=ignored)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    run_command(tmp_path, *install, "--no-build-isolation", "--target", "installed", str(source))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import actionformer, sys; from actionformer import load_experiment;"
        "from actionformer.params.files import published_rows;"
        "from actionformer.provenance import git_state;"
        "print(actionformer.__file__, load_experiment('thumos14_i3d').name,"
        " len(published_rows()), git_state()['commit'], actionformer.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=environment(PYTHONPATH=str(tmp_path / "installed")),
        capture_output=True,
        text=True,
        check=True,
    )
    where, *facts = done.stdout.split()
    assert where.startswith(str(tmp_path))
    assert facts == ["thumos14_i3d", "14", "unknown", actionformer.__version__]


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"actionformer {actionformer.__version__}\n"


def test_a_copied_checkout_is_not_run_by_the_program_of_the_original(tmp_path, monkeypatch, capsys):
    """Its environment's paths are the original's, whose code and params would be used."""
    copy = tmp_path / "copy"
    (copy / "src/actionformer").mkdir(parents=True)
    (copy / "Snakefile").touch()
    monkeypatch.chdir(copy)
    assert main(["params", "thumos14_i3d"]) == 1
    said = capsys.readouterr().err
    assert f"{copy} is a checkout, but this program is {CHECKOUT}'s" in said
    assert "`make env`" in said
    monkeypatch.chdir(CHECKOUT)
    assert main(["params", "thumos14_i3d"]) == 0


def test_make_env_knows_an_environment_that_was_made_elsewhere(tmp_path):
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / ".venv").mkdir()
    made = tmp_path / ".venv/.installed"
    for where, expected in ((tmp_path, "is up to date"), ("/elsewhere", "-m venv --clear .venv")):
        made.write_text(f"{where}\n")
        done = run_command(tmp_path, "make", "-n", ".venv/.installed")
        assert expected in done.stdout
