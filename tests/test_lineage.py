"""From any digit back to what made it, forward to what stands on it, and whether it still stands.

`actionformer verify`: every digit that lies somewhere is what its inputs give, or has a line.
`actionformer trace`: a tree of files, each as it was and whether it is still there and the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from actionformer import layout
from actionformer.commands.main import main
from actionformer.params.files import load_experiment
from actionformer.stages.bootstrap import bootstrap
from actionformer.stages.report import table_texts
from actionformer.stages.shown import Shown
from actionformer.stages.verify import Findings
from actionformer.tracking.read import logged_rows
from actionformer.training.history import read_history, write_history
from conftest import CHECKOUT, run_command
from project import shorten

ROW = ["thumos14_i3d", "--params", "params"]
RUN = "results/demo/thumos14_i3d/seed0"
STAGES = (
    ["convert", "thumos14"],
    ["pack", "thumos14", "i3d"],
    ["evaluate-released", *ROW],
    ["train", *ROW],
    ["detect", *ROW],
    ["evaluate", *ROW],
    ["draw", *ROW, "--seeds", "0"],
    ["card", *ROW, "--seeds", "0"],
    ["tabulate", "--table", "thumos14", "--rows", *ROW, "--seeds", "0"],
    ["page", "thumos14"],
    ["report", "--rows", *ROW, "--seeds", "0"],
    ["track"],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, demo_data):
    """A folder with a row's results, from weights to report."""
    folder = tmp_path_factory.mktemp("made") / "project"
    shutil.copytree(demo_data / "thumos14", folder / "data/demo/thumos14")
    shutil.copy(CHECKOUT / "data.dvc", folder)
    shutil.copytree(CHECKOUT / "params", folder / "params")
    shorten(folder / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for stage in STAGES:
            assert main(stage) == 0, stage
    return folder


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A copy of them, the current folder."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path("results/demo")


def verified(capsys) -> tuple[int, list[str], str]:
    """Exit code, a line per mismatch, and what else was said."""
    code = main(["verify"])
    said = capsys.readouterr()
    lines = said.err.splitlines()
    if code:
        assert re.match(r"actionformer verify: \d+ mismatch(es)?; each has a line above", lines[-1])
        assert int(re.findall(r"\d+", lines[-1])[0]) == len(lines) - 1
    return code, lines[:-1], said.out


def of(results: Path, name: str) -> Path:
    (path,) = results.glob(f"**/{name}")
    return path


def test_what_the_stages_have_made_is_what_verify_makes_again(results, capsys):
    code, wrong, said = verified(capsys)
    assert (code, wrong) == (0, [])
    count = re.match(r"([\d,]+) numbers in (\d+) files computed again", said)
    assert int(count[1].replace(",", "")) > 5000
    # metrics twice, diagnosis, twelve figures, a table in four forms, the page, card and report
    assert int(count[2]) == 2 + 1 + len(layout.FIGURES) + 4 + 1 + 1 + 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tables/thumos14.md", r"thumos14\.md:\d+: "),
        ("tables/thumos14.csv", r"thumos14\.csv:\d+: "),
        ("tables/thumos14.tex", r"thumos14\.tex:\d+: "),
        ("tables/thumos14.html", r"thumos14\.html:\d+: "),
        ("tables/index.md", r"index\.md:\d+: "),
        ("README.md", r"README\.md:\d+: "),
        ("report.html", r"report\.html:\d+: "),
        ("seed0/metrics.json", r"metrics\.json: percent\.mAP/0\.3 is "),
        ("released/metrics.json", r"metrics\.json: percent\.mAP/0\.3 is "),
        ("seed0/diagnosis.json", r"diagnosis\.json: "),
        ("figures/map_tiou.json", r"map_tiou\.json: spec"),
    ],
)
def test_one_digit_that_is_changed_anywhere_has_a_line_that_says_where(results, capsys, name, says):
    path = of(results, name)
    text = path.read_text()
    if path.suffix == ".json":
        # the first number behind the first mAP at tIoU 0.3, or the first with decimals
        place = re.search(r'"mAP/0\.3": \d+\.', text) or re.search(r"\d+\.(?=\d{3})", text)
    else:
        place = re.search(r"\b\d+\.(?=\d\d\b)", text)
    at = place.end()
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert [line for line in wrong if re.search(says, line)], wrong
    # and what is made of the file, or logged of it, no longer agrees with it
    others = [line for line in wrong if str(path) not in line]
    assert all(re.search("made of another|in MLflow|index.md", line) for line in others), wrong


