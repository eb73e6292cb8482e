"""What makes a job run again, and what is never lost.

Each test edits, deletes or breaks something for real.

The table of docs/rerun.md names a test of this file in every line. Tests that edit the project do
so in a copy of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from conftest import CHECKOUT, assert_same_tensors, contents
from project import OTHER, ROW, ROWS, Place, commit, git, project

ARCHIVE = "data/demo/hacs/features/slowfast101_15fps_stride8_len32_hacs.zip"
ALL_BUT_TRAINING = {"detect": 1, "evaluate": 1, "draw": 1, "card": 1, "tabulate": 1}
EVERY_RUN_OF_A_ROW = {"train": 1, **ALL_BUT_TRAINING}


@pytest.fixture(scope="module")
def finished(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two rows after one call. Tests leave it as it was."""
    place = Place(workspace, project(tmp_path_factory.mktemp("a user's copy")))
    place.snakemake()
    return place


@pytest.fixture
def place(finished: Place, tmp_path: Path):
    """The finished rows; what a test edits in the project is put back after it."""
    kept = tmp_path / "kept"
    shutil.copytree(finished.copy, kept, symlinks=True)
    yield finished
    shutil.rmtree(finished.copy)
    shutil.copytree(kept, finished.copy, symlinks=True)


@pytest.fixture
def own(finished: Place, tmp_path: Path) -> Place:
    """A copy of the finished rows and of the project, to do anything with."""
    shutil.copytree(finished.folder, tmp_path / "work", symlinks=True)
    shutil.copytree(finished.copy, tmp_path / "project", symlinks=True)
    place = Place(tmp_path / "work", tmp_path / "project")
    return place


# ------------------------------------------------------------------------------ what plans nothing


def test_a_call_that_has_ended_leaves_nothing_to_be_done(place):
    assert place.planned() == {}


def test_a_new_option_in_every_rules_command_plans_nothing(place):
    """Nor does any other edit of a command: what it computes is named by the keys."""
    place.edit(
        "workflow/rules/common.smk",
        'OPTIONS = f"--edition {shlex.quote(EDITION)}',
        'OPTIONS = f"--quiet --edition {EDITION}',
    )
    place.edit("workflow/rules/train.smk", "actionformer train {row", "actionformer  train {row")
    assert place.planned() == {}


def test_an_edit_of_the_library_plans_nothing(place):
    place.edit("src/actionformer/stages/train.py", "def train(", "# a comment\n\n\ndef train(")
    place.edit("src/actionformer/model/losses.py", "gamma", "gamma_")
    assert place.planned() == {}


def test_a_new_param_with_a_default_plans_nothing(place):
    """Wherever it is: a field that did not exist counts as its default."""
    new = '    flag: bool = False\n    """what no run knows of"""\n'
    kinds = ("RandomTruncation", "DataParams", "ModelParams", "TrainingParams", "InferenceParams")
    paths = dict.fromkeys(kinds, "src/actionformer/params/experiment.py")
    paths["FeatureSet"] = "src/actionformer/params/dataset.py"
    for kind, path in paths.items():
        text = (place.copy / path).read_text()
        start = text.index(f"class {kind}(Params):")
        field = re.compile(r"^    \w+: ", re.M).search(text, start).start()
        (place.copy / path).write_text(text[:field] + new + text[field:])
    assert place.planned() == {}


def test_a_new_param_that_a_row_sets_plans_that_row(place):
    """Its runs were made with the default."""
    place.edit(
        "src/actionformer/params/experiment.py",
        "    threads: int = Field(",
        "    flag: bool = False\n    threads: int = Field(",
    )
    place.params(f"experiments/{ROW}.yaml", training={"flag": True})
    assert place.planned() == EVERY_RUN_OF_A_ROW


def test_a_renamed_param_plans_nothing(place):
    """The list of migrations knows its old name."""
    place.edit("src/actionformer/params/experiment.py", "soft_nms_sigma", "decay_sigma")
    validation = "src/actionformer/params/validation.py"
    known = '    DataParams: {"protocol": "loading"},\n'
    place.edit(
        validation, known, f'{known}    InferenceParams: {{"soft_nms_sigma": "decay_sigma"}},\n'
    )
    place.edit(validation, "import DataParams\n", "import DataParams, InferenceParams\n")
    for path in (place.copy / "params").rglob("*.yaml"):
        path.write_text(path.read_text().replace("soft_nms_sigma", "decay_sigma"))
    assert place.planned() == {}


