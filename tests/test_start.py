"""How soon a command answers: what is imported before its stage is, and by which stage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from actionformer.commands.main import COMMANDS

# each of these takes from a tenth of a second to some seconds to import
HEAVY = {"torch", "numba", "mlflow", "pandas", "numpy", "h5py", "scipy", "onnx", "vl_convert"}


def imported_by(code: str) -> set[str]:
    """The packages that are there after some code, in a process of its own."""
    told = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in modules}


def test_help_imports_nothing_heavy():
    code = "from actionformer.commands.main import _parser\n_parser().format_help()"
    assert imported_by(code) & HEAVY == set()


def test_the_package_itself_imports_nothing_heavy():
    """What `from actionformer import ...` gives is imported when it is asked for."""
    assert imported_by("import actionformer") & HEAVY == set()


def test_params_are_read_without_torch():
    found = imported_by("from actionformer import Experiment, load_experiment")
    assert found & {"torch", "numba", "mlflow"} == set()


@pytest.mark.parametrize("stage", ["export", "report"])
def test_pages_and_exports_do_without_mlflow(stage):
    """It takes seconds to import, and what it lacks or breaks is nothing to them."""
    assert "mlflow" not in imported_by(f"import actionformer.stages.{stage}")


@pytest.mark.parametrize("stage", ["fetch", "build", "status"])
def test_a_stage_without_a_network_does_without_torch_and_mlflow(stage):
    found = imported_by(f"import actionformer.stages.{stage}")
    assert found & {"torch", "numba", "mlflow"} == set()


def test_a_dry_run_asks_why_a_run_is_outdated_without_torch_and_mlflow():
    """The workflow asks for every row and seed before it plans anything."""
    code = "from actionformer.params.files import load_experiment\n"
    code += "from actionformer.stages.status import outdated\n"
    code += "outdated(load_experiment('thumos14_i3d', 'demo'), 0)"
    assert imported_by(code) & {"torch", "numba", "mlflow"} == set()


def test_every_command_has_a_name_and_a_help_of_its_own():
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    texts = [command.text for command in COMMANDS]
    assert all(texts)
    assert len(set(texts)) == len(texts)