def test_another_score_in_the_detections_shows_in_everything_computed_from_them(results, capsys):
    path = of(results, "seed0/detections.json")
    content = json.loads(path.read_text())
    video = next(name for name, found in content["results"].items() if found)
    for found in content["results"][video]:
        found["segment"] = [0.0, 0.1]
    path.write_text(json.dumps(content))
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert any("not the detections of its metrics" in line for line in wrong)
    assert any("percent.mAP/average is" in line for line in wrong)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content[::-1]])
def test_nothing_is_detected_with_other_weights_than_the_manifest_tells_of(results, capsys, damage):
    """What is made of them would be said to be made of the others."""
    model = Path(RUN) / "model.pt"
    before = (Path(RUN) / "detections.json").read_bytes()
    model.write_bytes(damage(model.read_bytes()))
    assert main(["detect", *ROW]) == 1
    assert "beside it tells of; delete it and train again" in capsys.readouterr().err
    assert (Path(RUN) / "detections.json").read_bytes() == before
    model.unlink()
    assert main(["train", *ROW]) == 0
    assert main(["detect", *ROW]) == 0
    assert (Path(RUN) / "detections.json").read_bytes() == before


def test_a_digit_of_mlflows_has_a_line_and_a_run_that_it_lacks_a_remark(results, capsys):
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE latest_metrics SET value = 12.34 WHERE key = 'mAP/average'")
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert all("mAP/average is 12.34 in MLflow" in line for line in wrong)
    Path("mlflow.db").unlink()
    code, wrong, said = verified(capsys)
    assert (code, wrong) == (0, [])
    assert "not in MLflow; `actionformer track` brings it in" in said


def test_a_mean_and_a_verdict_of_a_row_in_mlflow_are_what_its_seeds_give(results, capsys):
    of_row = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'seeds')"
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        change = "UPDATE latest_metrics SET value = 12.34 WHERE key = 'mAP/0.5' AND "
        assert database.execute(change + of_row).rowcount == 1
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert len(wrong) == 1
    assert "results/demo/thumos14_i3d: mAP/0.5 is 12.34 in MLflow, computed again " in wrong[0]
    # another run of this seed came later: its row's mean is of that one
    client = MlflowClient()
    run = client.get_run(next(iter(runs_of_seeds(client))))
    later = client.create_run(run.info.experiment_id, tags=run.data.tags | {"identity": "other"})
    client.log_metric(later.info.run_id, "mAP/0.5", 1.0)
    code, wrong, said = verified(capsys)
    assert (code, wrong) == (0, [])
    assert "results/demo/thumos14_i3d: MLflow's mean is of 1 runs, not of these 1" in said


def runs_of_seeds(client: MlflowClient) -> list[str]:
    """Ids of the trained runs in MLflow."""
    tables = [table.experiment_id for table in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(tables, "tags.kind = 'seed'")]


def test_a_verdict_in_mlflow_is_what_the_seeds_of_its_row_give(results, capsys):
    """Verdicts are of rows that compare: as if this one did."""
    path = of(results, "seed0/metrics.json")
    metrics = json.loads(path.read_text())
    metrics["made_with"]["params"]["comparable"] = True
    path.write_text(json.dumps(metrics))
    code, wrong, _ = verified(capsys)
    assert code == 1
    words = "verdict.mAP/average is None in MLflow, computed again undecided"
    assert any(words in line for line in wrong), wrong


def test_without_annotations_what_needs_them_is_said_and_all_else_is_checked(results, capsys):
    shutil.rmtree("build")
    code, wrong, said = verified(capsys)
    assert (code, wrong) == (0, [])
    assert said.count("needs annotations (build/demo/thumos14/annotations.json)") == 3
    table = of(results, "tables/thumos14.csv")
    table.write_text(table.read_text().replace("0.", "1."))
    assert verified(capsys)[0] == 1