def test_the_first_evaluated_epoch_plans_nothing(place):
    """It is only reported."""
    place.params("editions/demo.yaml", experiments={ROW: {"training": {"first_eval_epoch": 1}}})
    assert {"train", "detect", "evaluate"} & set(place.planned()) == set()


def test_a_copy_with_its_metadata_plans_nothing(own):
    """`cp -r` gives every file the time of the copy, in whatever order.

    Snakemake compares the content of files below 1 MB alone; here below 200 KB, since the demo's
    weights are small.
    """
    limit = ("--max-checksum-file-size", "200KB")
    sizes = {path.name: path.stat().st_size for path in own.folder.glob("results/**/*")}
    assert min(sizes["model.pt"], sizes["detections.json"]) > 200_000
    then = time.time() - 10_000
    for number, path in enumerate(sorted(own.folder.glob("results/**/*"), reverse=True)):
        os.utime(path, (then + number, then + number))
    assert own.planned(*limit) == {}


@pytest.mark.long
def test_what_is_computed_in_a_copy_changes_nothing_in_the_original(finished, own):
    """MLflow's addresses, too, lead into the folder that they are used in."""
    before = contents(finished.folder)
    own.run("actionformer", "evaluate", ROW, "--edition", "demo")
    (own.seed(ROW) / "detections.json").unlink()
    own.snakemake("--forcerun", "evaluate", "draw")
    after = contents(finished.folder)
    assert {path for path in after if after[path] != before.get(path)} == set()
    assert after.keys() == before.keys()


@pytest.mark.parametrize("times", ["kept", "of the copy"])
@pytest.mark.long
def test_a_copy_without_its_metadata_is_taken_over_by_adopt(own, times):
    """Then nothing is planned, and an edit is noticed again, which Snakemake would not see."""
    shutil.rmtree(own.folder / ".snakemake")
    if times == "of the copy":
        then = time.time() - 10_000
        for number, path in enumerate(sorted(own.folder.glob("[br]*/**/*"), reverse=True)):
            os.utime(path, (then + number, then + number))
        assert "train" in own.planned()
    own.run("actionformer", "adopt", "--params", f"{own.copy}/params", "--rows", *ROWS)
    assert own.planned() == {}
    own.params("editions/demo.yaml", experiments={ROW: {"training": {"lr": 0.5}}})
    assert own.planned() == EVERY_RUN_OF_A_ROW


def test_adopt_leaves_what_is_outdated_or_damaged_as_it_is(own):
    own.params("editions/demo.yaml", experiments={ROW: {"training": {"lr": 0.5}}})
    model = own.seed(OTHER) / "model.pt"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    said = own.run(
        "actionformer", "adopt", "--params", f"{own.copy}/params", "--rows", *ROWS
    ).stdout
    assert f"{ROW}, seed 0: training.lr: 0.002 -> 0.5" in said
    assert (
        f"{OTHER}, seed 0: results/demo/{OTHER}/seed0/model.pt is not what its manifest says"
        in said
    )
    assert own.planned() == EVERY_RUN_OF_A_ROW


def test_raw_files_that_are_gone_plan_no_training(own):
    (own.folder / ARCHIVE).unlink()
    assert set(own.planned()) <= {"pull"}


# ---------------------------------------------------------------------------- what plans something


def test_a_learning_rate_plans_the_runs_of_its_row(place):
    place.params("editions/demo.yaml", experiments={ROW: {"training": {"lr": 0.5}}})
    assert place.planned() == EVERY_RUN_OF_A_ROW
    assert (
        f"outdated: {ROW}, seed 0, train: training.lr: 0.002 -> 0.5" in place.snakemake("-n").stderr
    )


def test_a_changed_default_plans_every_run_that_resolved_to_it(place):
    """`weight_decay`: HACS sets its own, THUMOS has the default."""
    place.edit(
        "src/actionformer/params/experiment.py",
        "weight_decay: float = 0.05",
        "weight_decay: float = 0.07",
    )
    assert place.planned() == EVERY_RUN_OF_A_ROW
    assert (
        f"{OTHER}, seed 0, train: training.weight_decay: 0.05 -> 0.07"
        in place.snakemake("-n").stderr
    )


