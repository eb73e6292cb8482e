"""Finished runs that several machines share: fetched where they are there, put there where not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import lab
from actionformer import provenance
from actionformer.commands.main import main
from actionformer.data.features import manifest_path
from actionformer.files import writing
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.result_cache import ResultCache
from actionformer.training import checkpoint, loop
from conftest import contents, run_command

SHORT = ("training.schedule_epochs=1", "training.warmup_epochs=1", "data.videos=4")
ROW = ("thumos14_i3d", "--set", *SHORT)
COMMITTED = {"commit": "c" * 40, "dirty": False}


@pytest.fixture(scope="module")
def lab_folder(workspace, tmp_path_factory) -> Path:
    """A cache that a machine has put a trained and evaluated run into. Read only."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setattr(provenance, "git_state", lambda: COMMITTED)
        assert main(["convert", "thumos14"]) == 0
        assert main(["pack", "thumos14", "i3d"]) == 0
        assert main(["train", *ROW, "--cache", str(cache)]) == 0
        assert main(["detect", *ROW, "--cache", str(cache)]) == 0
    return cache


@pytest.fixture
def cache(lab_folder, tmp_path) -> Path:
    """The same, to be written to."""
    return shutil.copytree(lab_folder, tmp_path / "cache")


@pytest.fixture
def machine(workspace, tmp_path, monkeypatch) -> Path:
    """Another machine with the same data, as the current folder; it has computed nothing."""
    for folder in ("data", "build", ".dvc"):
        shutil.copytree(workspace / folder, tmp_path / "machine" / folder)
    shutil.copy(workspace / "data.dvc", tmp_path / "machine")
    monkeypatch.chdir(tmp_path / "machine")
    monkeypatch.setattr(provenance, "git_state", lambda: COMMITTED)
    return tmp_path / "machine"