def test_other_annotations_than_those_of_the_evaluation_are_a_mismatch(results, capsys):
    manifest = Path("build/demo/thumos14/annotations.manifest.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"md5": "0" * 32}))
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert any("evaluated on annotations of md5" in line for line in wrong)


def test_a_page_that_was_made_of_other_runs_is_outdated_whatever_it_says(results, capsys):
    history = of(results, "seed0/history.csv")
    history.write_text(history.read_text() + "\n")
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert any("thumos14.manifest.json: made of another" in line for line in wrong)


@pytest.mark.parametrize("name", ["tables/thumos14.md", "README.md", "report.html"])
def test_a_page_that_no_manifest_speaks_for_is_a_mismatch(results, capsys, name):
    page = of(results, name)
    layout.manifest(page).unlink()
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert f"{page}: no manifest says what it shows; make it again" in wrong


def test_a_number_that_is_gone_and_one_that_is_null_are_not_the_same(results):
    path = Path("numbers.json")
    findings = Findings()
    findings.compare_values(path, {"a": 1, "b": None}, {"a": 1})
    findings.compare_values(path, {"a": {}}, {"a": 1})
    assert len(findings.mismatches) == 2


def test_one_broken_file_hides_no_other_finding(results, capsys):
    of(results, "seed0/metrics.json").write_text("{")
    table = of(results, "tables/thumos14.tex")
    table.write_text(table.read_text().replace("0.", "1."))
    diagnosis = of(results, "released/metrics.json")
    diagnosis.write_text(diagnosis.read_text().replace('"videos": 30', '"videos": 31'))
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert any("seed0/metrics.json: not readable" in line for line in wrong), wrong
    assert any("videos is 31, computed again 30" in line for line in wrong), wrong


def test_nothing_to_verify_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["verify"]) == 1
    assert "results/demo: no results; `snakemake --cores all` makes them" in capsys.readouterr().err


def test_where_numbers_compare_the_table_has_the_intervals_of_a_bootstrap(results, capsys):
    """As in the paper edition, which is the only one that compares."""
    experiment = load_experiment("thumos14_i3d", "demo", params=Path("params"))
    experiment = experiment.model_copy(update={"comparable": True})
    bootstrap(experiment, [0], released=True)
    table = table_texts(Shown([experiment], [0], True, ""))["md"]
    lines = {}
    for line in table.splitlines():
        if line.startswith("|"):
            _, _, what, *cells = line.split("|")
            lines[what.strip()] = cells
    told = json.loads(of(results, "bootstrap.json").read_text())
    average = told["mAP"]["average"]
    assert average["low"] < average["value"] < average["high"]
    assert f" {average['low']:.2f} to {average['high']:.2f} " in lines["videos (bootstrap)"]
    beside = told["less_released_checkpoint"]["average"]
    assert f" {beside['low']:+.2f} to {beside['high']:+.2f} " in lines["less released (bootstrap)"]
    assert lines["verdict"][:-1] == [" undecided "] * 6
    assert main(["track"]) == 0
    in_mlflow = logged_rows([Path(RUN)])[Path(RUN)].metrics
    assert in_mlflow["videos_low/mAP/average"] == average["low"]
    assert in_mlflow["less_released_high/mAP/average"] == beside["high"]
    oracle = float(lines["best epoch (oracle)"][-2])
    assert in_mlflow["best_epoch_oracle/mAP/average"] == pytest.approx(oracle, abs=0.005)
    told["mAP"]["average"]["low"] += 0.01
    of(results, "bootstrap.json").write_text(json.dumps(told))
    code, wrong, _ = verified(capsys)
    assert code == 1
    assert any("bootstrap.json: mAP.average.low is" in line for line in wrong)


# ------------------------------------------------------------------------------------- train again


def rerun(capsys) -> tuple[int, list[str], str]:
    code = main(["verify", "--rerun", *ROW, "--device", "cpu"])
    said = capsys.readouterr()
    return code, said.err.splitlines(), said.out


def test_a_run_that_is_trained_again_has_the_same_bits(results, capsys):
    code, _, said = rerun(capsys)
    assert code == 0
    assert "thumos14_i3d, seed 0: the same weights and detections, bit for bit" in said
    assert not list(Path("build/again").rglob("model.pt"))


def test_other_weights_than_its_seed_gives_have_a_line_each(results, capsys):
    path = of(results, "seed0/model.pt")
    content = torch.load(path, weights_only=True)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name].view(-1)[0] += 1e-3
    torch.save(content, path)
    code, wrong, _ = rerun(capsys)
    assert code == 1
    assert re.search(rf"model\.pt: {re.escape(name)} differs by up to 0\.0", wrong[0])
    assert wrong[-1].endswith("1 mismatch; each has a line above")