def test_a_raised_arithmetic_plans_its_stage_and_says_so(place):
    place.edit(
        "src/actionformer/params/keys.py",
        '"train": 1,',
        '"train": 2,  # the loss has another factor',
    )
    assert place.planned() == dict.fromkeys(EVERY_RUN_OF_A_ROW, 2)
    said = place.snakemake("-n").stderr
    assert said.count("the arithmetic of train: 1 -> 2") == 2
    status = place.run(
        "actionformer", "status", "--params", f"{place.copy}/params", "--rows", *ROWS
    ).stdout
    assert "2 outdated of 2" in status


def test_post_processing_plans_detection_without_training(place):
    place.params(f"experiments/{ROW}.yaml", inference={"soft_nms_sigma": 0.3})
    assert place.planned() == ALL_BUT_TRAINING


def test_padding_of_the_evaluation_plans_detection_without_training(place):
    place.params(f"experiments/{ROW}.yaml", data={"test_pad_length": 480})
    place.params("editions/demo.yaml", experiments={ROW: {"data": {"test_pad_length": 480}}})
    assert place.planned() == ALL_BUT_TRAINING


def test_thresholds_plan_evaluation_alone(place):
    place.params(f"experiments/{ROW}.yaml", evaluation={"tiou": [0.5]})
    assert {"train", "detect"} & set(place.planned()) == set()
    assert place.planned()["evaluate"] == 1


def test_a_published_value_plans_pages_alone(place):
    place.params(f"experiments/{ROW}.yaml", expect={"published": {"0.5": 1.0, "average": 1.0}})
    assert place.planned() == {"draw": 1, "card": 1, "tabulate": 1}


def test_a_licence_plans_the_pages_that_name_it(place):
    place.params("editions/demo.yaml", datasets={"hacs": {"licence": "another one"}})
    assert place.planned() == {"card": 1, "tabulate": 1}


def test_published_counts_plan_the_audit(place):
    place.params("datasets/hacs.yaml", published={"validation": {"videos": 1, "instances": 1}})
    assert place.planned() == {"audit": 1}


def test_another_seed_plans_that_seed(place):
    planned = place.planned(config=("seeds=0,1",))
    assert (planned["train"], planned["detect"], planned["evaluate"]) == (2, 2, 2)


def test_other_features_plan_the_rows_that_read_them(own):
    path = own.folder / ARCHIVE
    path.write_bytes(path.read_bytes()[:-2] + (3).to_bytes(2, "little") + b"abc")  # a zip's comment
    assert own.planned() == {"pack": 1, "audit": 1} | EVERY_RUN_OF_A_ROW


@pytest.mark.long
def test_equal_content_trains_nothing_again(own):
    """The archive is another file with the same features: the run that is there is kept."""
    before = (own.seed(ROW) / "checkpoint.pt").stat().st_mtime_ns, own.read(ROW, "lineage.json")
    path = own.folder / ARCHIVE
    path.write_bytes(path.read_bytes()[:-2] + (3).to_bytes(2, "little") + b"abc")
    own.snakemake()
    after = (own.seed(ROW) / "checkpoint.pt").stat().st_mtime_ns, own.read(ROW, "lineage.json")
    assert after[0] == before[0]
    assert after[1]["trained_by"] == before[1]["trained_by"]
    assert before[1]["pinned"]
    assert not after[1]["pinned"]
    assert "**no**" in (own.folder / "results/demo/tables/hacs.md").read_text()
    assert not (own.folder / f"results/demo/{ROW}/earlier").exists()
    assert own.planned() == {}


def test_other_annotations_plan_the_rows_of_the_data_set(own):
    path = own.folder / "data/demo/hacs/annotations/HACS_segments_v1.1.1.json"
    path.write_bytes(path.read_bytes().replace(b'"1.1.1"', b'"1.1.2"'))
    assert own.planned() == {"convert": 1, "audit": 1} | EVERY_RUN_OF_A_ROW


def test_other_classifier_scores_plan_detection(own):
    path = own.folder / "data/demo/hacs/classifiers/validation94.32.json"
    path.write_bytes(path.read_bytes().replace(b'"class"', b'"class" ', 1))
    assert own.planned() == ALL_BUT_TRAINING


def test_a_deleted_product_that_is_asked_for_is_made_again(own):
    """Snakemake misses a product between two others only where something has to be made from it."""
    (own.seed(ROW) / "metrics.json").unlink()
    assert own.planned() == {}
    assert own.planned(f"results/demo/{ROW}/seed0/metrics.json") == {"evaluate": 1}


