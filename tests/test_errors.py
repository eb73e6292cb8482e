"""Bad input: a non-zero exit, one line on stderr (file, key, what to do), nothing changed."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actionformer.commands.main import main
from conftest import CHECKOUT, contents, run_command

PARAMS = CHECKOUT / "params"
ARCHIVE = "features/i3d_actionformer_stride4_thumos.zip"
MEMBER = "i3d_actionformer_stride4_thumos/video_test_0000004.npy"


def edit_yaml(path: str, old: str, new: str) -> Callable[[Path], list[str]]:
    """A copy of the params folder with one edit; the row is then looked at."""

    def prepare(tree: Path) -> list[str]:
        shutil.copytree(PARAMS, tree / "params")
        file = tree / "params" / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        edition = "demo" if "editions" in path else "paper"
        return ["params", "thumos14_i3d", "--params", "params", "--edition", edition]

    return prepare


def rewrite_member(content: bytes | None, name: str = MEMBER) -> Callable[[Path], list[str]]:
    """THUMOS's feature archive with one member replaced."""

    def prepare(tree: Path) -> list[str]:
        path = tree / "data/demo/thumos14" / ARCHIVE
        with zipfile.ZipFile(path) as old:
            members = {info.filename: old.read(info) for info in old.infolist()}
        replaced = members.pop(MEMBER)
        members[name] = replaced[: len(replaced) // 2] if content is None else content
        with zipfile.ZipFile(path, "w") as new:
            for member, data in members.items():
                new.writestr(member, data)
        return ["pack", "thumos14", "i3d"]

    return prepare


def npy(array: np.ndarray, *, pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickle)
    return buffer.getvalue()


def missing_archive(tree: Path) -> list[str]:
    (tree / "data/demo/thumos14" / ARCHIVE).unlink()
    return ["pack", "thumos14", "i3d"]


def truncated_archive(tree: Path) -> list[str]:
    path = tree / "data/demo/thumos14" / ARCHIVE
    path.write_bytes(path.read_bytes()[:100_000])
    return ["pack", "thumos14", "i3d"]


def corrupt_archive(tree: Path) -> list[str]:
    path = tree / "data/demo/thumos14" / ARCHIVE
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF  # the checksum of a member no longer fits
    path.write_bytes(content)
    return ["pack", "thumos14", "i3d"]


def escaping_tar(tree: Path) -> list[str]:
    path = tree / "data/demo/fineaction/features/fineaction_mae_g.tar.gz"
    data = npy(np.zeros((3, 22), np.float16))
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("../../v_00000001.npy")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return ["pack", "fineaction", "videomaev2_g"]


def corrupt_tar(tree: Path) -> list[str]:
    path = tree / "data/demo/fineaction/features/fineaction_mae_g.tar.gz"
    content = bytearray(path.read_bytes())
    content[100_000] ^= 0xFF
    path.write_bytes(content)
    return ["pack", "fineaction", "videomaev2_g"]


def reversed_in_the_publishers_file(tree: Path) -> list[str]:
    path = tree / "data/demo/activitynet/annotations/activity_net.v1-3.min.json"
    content = json.loads(path.read_text())
    video = next(name for name, v in content["database"].items() if v["annotations"])
    content["database"][video]["annotations"][0]["segment"] = [9.0, 4.0]
    path.write_text(json.dumps(content))
    return ["convert", "activitynet"]


def annotations(change: Callable[[dict], None]) -> Callable[[Path], list[str]]:
    """THUMOS's database, converted and then changed; the row is then audited."""

    def prepare(tree: Path) -> list[str]:
        assert main(["convert", "thumos14"]) == 0
        assert main(["pack", "thumos14", "i3d"]) == 0
        path = tree / "build/demo/thumos14/annotations.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return ["audit", "thumos14_i3d"]

    return prepare


def set_segment(segment: list[float]) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content["database"]["video_test_0000004"]["annotations"][0]["segment"] = segment

    return change


def no_ground_truth(content: dict) -> None:
    for video in content["database"].values():
        if video["subset"] == "validation":
            video["annotations"] = []


def unknown_label(content: dict) -> None:
    content["classes"] = [
        "CliffDiving",
        "Diving",
        "HammerThrow",
        "HighJump",
        "LongJump",
        "TennisSwing",
    ]


def malformed_line(tree: Path) -> list[str]:
    path = tree / "data/demo/multithumos/annotations/multithumos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("multithumos/annotations/Run.txt", "video_test_0000004 1.0\n")
    return ["convert", "multithumos"]


def untrained(tree: Path) -> list[str]:
    return ["detect", "thumos14_i3d"]


CASES = {
    "unknown key": (
        edit_yaml("experiments/thumos14_i3d.yaml", "attention_window", "atention_window"),
        ["thumos14_i3d.yaml", "model.atention_window", "unknown key (there are", "heads"],
    ),
    "a key that stands twice": (
        edit_yaml("experiments/thumos14_i3d.yaml", "expect:", "model: {channels: 64}\nexpect:"),
        ["thumos14_i3d.yaml", "line 13: the key model stands there a second time"],
    ),
    "so deep that a parser would run out of stack": (
        edit_yaml("experiments/thumos14_i3d.yaml", "expect:", f"more: {'[' * 100_000}\nexpect:"),
        ["thumos14_i3d.yaml", "nested more than 100 deep"],
    ),
    "wrong type": (
        edit_yaml("experiments/thumos14_i3d.yaml", "attention_window: 19", "channels: many"),
        ["thumos14_i3d.yaml", "model.channels"],
    ),
    "no such data set": (
        edit_yaml("experiments/thumos14_i3d.yaml", "dataset: thumos14", "dataset: thumos15"),
        ["thumos15", "no data set", "thumos14"],
    ),
    "no such feature set": (
        edit_yaml("experiments/thumos14_i3d.yaml", "features: i3d", "features: c3d"),
        ["data.features 'c3d'", "i3d"],
    ),
    "sizes that don't fit": (
        edit_yaml("experiments/thumos14_i3d.yaml", "attention_window: 19", "max_seq_len: 2300"),
        ["max_seq_len 2300", "32"],
    ),
    "no such row": (lambda tree: ["params", "thumos15_i3d"], ["thumos15_i3d", "no experiment"]),
    "no such edition": (
        lambda tree: ["params", "thumos14_i3d", "--edition", "tiny"],
        ["tiny", "demo, paper"],
    ),
    "missing features": (missing_archive, [ARCHIVE, "dvc pull"]),
    "truncated archive": (truncated_archive, [ARCHIVE, "truncated", "fetch it again"]),
    "corrupt archive": (corrupt_archive, [ARCHIVE, "fetch it again"]),
    "corrupt tar": (corrupt_tar, ["fineaction_mae_g.tar.gz", "fetch it again"]),
    "reversed segment in the publisher's file": (
        reversed_in_the_publishers_file,
        ["reversed", "[9.0, 4.0]"],
    ),
    "unknown row in an edition": (
        edit_yaml("editions/demo.yaml", "  hacs_slowfast:", "  hacs_slowfasst:"),
        ["experiments.hacs_slowfasst", "no such file"],
    ),
    "value out of range": (
        edit_yaml("experiments/thumos14_i3d.yaml", "attention_window: 19", "heads: 0"),
        ["model.heads", "greater than 0"],
    ),
    "truncated member": (rewrite_member(None), [ARCHIVE, "video_test_0000004", "fetch it again"]),
    "wrong dimension": (
        rewrite_member(npy(np.zeros((9, 47), np.float16))),
        ["video_test_0000004", "(9, 47)", "48"],
    ),
    "NaN in features": (
        rewrite_member(npy(np.full((9, 48), np.nan))),
        ["video_test_0000004", "NaN"],
    ),
    "pickled features": (
        rewrite_member(npy(np.array([{}], dtype=object), pickle=True)),
        ["video_test_0000004"],
    ),
    "zip that leaves its folder": (
        rewrite_member(npy(np.zeros((9, 48))), "../evil.npy"),
        ["../evil.npy", "outside"],
    ),
    "tar that leaves its folder": (escaping_tar, ["../../v_00000001.npy", "outside"]),
    "reversed segment": (
        annotations(set_segment([5.0, 3.0])),
        ["video_test_0000004", "reversed", "[5.0, 3.0]"],
    ),
    "NaN segment": (
        annotations(set_segment([float("nan"), 3.0])),
        ["video_test_0000004", "nan", "finite"],
    ),
    "no ground truth": (annotations(no_ground_truth), ["subset 'validation' has no ground truth"]),
    "unknown label": (annotations(unknown_label), ["CleanAndJerk", "class list"]),
    "malformed annotation line": (malformed_line, ["Run.txt", "line 1", "video start end"]),
    "a row and files": (
        lambda tree: ["evaluate", "thumos14_i3d", "--annotations", "a.json"],
        ["evaluate", "not both"],
    ),
    "detections without ground truth": (
        lambda tree: ["evaluate", "thumos14_i3d", "--detections", "d.json"],
        ["--detections: of --annotations"],
    ),
    "features that are not there": (
        lambda tree: ["predict", "--weights", "model.pt", "--features", "nope.npy"],
        ["nope.npy: no such file or folder"],
    ),
    "a folder for weights": (
        lambda tree: ["predict", "--weights", ".", "--features", "."],
        [".: a folder; expected the model.pt of a run in it"],
    ),
    "a row and options of files": (
        lambda tree: ["evaluate", "thumos14_i3d", "--tiou", "0.9", "--no-blocked"],
        ["--tiou, --no-blocked: of --annotations; a row's own stand in its params"],
    ),
    "detect before train": (untrained, ["model.pt", "train"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_clear_line_and_changes_nothing(name, tree, capfd):
    prepare, words = CASES[name]
    command = prepare(tree)
    capfd.readouterr()
    before = contents(tree)
    assert main(command) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error, error
    assert contents(tree) == before


def test_snakemake_says_the_same_of_a_bad_params_file(tmp_path):
    shutil.copytree(PARAMS, tmp_path / "params")
    path = tmp_path / "params/experiments/thumos14_i3d.yaml"
    path.write_text(path.read_text() + "colour: blue\n")
    command = [
        "snakemake",
        "-n",
        "--snakefile",
        f"{CHECKOUT}/Snakefile",
        "--config",
        "params=params",
    ]
    done = run_command(tmp_path, *command, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "thumos14_i3d.yaml" in said
    assert "colour: unknown key" in said