@pytest.fixture
def no_training(monkeypatch) -> None:
    """A machine that can't train."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(loop, "train", fail)


def run_of(folder: Path) -> Path:
    (run,) = (folder / "results/demo").glob("thumos14_i3d*/seed0")
    return run


def the_entry(cache: Path, stage: str) -> Path:
    (found,) = (cache / stage).glob("*/entry.json")
    return found


# ---------------------------------------------------------------------------------------- fetching


def test_a_run_is_fetched_bit_for_bit_and_says_who_trained_it(
    workspace, machine, lab_folder, no_training, capsys
):
    before = contents(lab_folder)
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    assert f"fetched from {lab_folder} (epoch 1: cccccccccccc, cpu)" in capsys.readouterr().out
    theirs, ours = run_of(workspace), run_of(machine)
    for name in ("model.pt", "history.csv", "params.yaml", "model.manifest.json"):
        assert file_md5(ours / name) == file_md5(theirs / name), name
    lineage = read_object(ours / "lineage.json")
    assert lineage.pop("fetched_from") == str(lab_folder)
    told = read_object(theirs / "lineage.json")
    assert lineage == told
    # not only equal: metrics.json, which names it, is then the same file
    assert json.dumps(lineage["trained_by"]) == json.dumps(told["trained_by"])
    assert contents(lab_folder) == before


def test_detections_are_fetched_without_the_network(
    workspace, machine, lab_folder, no_training, monkeypatch, capsys
):
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    (run_of(machine) / "model.pt").unlink()
    assert main(["detect", *ROW, "--cache", str(lab_folder)]) == 0
    assert f"fetched from {lab_folder} (cccccccccccc, cpu)" in capsys.readouterr().out
    for name in ("detections.json", "detections.manifest.json"):
        assert file_md5(run_of(machine) / name) == file_md5(run_of(workspace) / name), name


def test_a_fetched_run_is_a_trained_one_to_the_next_call(machine, lab_folder, no_training, capsys):
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    before = file_md5(run_of(machine) / "model.pt")
    assert main(["train", *ROW]) == 0
    assert "trained with these params, data and seed already" in capsys.readouterr().out
    assert file_md5(run_of(machine) / "model.pt") == before
    assert "fetched_from" in read_object(run_of(machine) / "lineage.json")


def test_a_fetch_that_is_killed_half_way_is_made_again(
    machine, lab_folder, no_training, monkeypatch
):
    put = writing.put_in_place

    def stop(part: Path, target: Path) -> None:
        if target.name == "model.pt":
            raise KeyboardInterrupt
        put(part, target)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "put_in_place", stop)
        assert main(["train", *ROW, "--cache", str(lab_folder)]) == 130
    assert not (run_of(machine) / "model.pt").exists()
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    assert not list((machine / "results").rglob("earlier"))
    assert not list(machine.rglob("*.part*"))


def test_a_fetched_run_is_traced_to_where_it_came_from(machine, lab_folder, no_training, capsys):
    for stage in ("train", "detect"):
        assert main([stage, *ROW, "--cache", str(lab_folder)]) == 0
    assert main(["evaluate", *ROW]) == 0
    assert main(["trace", str(run_of(machine))]) == 0
    assert f"fetched from: {lab_folder}" in capsys.readouterr().out


def test_another_environment_is_said(machine, lab_folder, no_training, monkeypatch, capsys):
    monkeypatch.setattr(provenance, "lock_md5", lambda: "another")
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    assert "cpu; another requirements.lock than here)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other", [("--seed", "1"), ("--set", "training.lr=0.01"), ("--set", "data.videos=5")]
)
def test_another_seed_or_other_params_are_another_run(machine, lab_folder, no_training, other):
    with pytest.raises(AssertionError, match="it trains"):
        main(["train", *ROW, *other, "--cache", str(lab_folder)])


def test_other_data_are_another_run(machine, lab_folder, no_training):
    manifest = manifest_path(machine / "build/demo/thumos14/i3d.h5")
    manifest.write_text(json.dumps(read_object(manifest) | {"md5": "0" * 32}))
    with pytest.raises(AssertionError, match="it trains"):
        main(["train", *ROW, "--cache", str(lab_folder)])


def test_other_post_processing_is_the_same_training(machine, lab_folder, no_training):
    """A training does no post-processing."""
    other = ("--set", "inference.soft_nms_sigma=0.4")
    assert main(["train", *ROW, *other, "--cache", str(lab_folder)]) == 0


def test_anew_trains_and_leaves_what_is_there(machine, lab_folder, no_training):
    with pytest.raises(AssertionError, match="it trains"):
        main(["train", *ROW, "--cache", str(lab_folder), "--anew"])


def test_a_training_that_has_begun_here_goes_on(machine, lab_folder, monkeypatch, capsys):
    save = checkpoint.save

    def stop(path: Path, content: object) -> None:
        if path.name == "model.pt":
            raise KeyboardInterrupt
        save(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        assert main(["train", *ROW]) == 130
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    assert "written from checkpoint.pt" in capsys.readouterr().out
    assert "fetched_from" not in read_object(run_of(machine) / "lineage.json")


# ---------------------------------------------------------------------------------------- writing


def test_an_entry_carries_device_precision_and_lock(lab_folder):
    entry = read_object(the_entry(lab_folder, "train"))
    (session,) = entry["made_by"]
    assert session["device"] == "cpu"
    assert session["precision"] == "float32"
    assert session["environment"]["lock"] == provenance.lock_md5()
    assert session["git"] == COMMITTED
    assert (session["first_epoch"], session["last_epoch"]) == (0, 0)
    for name, file in entry["files"].items():
        path = the_entry(lab_folder, "train").with_name(f"{file['md5']}-{name}")
        assert (file_md5(path), path.stat().st_size) == (file["md5"], file["size"])


def test_what_is_there_is_not_written_again(machine, cache):
    before = contents(cache)
    assert main(["train", *ROW, "--cache", str(cache), "--anew"]) == 0
    assert contents(cache) == before


def test_a_checkout_with_changes_shares_nothing(machine, tmp_path, monkeypatch, capsys):
    """Nobody could look up what computed it."""
    monkeypatch.setattr(provenance, "git_state", lambda: COMMITTED | {"dirty": True})
    (tmp_path / "new").mkdir()
    assert main(["train", *ROW, "--cache", str(tmp_path / "new")]) == 0
    assert "not shared: it was computed by a checkout with changes" in capsys.readouterr().err
    assert contents(tmp_path / "new") == {}


def test_a_cache_that_cannot_be_written_fails_no_training(machine, tmp_path, monkeypatch, capsys):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    (tmp_path / "new").mkdir()
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.put_file", refuse)
    assert main(["train", *ROW, "--cache", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().err
    assert f"not shared: {tmp_path / 'new'}: Access Denied; `actionformer share" in said
    monkeypatch.undo()
    monkeypatch.chdir(machine)
    assert main(["share", str(tmp_path / "new")]) == 0
    assert the_entry(tmp_path / "new", "train").exists()


def test_what_is_damaged_here_is_not_given_to_others(machine, lab_folder, tmp_path, capsys):
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 0
    path = run_of(machine) / "model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (tmp_path / "new").mkdir()
    assert main(["share", str(tmp_path / "new")]) == 1
    assert "not shared: it is not what its manifest says" in capsys.readouterr().err
    assert contents(tmp_path / "new") == {}


def test_share_brings_what_was_computed_before_there_was_a_cache(workspace, lab_folder, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        assert main(["share", str(tmp_path)]) == 0
    theirs, ours = contents(lab_folder), contents(tmp_path)
    assert theirs.keys() == ours.keys()
    for name in theirs:
        if name.endswith("entry.json"):
            first, second = json.loads(theirs[name]), json.loads(ours[name])
            assert first | {"shared": ""} == second | {"shared": ""}
        else:
            assert theirs[name] == ours[name]


# --------------------------------------------------------------------------------- what is damaged


def damage_model(cache: Path) -> None:
    (path,) = (cache / "train").glob("*/*-model.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_model(cache: Path) -> None:
    """As somebody who trims a cache while others read."""
    for path in (cache / "train").glob("*/*-model.pt"):
        path.unlink()


def cut_entry(cache: Path) -> None:
    """As a process that is killed while it writes into a folder."""
    path = the_entry(cache, "train")
    path.write_bytes(path.read_bytes()[:100])


def empty_entry(cache: Path) -> None:
    the_entry(cache, "train").write_text("{}")


def nobody_made_it(cache: Path) -> None:
    path = the_entry(cache, "train")
    path.write_text(json.dumps(read_object(path) | {"made_by": []}))


def lose_history(cache: Path) -> None:
    path = the_entry(cache, "train")
    entry = read_object(path)
    del entry["files"]["history.csv"]
    path.write_text(json.dumps(entry))


def take_another(cache: Path) -> None:
    """The entry of another run, copied to this one's place."""
    path = the_entry(cache, "train")
    entry = read_object(path)
    entry["made_with"]["inputs"]["seed"] = 1
    path.write_text(json.dumps(entry))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_model, "-model.pt has md5"),
        (lose_model, "-model.pt is gone"),
        (cut_entry, "entry.json:"),
        (empty_entry, "entry.json: made_with Field required"),
        (nobody_made_it, "entry.json: made_by List should have at least 1 item"),
        (lose_history, "entry.json lacks history.csv"),
        (take_another, "entry.json is of another product"),
    ],
)
def test_a_damaged_entry_is_one_line_and_is_made_anew(machine, cache, damage, said, capsys):
    damage(cache)
    assert main(["train", *ROW, "--cache", str(cache)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert said in line
    assert "made anew" in line
    assert "fetched_from" not in read_object(run_of(machine) / "lineage.json")
    assert not list(machine.rglob("*.part*"))
    # nothing stays of the damaged one; a history tells how long its epochs took
    (folder,) = (cache / "train").iterdir()
    files = read_object(folder / "entry.json")["files"]
    named = [f"{file['md5']}-{name}" for name, file in files.items()]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*named, "entry.json"])
    assert file_md5(folder / named[0]) == file_md5(run_of(machine) / "model.pt")