def test_a_deleted_mlflow_database_plans_track_and_that_brings_every_run_back(own):
    (own.folder / "mlflow.db").unlink()
    said = own.snakemake("-n").stdout
    assert re.search(r"^track +1$", said, re.M)
    assert own.planned() == {}
    own.snakemake()
    assert (own.folder / "mlflow.db").exists()
    assert "2 runs" in own.run("actionformer", "runs").stdout.replace("1 runs", "2 runs")
    assert "Nothing to be done" in own.snakemake("-n").stdout


# ------------------------------------------------------------------------------ what is never lost


def test_fetched_files_outlive_an_edited_rule_a_missing_neighbour_and_sources_out_of_reach(
    own, demo_data
):
    """Files come from a mirror; then the rule changes, one is lost, and the mirror is empty."""
    edition = yaml.safe_load((own.copy / "params/editions/demo.yaml").read_text()) | {
        "origin": "publisher"
    }
    (own.copy / "params/editions/mirrored.yaml").write_text(yaml.safe_dump(edition))
    shutil.copytree(demo_data / "hacs", own.folder / "mirror/hacs")
    shutil.copytree(demo_data / "thumos14", own.folder / "mirror/thumos14")
    config = ("edition=mirrored", f"mirror={own.folder}/mirror")
    own.snakemake(
        "build/mirrored/hacs/slowfast.h5", "build/mirrored/hacs/annotations.json", config=config
    )
    root = own.folder / "data/mirrored"
    before = contents(root)
    assert len(before) > 2
    own.edit("workflow/rules/fetch.smk", '"{params.command}"', '"{params.command} "')
    shutil.rmtree(own.folder / "mirror/hacs")
    lost = "hacs/annotations/HACS_segments_v1.1.1.json"
    (root / lost).unlink()
    before.pop(lost)
    targets = ["build/mirrored/hacs/slowfast.h5", "build/mirrored/hacs/annotations.json"]
    assert set(own.planned(*targets, config=config)) <= {"fetch", "convert"}
    assert own.planned(*targets, config=config).get("fetch", 0) == 1
    for extra in ([], ["--forceall"], ["--keep-going", "--forcerun", "fetch"]):
        assert own.snakemake(*targets, *extra, config=config, check=False).returncode != 0
    own.snakemake("--delete-all-output", *targets, config=config, check=False)
    assert contents(root) == before


def test_a_file_put_there_by_hand_while_the_workflow_runs_is_kept(own, demo_data):
    """The rule's command stands for the person, too: the file comes, and then its fetch fails."""
    edition = yaml.safe_load((own.copy / "params/editions/demo.yaml").read_text()) | {
        "origin": "publisher"
    }
    (own.copy / "params/editions/mirrored.yaml").write_text(yaml.safe_dump(edition))
    shutil.copytree(demo_data, own.folder / "data/mirrored")
    target = own.folder / "data/mirrored/hacs/annotations/HACS_segments_v1.1.1.json"
    kept = target.read_bytes()
    target.unlink()
    there = demo_data / "hacs/annotations/HACS_segments_v1.1.1.json"
    fetch = "actionformer fetch {shlex.quote(dataset)}"
    own.edit("workflow/rules/common.smk", fetch, f"cp {there} {target} && false && {fetch}")
    own.snakemake("build/mirrored/hacs/annotations.json", config=("edition=mirrored",))
    assert target.read_bytes() == kept


@pytest.mark.long
def test_a_finished_run_is_moved_aside_when_another_takes_its_place(own):
    files = (
        "model.pt",
        "checkpoint.pt",
        "detections.json",
        "metrics.json",
        "lineage.json",
        "params.yaml",
    )
    before = {name: (own.seed(ROW) / name).read_bytes() for name in files}
    own.params("editions/demo.yaml", experiments={ROW: {"training": {"lr": 0.003}}})
    own.snakemake()
    (aside,) = (own.folder / f"results/demo/{ROW}/earlier").iterdir()
    assert {name: (aside / name).read_bytes() for name in files} == before
    assert (own.seed(ROW) / "model.pt").read_bytes() != before["model.pt"]
    assert own.planned() == {}
    (own.folder / "mlflow.db").unlink()
    # three and the one set aside
    assert "4 runs brought into MLflow" in own.run("actionformer", "track").stdout