def test_another_loss_in_the_history_has_a_line_with_its_epoch(results, capsys):
    path = of(results, "seed0/history.csv")
    history = read_history(path)
    history[0]["loss/total"] += 1e-9
    write_history(path, history)
    code, wrong, _ = rerun(capsys)
    assert code == 1
    assert "epoch 1, loss/total is" in wrong[0]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"device": "cuda:0"}, r"trained on cuda \(cuda\) in float32, this is cpu \("),
        ({"precision": "bfloat16"}, r"in bfloat16, this is cpu"),
    ],
)
def test_another_device_or_precision_is_refused_with_the_reason(results, capsys, told, words):
    path = of(results, "seed0/lineage.json")
    lineage = json.loads(path.read_text())
    lineage["trained_by"][0] |= told
    path.write_text(json.dumps(lineage))
    code, said, _ = rerun(capsys)
    assert code == 1
    assert re.search(words, said[-1])


def test_detections_of_another_device_are_not_compared_and_it_says_so(results, capsys):
    manifest = of(results, "seed0/detections.manifest.json")
    content = json.loads(manifest.read_text())
    content["detected_by"]["device"] = "cuda:0"
    manifest.write_text(json.dumps(content))
    of(results, "seed0/detections.json").write_text('{"results": {}}')
    code, _, said = rerun(capsys)
    assert code == 0
    assert re.search(r"detections\.json: of cuda \(cuda\) in float32, .* not compared", said)


def test_detections_of_other_params_are_refused_before_anything_is_trained(results, capsys):
    row = Path("params/experiments/thumos14_i3d.yaml")
    row.write_text(row.read_text() + "inference: {soft_nms_sigma: 0.123}\n")
    code, said, _ = rerun(capsys)
    assert code == 1
    assert "detections.json: made otherwise than today (inference.soft_nms_sigma: " in said[-1]
    assert not list(Path("build/again").rglob("checkpoint.pt"))


def test_a_run_of_other_params_is_refused_since_there_is_nothing_to_compare(results, capsys):
    row = Path("params/experiments/thumos14_i3d.yaml")
    row.write_text(row.read_text() + "training: {clip_grad_norm: 0.5}\n")
    code, said, _ = rerun(capsys)
    assert code == 1
    assert "trained otherwise than today (training.clip_grad_norm: " in said[-1]


def test_a_row_without_rerun_is_one_line(results, capsys):
    assert main(["verify", "thumos14_i3d"]) == 1
    assert "a row goes with --rerun" in capsys.readouterr().err
    assert main(["verify", "--rerun", *ROW, "--archive", "results.zip"]) == 1
    assert "--archive holds no features" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- archive

PAGES = ["*.md", "*.html", "tables/*.csv", "tables/*.tex"]


def archived(*arguments: str) -> Path:
    assert main(["archive", "--out", "results.zip", "--params", "params", *arguments]) == 0
    return Path("results.zip")


def changed(archive: Path, name: str, content: bytes | None) -> None:
    """Let a member hold something else, or be gone; a new name is a member too many."""
    with zipfile.ZipFile(archive) as packed:
        members = {info.filename: packed.read(info) for info in packed.infolist()}
    members.pop(name, None)
    if content is not None:
        members[name] = content
    with zipfile.ZipFile(archive, "w") as packed:
        for member, text in members.items():
            packed.writestr(member, text)


def in_archive(capsys, archive: Path) -> tuple[int, list[str], str]:
    capsys.readouterr()
    code = main(["verify", "--archive", str(archive)])
    said = capsys.readouterr()
    return code, said.err.splitlines(), said.out