def test_the_writer_of_an_entry_that_was_killed_left_none(machine, cache, no_training):
    """It is written last."""
    the_entry(cache, "train").unlink()
    with pytest.raises(AssertionError, match="it trains"):
        main(["train", *ROW, "--cache", str(cache)])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere", "nowhere: no cache of results; expected a folder that exists, or s3://"),
        ("file:///nowhere", "no cache of results"),
        ("foo://x", "Protocol not known: foo"),
        ("gs://x/y", "Please install gcsfs"),
    ],
)
def test_an_address_of_no_cache_is_one_line_before_anything_is_computed(
    machine, address, said, no_training, capsys
):
    assert main(["train", *ROW, "--cache", address]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (machine / "results").exists()


def test_a_cache_that_does_not_answer_ends_the_job(machine, lab_folder, no_training, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError("Connection reset")

    cache = ResultCache(str(lab_folder))
    monkeypatch.setattr(cache._files, "cat_file", fail)
    assert main(["train", *ROW, "--cache", str(lab_folder)]) == 1


# ------------------------------------------------------------------------------------ a whole lab


@pytest.mark.skipif(bool(lab.lacking("s3fs", "boto3", "moto")), reason="make env EXTRAS='s3 moto'")
def test_a_reader_without_gpu_gets_all_tables_from_a_bucket(
    workspace, machine, monkeypatch, capsys
):
    with lab.bucket() as keys, monkeypatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        address = f"s3://{lab.BUCKET}/results"
        patch.chdir(workspace)
        assert main(["evaluate", *ROW]) == 0
        of_rows = ["--rows", *ROW, "--seeds", "0", "--no-released"]
        assert main(["tabulate", *of_rows]) == 0
        assert main(["share", address]) == 0
        chosen = ["rows=thumos14_i3d", "seeds=0", "released=false", f"set={','.join(SHORT)}"]
        called = ["snakemake", "--snakefile", str(Path(__file__).parents[1] / "Snakefile")]
        called += ["--cores", "2", "--config", *chosen, f"cache={address}"]
        done = run_command(machine, *called)
    assert "100%" in done.stderr
    logs = (machine / "results/demo/logs").rglob("*-seed0.log")
    fetched = [path.parent.name for path in logs if f"fetched from {address}" in path.read_text()]
    assert sorted(fetched) == ["detect", "train"]
    table = "results/demo/tables/thumos14.csv"
    assert (machine / table).read_bytes() == (workspace / table).read_bytes()


@pytest.mark.skipif(bool(lab.lacking("s3fs", "boto3", "moto")), reason="make env EXTRAS='s3 moto'")
def test_a_bucket_that_is_not_there_is_one_line(machine, no_training, monkeypatch, capsys):
    with lab.bucket() as keys:
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        assert main(["train", *ROW, "--cache", "s3://another/results"]) == 1
    assert "no bucket 'another' that can be read from here" in capsys.readouterr().err