@pytest.mark.long
def test_a_failed_retraining_leaves_the_finished_run_and_its_metrics(own):
    """The new training dies before its first epoch: every file of the old one is still there."""
    before = {name: (own.seed(ROW) / name).read_bytes() for name in ("model.pt", "lineage.json")}
    own.params("editions/demo.yaml", experiments={ROW: {"training": {"lr": 1e30}}})
    assert own.snakemake(check=False).returncode != 0
    (aside,) = (own.folder / f"results/demo/{ROW}/earlier").iterdir()
    assert {name: (aside / name).read_bytes() for name in before} == before
    assert (aside / "metrics.json").exists()
    own.run("git", "-C", str(own.copy), "checkout", "--quiet", ".")
    own.snakemake()
    assert own.planned() == {}
    assert (own.seed(ROW) / "model.pt").read_bytes() == before["model.pt"]


@pytest.mark.parametrize(
    ("rule", "group", "command", "file", "edit"),
    [
        (
            "train",
            "train",
            "train",
            "editions/demo.yaml",
            {"experiments": {ROW: {"training": {"lr": 0.003}}}},
        ),
        (
            "audit",
            "build",
            "audit",
            "datasets/hacs.yaml",
            {"published": {"validation": {"videos": 1}}},
        ),
        (
            "evaluate",
            "evaluate",
            "evaluate",
            "datasets/hacs.yaml",
            {"bin_edges": {"length": [5.0, 10.0]}},
        ),
        (
            "evaluate_released",
            "evaluate",
            "evaluate_released",
            f"experiments/{OTHER}.yaml",
            {"inference": {"min_score": 0.01}},
        ),
    ],
)
@pytest.mark.long
def test_a_job_that_failed_is_planned_again(own, rule, group, command, file, edit):
    """Snakemake puts back what was there, and records today's params for it.

    The next call must not believe that.
    """
    own.params(file, **edit)
    head = f"def {command}(args: argparse.Namespace) -> None:\n"
    broken = f'{head}    raise OSError("broken for a while")\n'
    own.edit(f"src/actionformer/commands/{group}.py", head, broken)
    failed = own.snakemake(check=False)
    assert failed.returncode != 0
    assert "broken for a while" in failed.stderr
    assert own.planned().get(rule) == 1
    own.edit(f"src/actionformer/commands/{group}.py", broken, head)
    own.snakemake()
    assert own.planned() == {}


def test_a_finished_run_that_lost_its_history_is_kept(own):
    """It cannot be gone on with: another is trained, and its weights stay to be had."""
    before = (own.seed(ROW) / "model.pt").read_bytes()
    for name in ("checkpoint.pt", "history.csv"):
        (own.seed(ROW) / name).unlink()
    own.run("actionformer", "train", ROW, "--params", f"{own.copy}/params")
    (aside,) = (own.folder / f"results/demo/{ROW}/earlier").iterdir()
    assert (aside / "model.pt").read_bytes() == before == (own.seed(ROW) / "model.pt").read_bytes()


def test_anew_starts_over_and_keeps_the_old_run(own):
    train = ["actionformer", "train", ROW, "--params", f"{own.copy}/params"]
    assert "trained with these params, data and seed already" in own.run(*train).stdout
    assert not (own.folder / f"results/demo/{ROW}/earlier").exists()
    before = (own.seed(ROW) / "model.pt").read_bytes()
    said = own.run(*train, "--anew").stdout
    assert "is kept in results/demo/hacs_slowfast/earlier/seed0-" in said
    (aside,) = (own.folder / f"results/demo/{ROW}/earlier").iterdir()
    # same in, same out
    assert (aside / "model.pt").read_bytes() == before
    assert (own.seed(ROW) / "model.pt").read_bytes() == before


# ---------------------------------------------------------------------------------- who trained it