def test_an_archive_holds_what_its_crate_says_and_verifies_from_nothing_else(
    results, tmp_path, monkeypatch, capsys
):
    archive = archived().absolute()
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
        crate = json.loads(packed.read("ro-crate-metadata.json"))
        entities = {entity["@id"]: entity for entity in crate["@graph"]}
        listed = {name for name, entity in entities.items() if "File" in entity["@type"]}
        assert listed == names - {"ro-crate-metadata.json"}
        for name in listed:
            md5 = hashlib.md5(packed.read(name), usedforsecurity=False).hexdigest()
            assert md5 == entities[name]["md5"], name
    assert entities["./"]["mainEntity"] == {"@id": "Snakefile"}
    (run,) = [
        one for one in entities.values() if one.get("name", "").startswith("thumos14_i3d-seed0")
    ]
    assert run["@type"] == "CreateAction"
    assert {"@id": f"{RUN}/model.pt"} in run["result"]
    read = {entities[item["@id"]]["name"]: entities[item["@id"]]["value"] for item in run["object"]}
    assert read == json.loads((Path(RUN) / "metrics.json").read_text())["lineage"]["files"]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, wrong, said = in_archive(capsys, archive)
    assert (code, wrong) == (0, [])
    assert int(re.match(r"([\d,]+) numbers", said)[1].replace(",", "")) > 5000
    assert not list((tmp_path / "empty").iterdir())


def test_the_same_results_make_the_same_archive_and_weights_can_stay_out(results):
    first = archived().read_bytes()
    assert archived().read_bytes() == first
    with zipfile.ZipFile(archived("--weights", "none")) as packed:
        assert not [name for name in packed.namelist() if name.endswith(".pt")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (f"{RUN}/metrics.json", None, "lacks results/demo/thumos14_i3d/seed0/metrics.json"),
        (f"{RUN}/metrics.json", b"{}", "metrics.json has another md5 than its crate says"),
        ("results/more.txt", b"", "holds results/more.txt, which its crate does not list"),
        ("ro-crate-metadata.json", None, "no ro-crate-metadata.json in it"),
        ("../outside.txt", b"", "a member called '../outside.txt'"),
    ],
)
def test_a_broken_archive_is_one_line(results, capsys, name, content, words):
    archive = archived()
    changed(archive, name, content)
    code, wrong, _ = in_archive(capsys, archive)
    assert code == 1
    assert len(wrong) == 1
    assert words in wrong[0]


def test_what_is_no_archive_is_one_line(results, capsys):
    Path("results.zip").write_bytes(b"no archive")
    for call in (["verify", "--archive", "results.zip"], ["rebuild", "results.zip"]):
        assert main(call) == 1
        assert "results.zip: corrupt or truncated archive" in capsys.readouterr().err


def test_an_archive_that_does_not_fit_on_the_disk_is_refused_before_it_is_unpacked(
    results, monkeypatch, capsys
):
    archive = archived()
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, wrong, _ = in_archive(capsys, archive)
    assert code == 1
    assert re.search(r"needs \d.* MB, 0.* MB are free there; free some", wrong[0]), wrong


def test_ground_truth_that_may_not_be_passed_on_stays_out_and_verify_says_what_it_needs(
    results, capsys
):
    edition = Path("params/editions/demo.yaml")
    edition.write_text(edition.read_text().replace("shareable: true", "shareable: false"))
    archive = archived()
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        assert "| THUMOS-14 |" in packed.read("LICENCES.md").decode()
        assert "| md5 only | H. Idrees" in packed.read("LICENCES.md").decode()
    assert "build/demo/thumos14/annotations.json" not in names
    assert "build/demo/thumos14/annotations.manifest.json" in names
    code, wrong, said = in_archive(capsys, archive)
    assert (code, wrong) == (0, [])
    assert said.count("needs annotations (build/demo/thumos14/annotations.json)") == 3
    assert said.strip().endswith("3 not checked: they need annotations")
    # nor does it stand in any page
    assert not showing_truth(archive)
    edition.write_text(edition.read_text().replace("shareable: false", "shareable: true"))
    assert showing_truth(archived()) == {"report.html", "timelines.json", "annotations.json"}


def test_ground_truth_of_others_stands_in_the_crate_under_its_own_licence(results):
    edition = Path("params/editions/demo.yaml")
    edition.write_text(edition.read_text().replace("shareable: true", "shareable: false"))
    dataset = Path("params/datasets/thumos14.yaml")
    dataset.write_text(dataset.read_text() + "shareable: true\n")
    with zipfile.ZipFile(archived()) as packed:
        crate = json.loads(packed.read("ro-crate-metadata.json"))
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    licence = entities[entities["build/demo/thumos14/annotations.json"]["license"]["@id"]]
    assert licence["name"] == "THUMOS-14: Apache-2.0 (synthetic)"
    assert licence["citation"].startswith("H. Idrees")
    assert "license" not in entities[f"{RUN}/metrics.json"]