def test_the_commit_that_is_recorded_is_the_one_that_trained(own):
    """Focal loss times five, committed, model.pt deleted: old weights, and the old commit."""
    (first,) = own.read(ROW, "lineage.json")["trained_by"]
    assert first["git"] == {"commit": git(own.copy, "rev-parse", "HEAD"), "dirty": False}
    weights = torch.load(own.seed(ROW) / "model.pt", weights_only=True)["state_dict"]
    own.edit("src/actionformer/model/losses.py", "return ", "return 5 * ")
    second = commit(own.copy)
    (own.seed(ROW) / "model.pt").unlink()
    own.snakemake(f"results/demo/{ROW}/seed0/model.pt")
    said = (own.folder / f"results/demo/logs/train/{ROW}-seed0.log").read_text()
    own.snakemake()
    assert "all 1 epochs are trained: model.pt is written from checkpoint.pt" in said
    again = torch.load(own.seed(ROW) / "model.pt", weights_only=True)["state_dict"]
    assert_same_tensors(again, weights)
    for told in (own.read(ROW, "lineage.json"), own.read(ROW, "metrics.json")["lineage"]):
        assert told["trained_by"] == [first]
    short, table = (
        first["git"]["commit"][:12],
        (own.folder / "results/demo/tables/hacs.md").read_text(),
    )
    card = (own.folder / f"results/demo/{ROW}/README.md").read_text()
    report = (own.folder / "results/demo/report.html").read_text()
    for page in (table, card, report):
        assert short in page
        assert second[:12] not in page
    tags = mlflow_tags(own, own.read(ROW, "lineage.json")["mlflow_run"])
    assert tags["git.commit"] == first["git"]["commit"]
    assert tags["trained"] == f"epoch 1: {short}, cpu"


def test_an_edit_without_a_commit_is_told(own):
    own.edit("src/actionformer/model/losses.py", "return ", "return 5 * ")
    own.run("actionformer", "train", ROW, "--params", f"{own.copy}/params", "--anew")
    (session,) = own.read(ROW, "lineage.json")["trained_by"]
    assert session["git"]["dirty"]


def mlflow_tags(place: Place, run_id: str) -> dict[str, str]:
    code = (
        "import json; from mlflow.tracking import MlflowClient\n"
        f"print(json.dumps(MlflowClient().get_run({run_id!r}).data.tags))"
    )
    return json.loads(place.run(sys.executable, "-c", code).stdout)


# --------------------------------------------------------------------------- what MLflow cannot do


@pytest.mark.parametrize("address", ["sqlite:////dev/null/all.db", "http://127.0.0.1:9"])
@pytest.mark.long
def test_science_goes_on_without_mlflow_and_track_brings_it_in_later(own, address):
    """Training and evaluation end well, each says once that MLflow failed; pages do without it.

    Later the run is there whole.
    """
    variables = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    arguments = [ROW, "--params", f"{own.copy}/params"]
    trained = own.run("actionformer", "train", *arguments, "--anew", **variables)
    assert trained.stderr.count("MLflow failed") == 1
    assert (own.seed(ROW) / "mlflow-failed.txt").exists()
    own.run("actionformer", "detect", *arguments, **variables)
    evaluated = own.run("actionformer", "evaluate", *arguments, **variables)
    assert evaluated.stderr.count("MLflow failed") == 1
    assert (own.seed(ROW) / "metrics.json").exists()
    for command in ("draw", "tabulate"):
        row = [ROW] if command == "draw" else ["--rows", ROW]
        said = own.run("actionformer", command, *row, "--params", f"{own.copy}/params", **variables)
        assert "MLflow" not in said.stderr
    assert "1 runs brought into MLflow" in own.run("actionformer", "track").stdout
    assert not list(own.folder.rglob("mlflow-failed.txt"))
    assert "0 runs brought into MLflow" in own.run("actionformer", "track").stdout


def test_a_server_of_ones_own_gets_figures_tables_and_cards_at_the_end_of_a_call(own, tmp_path):
    """No rule of the workflow brings them there; one that is down does not fail the call."""
    own.params("editions/demo.yaml", datasets={"hacs": {"licence": "another one"}})
    server = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/server.db"}
    own.snakemake(**server)
    code = (
        "from mlflow.tracking import MlflowClient\n"
        "client = MlflowClient()\n"
        "for run in client.search_runs(['1', '2'], \"tags.kind = 'row'\"):\n"
        "    print(*sorted(found.path for found in client.list_artifacts(run.info.run_id)))\n"
        "print([model.description[:5] for model in client.search_registered_models()])"
    )
    told = own.run(sys.executable, "-c", code, **server).stdout.splitlines()
    assert told == ["figures tables", "figures tables", "['# Act', '# Act']"]
    own.params("editions/demo.yaml", datasets={"hacs": {"licence": "a third one"}})
    down = own.snakemake(MLFLOW_TRACKING_URI="sqlite:////dev/null/all.db")
    assert "actionformer track: " in down.stderr


MAIN = """
import sys
from actionformer.tracking import runs
from actionformer.commands.main import main

def broken(*_):
    raise OSError("disk is full")
"""


def calling(own, command, *more):
    """Code that runs a command on a row."""
    arguments = [command, ROW, "--params", str(own.copy / "params"), *more]
    return f"sys.exit(main({arguments!r}))"


def test_a_database_that_dies_while_training_does_not_end_it(own):
    """The store is there when training starts and gone at its first epoch."""
    breaking = "runs.log_epochs = runs.end = broken\n"
    done = own.run(sys.executable, "-c", MAIN + breaking + calling(own, "train", "--anew"))
    assert done.stderr.count("MLflow failed (disk is full)") == 1
    assert (own.seed(ROW) / "model.pt").exists()


def test_an_error_of_training_is_not_hidden_by_one_of_mlflow(own):
    own.params("editions/demo.yaml", experiments={ROW: {"training": {"lr": 1e30}}})
    code = MAIN + "runs.end = broken\n" + calling(own, "train")
    done = own.run(sys.executable, "-c", code, check=False)
    assert done.returncode == 1
    assert "lower training.lr" in done.stderr


TELLING = """
from mlflow.tracking import MlflowClient

log = MlflowClient.log_artifact

def told(self, run, path, *rest):
    print("uploads", path)
    return log(self, run, path, *rest)

MlflowClient.log_artifact = told
"""


def test_a_second_evaluation_uploads_nothing_that_is_there(own):
    done = own.run(sys.executable, "-c", MAIN + TELLING + calling(own, "evaluate"))
    uploads = re.findall(r"uploads \S*/(\S+)", done.stdout)
    assert set(uploads) <= {"metrics.json"}  # it names the evaluating commit


# -------------------------------------------------------------------------------- what a job reads


@pytest.mark.long
def test_every_job_runs_where_nothing_but_its_inputs_and_params_are(finished, tmp_path):
    """The checkpoint, the features for the last mile, git, data.dvc: none of them is needed."""
    summary = finished.snakemake("--detailed-summary", check=True).stdout.splitlines()
    header = next(line for line in summary if line.startswith("output_file")).split("\t")
    jobs = {}
    for line in summary[summary.index("\t".join(header)) + 1 :]:
        facts = dict(zip(header, line.split("\t"), strict=False))
        if facts.get("shellcmd", "-") not in ("-", ""):
            jobs.setdefault(
                facts["shellcmd"], (facts["rule"], facts["input-file(s)"].split(","), [])
            )[2].append(facts["output_file"])
    counts = Counter(rule for rule, _, _ in jobs.values())
    assert counts["train"] == counts["detect"] == counts["evaluate"] == counts["draw"] == len(ROWS)
    assert {
        "convert",
        "pack",
        "audit",
        "evaluate_released",
        "card",
        "tabulate",
        "page",
        "report_page",
    } <= set(counts)
    for number, (command, (rule, inputs, outputs)) in enumerate(jobs.items()):
        folder = tmp_path / str(number)
        for file in inputs:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            source = finished.folder / file
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target)
        for file in [*outputs, *re.findall(r">> (\S+)", command)]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        # only the job that is about MLflow needs it
        variables = {} if rule == "track" else {"MLFLOW_TRACKING_URI": "sqlite:////dev/null/all.db"}
        done = Place(folder, finished.copy).run("bash", "-c", command, check=False, **variables)
        assert done.returncode == 0, f"{rule}: {command}\n{done.stdout}\n{done.stderr}"
        assert all((folder / file).exists() for file in outputs), f"{rule}: {command}"
        if rule in ("detect", "train"):
            name = "detections.json" if rule == "detect" else "model.pt"
            (file,) = (file for file in outputs if file.endswith(name))
            assert (folder / file).read_bytes() == (finished.folder / file).read_bytes()
        if rule == "evaluate":
            (file,) = (file for file in outputs if file.endswith("metrics.json"))
            ours, theirs = (folder / file).read_text(), (finished.folder / file).read_text()
            assert json.loads(ours) == json.loads(theirs)
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------- results of before


# the last commit without records
BEFORE = "51fbde02abaec3eb9b30e828de8d421fe6ed243f"