def showing_truth(archive: Path) -> set[str]:
    """Names of members that hold ground truth as the database or as a figure's data."""
    database = json.loads(Path("build/demo/thumos14/annotations.json").read_text())["database"]
    found = set()
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            text = "".join(packed.read(name).decode(errors="replace").split())
            if "detections" in name:
                continue  # what was detected may be the truth
            for entry in database.values():
                for annotation in entry["annotations"]:
                    start, end = annotation["segment"]
                    forms = (f'"start":{start},"end":{end},', f'"segment":[{start},{end}]')
                    if any(form in text for form in forms):
                        found.add(Path(name).name)
    return found


def test_pages_are_rebuilt_byte_for_byte_in_a_folder_with_nothing_else(
    results, tmp_path, monkeypatch, capsys
):
    archive = archived().absolute()
    pages = [path for pattern in PAGES for path in results.rglob(pattern)]
    expected = {path: path.read_bytes() for path in pages}
    assert len(expected) == 7
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--cores", "1", "--config"]
    run_command(empty, *command, f"results={archive}")
    assert {path: (empty / path).read_bytes() for path in pages} == expected
    # nothing that lies there is lost
    monkeypatch.chdir(empty)
    of(results, "seed0/history.csv").write_text("another")
    assert main(["rebuild", str(archive)]) == 1
    assert "history.csv: lies here and is another than in" in capsys.readouterr().err
    run_command(empty, *command, f"results={archive}", "--forceall", check=False)
    assert {path: (empty / path).read_bytes() for path in pages} == expected
    assert (empty / of(results, "seed0/history.csv")).read_text() == "another"


def test_a_row_with_values_of_its_own_has_an_archive_that_can_be_read(results, capsys):
    row = [*ROW, "--set", "inference.max_segments=50"]
    for stage in ("train", "detect", "evaluate"):
        assert main([stage, *row]) == 0
    assert list(results.glob("*=*/seed0/metrics.json"))
    assert in_archive(capsys, archived())[0] == 0


def test_pages_are_not_rebuilt_from_numbers_that_their_inputs_do_not_give(
    results, tmp_path, monkeypatch, capsys
):
    path = of(results, "seed0/metrics.json")
    path.write_text(re.sub(r'("mAP/0.5": \d+\.)\d', r"\g<1>9", path.read_text(), count=1))
    archive = archived().absolute()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["rebuild", str(archive)]) == 1
    assert "metrics.json: percent.mAP/0.5 is" in capsys.readouterr().err
    assert not list(Path().iterdir())


# ------------------------------------------------------------------------------------------- trace

FEATURES = "data/demo/thumos14/features/i3d_actionformer_stride4_thumos.zip"
LEADS_TO = {
    f"{RUN}/detections.json",
    f"{RUN}/model.pt",
    "build/demo/thumos14/i3d.h5",
    "build/demo/thumos14/annotations.json",
    "data/demo/thumos14/annotations/TH14_Temporal_annotations_test.zip",
    FEATURES,
}


def traced(capsys, *arguments: str) -> dict:
    assert main(["trace", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def nodes(tree: dict) -> dict[str, dict]:
    """Name -> node, of all."""
    found = {tree["name"]: tree}
    for part in tree.get("made_of", []):
        found |= nodes(part)
    return found


@pytest.mark.parametrize(
    "subject",
    [
        "results/demo/tables/thumos14.md",
        "results/demo/tables/thumos14.tex",
        "results/demo/tables/index.md",
        "results/demo/thumos14_i3d",
        "results/demo/thumos14_i3d/README.md",
        "results/demo/thumos14_i3d/figures/map_tiou.svg",
        "results/demo/report.html",
        RUN,
        f"{RUN}/metrics.json",
        f"{RUN}/detections.json",
    ],
)
def test_whatever_shows_a_number_leads_back_to_the_publishers_files(results, capsys, subject):
    found = nodes(traced(capsys, subject))
    assert set(found) >= LEADS_TO
    assert {node["state"] for node in found.values()} == {"the same", "here"}
    assert found[FEATURES]["state"] == "the same"
    weights = found[f"{RUN}/model.pt"]["facts"]
    assert weights["seed"] == "0"
    assert re.fullmatch(r"epoch 1: [0-9a-f]{12}( with changes)?, cpu", weights["trained"])
    assert weights["environment"].endswith(", as here")
    assert (
        "training.lr: 0.0001 -> 0.002"
        in found[f"{RUN}/metrics.json"]["facts"]["beside the defaults"]
    )
    assert re.fullmatch("[0-9a-f]{32}", found[FEATURES]["facts"]["md5"])


def test_a_run_in_mlflow_leads_back_too(results, capsys):
    with closing(sqlite3.connect("mlflow.db")) as database:
        (run_id,) = database.execute(
            "SELECT run_uuid FROM runs WHERE name LIKE 'thumos14_i3d-seed0%'"
        ).fetchone()
    assert nodes(traced(capsys, run_id)).keys() >= LEADS_TO
    assert main(["trace", "0" * 32]) == 1
    assert "no run in MLflow that stands for a run's folder" in capsys.readouterr().err


def test_a_run_that_was_moved_aside_leads_to_where_it_lies_now(results, capsys):
    run_id = json.loads((Path(RUN) / "lineage.json").read_text())["mlflow_run"]
    assert main(["train", *ROW, "--anew"]) == 0
    capsys.readouterr()
    assert "/earlier/seed0-" in traced(capsys, run_id)["name"]
    shutil.rmtree(results / "thumos14_i3d/earlier")
    assert main(["trace", run_id]) == 1
    assert "its run folder is not in results/demo/thumos14_i3d any more" in capsys.readouterr().err


def test_of_each_file_it_says_whether_it_is_still_here_and_the_same(results, capsys):
    Path(FEATURES).unlink()
    labels = Path("data/demo/thumos14/annotations/category_idx.txt")
    labels.write_text(labels.read_text() + "another\n")
    (Path(RUN) / "model.pt").write_bytes(b"others")
    found = nodes(traced(capsys, "results/demo/tables/thumos14.md"))
    assert found[FEATURES]["state"] == "gone"
    assert found[str(labels)]["state"] == "changed since"
    assert found[f"{RUN}/model.pt"]["state"] == "changed since"
    assert found[f"{RUN}/detections.json"]["state"] == "the same"


def test_a_tree_for_people_says_what_was_said_once(results, capsys):
    assert main(["trace", "results/demo/tables/thumos14.md"]) == 0
    text = capsys.readouterr().out
    assert text.count("build/demo/thumos14/i3d.h5  features, the same (see above)") == 2
    assert text.count(f"{FEATURES}  publisher's file, the same\n") == 1


@pytest.mark.parametrize("source", [FEATURES, "build/demo/thumos14/i3d.h5", f"{RUN}/model.pt"])
def test_what_stands_on_a_file_is_listed_and_says_when_it_no_longer_does(results, capsys, source):
    def standing() -> dict[str, str]:
        return {item["path"]: item["outdated"] for item in traced(capsys, "--from", source)}

    runs = {f"{RUN}/metrics.json"}
    if "model" not in source:
        runs.add("results/demo/thumos14_i3d/released/metrics.json")
    pages = {
        "results/demo/tables/thumos14.md",
        "results/demo/report.html",
        "results/demo/thumos14_i3d/figures",
        "results/demo/thumos14_i3d/README.md",
    }
    before = standing()
    assert set(before) == runs | pages
    assert not any(before.values())
    Path(source).unlink()
    assert all(f"{source} is gone" in standing()[path] for path in runs)


def test_what_stands_on_params_is_outdated_by_those_that_a_stage_reads(results, capsys):
    row = Path("params/experiments/thumos14_i3d.yaml")

    def standing() -> set[str]:
        found = traced(capsys, "--from", str(row), "--params", "params")
        return {item["outdated"] for item in found if item["path"].endswith("seed0/metrics.json")}

    assert standing() == {""}
    row.write_text(row.read_text() + "inference: {soft_nms_sigma: 0.123}\n")
    (why,) = standing()
    assert re.match(r"detect: inference\.soft_nms_sigma: .* -> 0\.123", why)


def test_a_file_that_nothing_stands_on_and_one_of_no_origin_are_one_line(results, capsys):
    Path("notes.txt").write_text("a note")
    assert main(["trace", "--from", "notes.txt"]) == 1
    assert "notes.txt: no number in results/ stands on it" in capsys.readouterr().err
    assert main(["trace", "notes.txt"]) == 1
    assert "nothing beside it says what it was made of" in capsys.readouterr().err
    assert main(["trace"]) == 1
    assert "expected a number to trace back, or --from FILE" in capsys.readouterr().err