@pytest.mark.long
def test_results_of_before_there_were_records_are_taken_over(finished, tmp_path):
    """Made by the code of that commit; then nothing is planned, and no number moves."""
    old = tmp_path / "old"
    asked = ["git", "-C", str(CHECKOUT), "cat-file", "-e", f"{BEFORE}^{{commit}}"]
    found = subprocess.run(asked, check=False, capture_output=True)
    if found.returncode:
        pytest.skip("the history of this clone does not go back to it")
    git(tmp_path, "clone", "--quiet", "--no-checkout", str(CHECKOUT), "old")
    git(old, "checkout", "--quiet", BEFORE)
    edition = yaml.safe_load((finished.copy / "params/editions/demo.yaml").read_text())
    # keys that that commit does not know
    edition.pop("shareable")
    edition["all_experiments"].pop("expect")
    (old / "params/editions/demo.yaml").write_text(yaml.safe_dump(edition))
    work = tmp_path / "work"
    shutil.copytree(finished.folder / "data", work / "data")
    shutil.copytree(finished.folder / ".dvc", work / ".dvc")
    shutil.copy(finished.folder / "data.dvc", work / "data.dvc")
    before = Place(work, old)
    # the command of this environment begins with a module that there was not then
    entry = old / "src/actionformer/commands"
    entry.mkdir()
    (entry / "__init__.py").touch()
    (entry / "main.py").write_text("from actionformer.cli import main\n")
    before.snakemake()
    percent = {row: before.read(row, "metrics.json")["percent"] for row in ROWS}
    models = {row: (before.seed(row) / "model.pt").read_bytes() for row in ROWS}
    now = Place(work, finished.copy)
    assert now.planned()["train"] == 2
    said = now.run(
        "actionformer", "adopt", "--params", f"{now.copy}/params", "--rows", *ROWS
    ).stdout
    assert "products are up to date" in said
    assert "Nothing to be done" in now.snakemake("-n").stdout
    for row in ROWS:
        assert now.read(row, "metrics.json")["percent"] == percent[row]
        assert (now.seed(row) / "model.pt").read_bytes() == models[row]
        (session,) = now.read(row, "lineage.json")["trained_by"]
        assert session["git"]["commit"] == BEFORE
    # one run in MLflow per row still, under its new names
    assert "0 runs brought into MLflow" in now.run("actionformer", "track").stdout
    # what was made with other params is not taken over
    now.params("editions/demo.yaml", experiments={OTHER: {"training": {"lr": 0.5}}})
    assert now.planned() == EVERY_RUN_OF_A_ROW
    git(finished.copy, "checkout", "--quiet", ".")


# --------------------------------------------------------------------------- the table in the docs


def test_every_line_of_the_table_names_the_test_that_performs_it():
    lines = re.findall(
        r"^\| .* \| `(test_\w+)` \|$", (CHECKOUT / "docs/rerun.md").read_text(), re.M
    )
    tests = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.M))
    assert len(lines) > 20
    assert set(lines) <= tests


def interrupted(place: Place, command: list[str], log: Path, words: str) -> int:
    """Start a command in a process group of its own; Ctrl-C once a log holds these words."""
    environment = os.environ | {"PYTHONPATH": str(place.copy / "src")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=place.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        if log.exists() and words in log.read_text():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(60)


@pytest.mark.long
def test_an_interrupted_retraining_goes_on_and_the_finished_run_is_aside(own):
    own.params("editions/demo.yaml", experiments={ROW: {"training": {"schedule_epochs": 6}}})
    log = own.folder / f"results/demo/logs/train/{ROW}-seed0.log"
    before = (own.seed(ROW) / "model.pt").read_bytes()
    log.unlink()
    assert interrupted(own, own.command(), log, "epoch 2/6") != 0
    (aside,) = (own.folder / f"results/demo/{ROW}/earlier").iterdir()
    assert (aside / "model.pt").read_bytes() == before
    own.snakemake()
    assert re.search(r"goes on after epoch [2-5]/6", log.read_text())
    assert [path.name for path in (own.folder / f"results/demo/{ROW}/earlier").iterdir()] == [
        aside.name
    ]
    sessions = own.read(ROW, "lineage.json")["trained_by"]
    assert (sessions[0]["first_epoch"], sessions[-1]["last_epoch"]) == (0, 5)
    assert own.planned() == {}
