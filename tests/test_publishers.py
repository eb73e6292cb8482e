"""Every publisher's annotations become the one database.

Real files where they are at hand, excerpts (tests/excerpts) where not. The excerpts are written
from the publishers' own descriptions, apart from the demo's writers.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from actionformer.commands.main import main
from actionformer.data.annotations import load_database
from actionformer.data.audit import audit
from actionformer.data.publishers import class_list, convert_folder, database_json
from actionformer.errors import InputError
from actionformer.params.files import load_dataset
from conftest import REAL

real = pytest.mark.skipif(
    not REAL.exists(), reason="the real annotation files lie beside the checkout, in ../shared/real"
)
VIDEO_INFO = REAL / "thumos14/video_info.csv"


def counts(content, subset: str, field: str = "label") -> tuple[int, int]:
    videos = load_database(content, field).subset(subset)
    return len(videos), sum(len(video.labels) for video in videos)


# data set -> subset -> published videos and instances
PUBLISHED = {
    "thumos14": {"training": (200, 3003), "validation": (211, 3325)},
    "multithumos": {"training": (200, 18482), "validation": (213, 20208)},
    "activitynet": {"training": (10024, 15410), "validation": (4926, 7654), "testing": (5044, 0)},
    "epic": {"train": (495, 67217), "val": (138, 9668)},
}


@real
@pytest.mark.parametrize(
    ("name", "folder", "video_info"),
    [
        ("thumos14", "thumos14", None),
        ("thumos14", "thumos14/official_zips", "thumos14/video_info.csv"),
        ("thumos14", "thumos14/official_zips", "thumos14/actionformer_thumos14.json"),
        ("multithumos", "multithumos", "thumos14/video_info.csv"),
        ("multithumos", "multithumos", None),
        ("activitynet", "activitynet", None),
        ("epic", "epic", None),
    ],
)
def test_real_folders_give_the_published_counts(name, folder, video_info):
    info = None if video_info is None else REAL / video_info
    content = convert_folder(load_dataset(name), REAL / folder, info)
    for subset, found in PUBLISHED[name].items():
        assert counts(content, subset, "noun" if name == "epic" else "label") == found


def instances_of(entry) -> list[tuple]:
    """(start, end, label) of a video, in one order."""
    return sorted((*one["segment"], one["label"]) for one in entry["annotations"])


@real
def test_the_same_annotations_in_two_forms_are_the_same_database(tmp_path):
    """THUMOS-14's official text files and the authors' JSON."""
    (tmp_path / "thumos14.json").symlink_to(REAL / "thumos14/actionformer_thumos14.json")
    dataset = load_dataset("thumos14")
    text = convert_folder(dataset, REAL / "thumos14/official_zips", VIDEO_INFO)["database"]
    other = convert_folder(dataset, tmp_path)["database"]
    assert set(text) == set(other)
    for video in text:
        for key in ("subset", "duration", "frame"):
            assert text[video][key] == other[video][key], (video, key)
        assert instances_of(text[video]) == instances_of(other[video]), video


@real
def test_the_protocol_is_a_param(tmp_path):
    """Without its filters THUMOS-14 has the 212 / 3358 of the official files."""
    dataset = load_dataset("thumos14")
    everything = dataset.model_copy(update={"excluded_videos": [], "drop_segments_past_end": False})
    content = convert_folder(everything, REAL / "thumos14/official_zips", VIDEO_INFO)
    assert counts(content, "training") == (200, 3007)
    assert counts(content, "validation") == (212, 3358)
    assert everything.protocol == "all videos and instances"
    left_out = "without video_test_0000270; without instances past their video's end"
    assert dataset.protocol == left_out


EXCERPTS = Path(__file__).parent / "excerpts"

# data set -> video -> subset, duration, frames, and its (segment, label)
EXPECTED = {
    # https://github.com/hangzhaomit/HACS-dataset, README: structure of HACS_segments_v1.1.1.json
    "hacs": {
        "--0edUL8zmA": (
            "training",
            92.166667,
            None,
            [([5.4, 11.6], "Dodgeball"), ([12.6, 88.16], "Dodgeball")],
        ),
        "0-jpGmNuaQs": ("testing", 40.0, None, []),
    },
    # https://github.com/Richard-61/FineAction: JSON in ActivityNet's form, label_id beside label
    "fineaction": {"v_00000008": ("validation", 46.8, None, [([1.2, 2.0], "climb stairs")])},
    # https://ego4d-data.org/docs/data/annotations-schemas: videos > clips > annotations > labels
    "ego4d": {
        "c-1": (
            "train",
            480.0,
            14400,
            [([3.5, 9.25], "use_phone"), ([50.0, 61.0], "water_plants")],
        ),
        "c-2": ("val", 300.5, 9015, []),
    },
    # https://prior.allenai.org/projects/charades, README of Charades.zip: columns of the csv files
    "charades": {
        "YSKX3": ("training", 32.08, None, [([11.9, 21.2], "c092"), ([0.0, 12.6], "c147")]),
        "0A8CF": ("testing", 20.17, None, []),
    },
    # OpenTAD's converted form, of every data set: frame beside duration
    "multithumos": {
        "video_validation_0000051": ("training", 169.79, 5093, [([69.7, 79.5], "Billiards")])
    },
    # the authors' archive of ActivityNet: fps instead of frame, label_id
    "activitynet": {
        "sJFgo9H6zNo": ("training", 138.97, 4169, [([0.01, 123.4], "Fun sliding down")])
    },
}


def write(folder: Path, files: dict) -> Path:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_an_excerpt_of_the_publishers_files_becomes_these_videos(name):
    content = convert_folder(load_dataset(name), EXCERPTS / name)
    found = {}
    for video, entry in content["database"].items():
        instances = [(one["segment"], one["label"]) for one in entry["annotations"]]
        found[video] = (entry["subset"], entry["duration"], entry.get("frame"), instances)
    assert found == EXPECTED[name]


def test_charades_classes_come_in_the_order_of_the_publishers_list():
    content = convert_folder(load_dataset("charades"), EXCERPTS / "charades")
    assert content["classes"] == ["c092", "c147"]


def test_epic_nouns_and_verbs_of_two_json_files_are_put_together(tmp_path):
    """OpenTAD has one converted file per field; the authors' have names beside numbers."""

    def form(label: str, **more) -> dict:
        annotation = {"segment": [1.0, 2.5], "label": label, **more}
        facts = {"subset": "training", "duration": 60.0, "fps": 59.94}
        return {"database": {"P01_01": facts | {"annotations": [annotation]}}}

    files = {"epic_kitchens_noun.json": form("id_037"), "epic_kitchens_verb.json": form("id_003")}
    both = write(tmp_path / "b", files)
    (entry,) = convert_folder(load_dataset("epic"), both)["database"].values()
    assert entry["subset"] == "train"
    assert entry["annotations"] == [{"segment": [1.0, 2.5], "noun": "id_037", "verb": "id_003"}]
    authors = write(tmp_path / "a", {"epic_kitchens_100_verb.json": form("take", label_id=3)})
    (entry,) = convert_folder(load_dataset("epic"), authors)["database"].values()
    assert entry["annotations"] == [{"segment": [1.0, 2.5], "verb": "id_003"}]
    other = form("id_003")
    other["database"]["P01_01"]["annotations"][0]["segment"] = [1.0, 3.0]
    write(both, {"epic_kitchens_verb.json": other})
    with pytest.raises(InputError, match="'P01_01' has other segments than in"):
        convert_folder(load_dataset("epic"), both)


@pytest.mark.parametrize(
    ("lost", "annotations"),
    [
        ("'label'", {"annotations": [{"segment": [1.0, 2.5], "label_id": 3}]}),
        ("'annotations'", {}),
        ("expected a list, found null", {"annotations": None}),
    ],
)
def test_an_epic_json_file_that_has_lost_something_is_refused(tmp_path, lost, annotations):
    """A number alone may be of another list; no annotations at all is lost ground truth."""
    entry = {"subset": "train", "duration": 60.0, **annotations}
    files = {"epic_kitchens_100_verb.json": {"database": {"P01_01": entry}}}
    with pytest.raises(InputError, match=f"'P01_01': missing or malformed key \\({lost}\\)"):
        convert_folder(load_dataset("epic"), write(tmp_path, files))


def test_thumos_text_files_need_durations_and_drop_ambiguous_and_what_lies_past_the_end(tmp_path):
    video = "video_validation_0000051"
    with zipfile.ZipFile(tmp_path / "TH14_Temporal_annotations_validation.zip", "w") as archive:
        lines = f"{video}  3.1 5\n{video} 71 72\n"
        archive.writestr("annotation/CliffDiving_val.txt", lines)
        archive.writestr("annotation/Ambiguous_val.txt", f"{video} 1.0 2.0\n")
    with zipfile.ZipFile(tmp_path / "TH14_Temporal_annotations_test.zip", "w") as archive:
        folder = "TH14_Temporal_Annotations_Test/annotations/annotation"
        archive.writestr(f"{folder}/Diving_test.txt", "video_test_0000004 1 2\n")
    with pytest.raises(InputError, match=r"or give the durations with --video-info"):
        convert_folder(load_dataset("thumos14"), tmp_path)
    info = tmp_path / "info.csv"
    rows = [f"{video},70.5,30,2115", "video_test_0000004,33.8,30,1015", ""]
    info.write_text("\n".join(["video_id,duration_s,fps,frames", *rows]))
    database = convert_folder(load_dataset("thumos14"), tmp_path, info)["database"]
    assert instances_of(database[video]) == [(3.1, 5.0, "CliffDiving")]
    assert database["video_test_0000004"] == {
        "subset": "validation",
        "duration": 33.8,
        "frame": 1015.0,
        "annotations": [{"segment": [1.0, 2.0], "label": "Diving"}],
    }


def test_a_class_list_decides_the_order_and_what_is_no_class(tmp_path):
    shutil.copytree(EXCERPTS / "fineaction", tmp_path, dirs_exist_ok=True)
    write(tmp_path, {"category_idx.txt": "wave hands\nclimb stairs\n"})
    content = convert_folder(load_dataset("fineaction"), tmp_path)
    assert load_database(content).classes == ("wave hands", "climb stairs")
    (tmp_path / "category_idx.txt").write_text("wave hands\n")
    with pytest.raises(InputError, match="label 'climb stairs', which is not in the class list"):
        load_database(convert_folder(load_dataset("fineaction"), tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b\na\n", ["b", "a"]),
        ("1 Run\n2 Jump high\n", ["Run", "Jump high"]),
        ('001\t"b"\n000\t"a"\n', ["a", "b"]),
        # THUMOS-14's own list of its 20 detection classes, among 101
        (
            "7 BaseballPitch\n9 BasketballDunk\n12 Billiards\n",
            ["BaseballPitch", "BasketballDunk", "Billiards"],
        ),
        ("run\n50 metres\njump\n", ["run", "50 metres", "jump"]),
    ],
)
def test_class_lists_come_plain_and_numbered(tmp_path, text, expected):
    (tmp_path / "list.txt").write_text(text)
    assert class_list.read(tmp_path / "list.txt") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 Run\n1 Jump\n", "number 1 stands twice"),
        ("1 Run\n3 Jump\n", "numbers from 1 to 3, expected 2 from 0 or 1 on without a gap"),
        ("2 Run\n3 Jump\n", "numbers from 2 to 3"),
        ("1 Run\nJump\n3 Fall\n", "'Jump' has no number, others have"),
        ("1 Run\n2 Run\n", "class 'Run' occurs twice"),
        ("\n", "no class in it"),
    ],
)
def test_a_list_that_would_shift_its_classes_is_refused(tmp_path, text, words):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        class_list.numbered(tmp_path / "list.txt")


def test_numbers_of_classes_are_those_of_the_list(tmp_path):
    """A list that begins with 0 names other numbers than one that begins with 1."""
    (tmp_path / "list.txt").write_text("0 None\n1 Run\n2 Jump\n")
    assert class_list.numbered(tmp_path / "list.txt") == {0: "None", 1: "Run", 2: "Jump"}


def test_ego4d_has_110_classes():
    if not REAL.exists():
        pytest.skip("the real class list lies beside the checkout, in ../shared/real")
    assert len(class_list.read(REAL / "ego4d/label_map.txt")) == 110


HACS = "HACS_segments_v1.1.1.json"


def video(segment=(0.0, 1.0), label="a", **facts):
    """A video with one instance."""
    annotation = {"segment": segment, "label": label}
    return {"subset": "training", "duration": 3, "annotations": [annotation]} | facts


UNLABELLED = {"subset": "training", "duration": 3, "annotations": [{"segment": [0, 1]}]}
NUMBERED = {"subset": "testing", "duration": 3, "actions": []}
CHARADES = {
    "Charades_v1_train.csv": "id,actions,length\nA,c001 x 2,3\n",
    "Charades_v1_test.csv": "id\n",
}


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("hacs", {"readme.txt": "x"}, "no hacs annotations in it; expected HACS_segments"),
        ("hacs", {HACS: "{"}, "not readable as JSON"),
        ("hacs", {HACS: {"videos": []}}, "expected a JSON object with the key 'database'"),
        ("hacs", {HACS: {"database": {"v1": {"subset": "training"}}}}, "'v1': .*duration"),
        (
            "fineaction",
            {"annotations_gt.json": {"database": {"v1": UNLABELLED}}},
            "'v1': .*label",
        ),
        ("charades", CHARADES, "video 'A': malformed line"),
        ("charades", CHARADES | {"Charades_v1_train.csv": "id,actions,length\n"}, "no line below"),
        ("charades", CHARADES | {"Charades_v1_train.csv": ""}, "expected the columns id"),
        ("hacs", {HACS: {"database": {"v1": video(annotations={})}}}, "'v1': .*expected a list"),
        ("hacs", {HACS: {"database": {"v1": video(subset=5)}}}, "'v1': .*expected a text, found 5"),
        ("hacs", {HACS: {"database": {"v1": video(duration=True)}}}, "'v1': .*found true"),
        ("hacs", {HACS: {"database": {"v1": video(segment="12")}}}, "'v1': .*found '12'"),
        ("hacs", {HACS: {"database": {"v1": video(segment=[1, 2, 3])}}}, "'v1': .*too many"),
        ("hacs", {HACS: {"database": {"v1": video(label=None)}}}, "'v1': .*text, found null"),
        ("hacs", {HACS: '{"database": {"v": {}, "v": {}}}'}, "the key 'v' stands twice"),
        (
            "multithumos",
            {"multithumos.json": {"video_test_1": NUMBERED}},
            "has class numbers; expected class_list.txt",
        ),
    ],
)
def test_files_in_another_form_are_refused_in_one_line_and_nothing_is_written(
    name, files, words, tmp_path, capfd
):
    folder, out = write(tmp_path / "in", files), tmp_path / "out.json"
    assert main(["convert", name, "--source", str(folder), "--out", str(out)]) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error), error
    assert not out.exists()


# ------------------------------------------------------------------------------------------- audit


@pytest.fixture
def fineaction(tmp_path):
    """A database file of two classes and two subsets, and a function that audits it."""

    def audited(change=None, *options: str) -> tuple[int, dict | None]:
        videos = {}
        for i in range(4):
            instance = {"segment": [1.0, 4.0], "label": "ab"[i // 2]}
            subset = "training" if i % 2 else "validation"
            facts = {"subset": subset, "duration": 60.0, "frame": 1500}
            videos[f"v{i}"] = facts | {"annotations": [instance]}
        content = {"database": videos}
        if change is not None:
            change(content)
        params = "annotations: []\nname: x\nnum_classes: 2\nfeatures: {f: {file: f, dim: 1}}"
        write(tmp_path, {"a.json": content, "set.yaml": params})
        out = tmp_path / "audit.json"
        out.unlink(missing_ok=True)
        command = ["audit", str(tmp_path / "set.yaml"), "--annotations", str(tmp_path / "a.json")]
        code = main([*command, "--out", str(out), *options])
        return code, json.loads(out.read_text())["label"] if out.exists() else None

    return audited


def test_an_audit_counts_per_subset_and_class(fineaction, capfd):
    code, report = fineaction()
    assert code == 0
    training = report["facts"]["subsets"]["training"]
    assert (training["videos"], training["instances"]) == (2, 2)
    assert training["instances_per_class"] == {"a": 1, "b": 1}
    assert "training: 2 videos, 2 instances" in capfd.readouterr().out


def odd_but_harmless(content):
    video = content["database"]["v0"]
    for segment in ([2.0, 2.0], [59.0, 66.0], [61.0, 62.0], [1.0, 4.0]):
        video["annotations"].append({"segment": segment, "label": "a"})
    content["database"]["v9"] = {"subset": "validation", "duration": 5.0, "annotations": []}


def test_an_audit_lists_what_is_odd(fineaction):
    code, report = fineaction(odd_but_harmless)
    assert code == 0
    text = "\n".join(report["notes"])
    for note in (
        "1 segments of zero length",
        "1 segments that start after",
        "2 segments that end after",
        "1 exact duplicates",
        "1 videos of 'validation' have no ground truth",
    ):
        assert note in text


def of_video(**facts):
    """A change of the first video."""
    return lambda content: content["database"]["v0"].update(facts)


def of_instance(**facts):
    """A change of its first instance."""
    return lambda content: content["database"]["v0"]["annotations"][0].update(facts)


def of_file(**facts):
    """A change of the file."""
    return lambda content: content.update(facts)


def nothing_to_evaluate(content):
    for video in ("v0", "v2"):
        content["database"][video]["annotations"] = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of_instance(segment=[4.0, 1.0]), "reversed segment [4.0, 1.0]"),
        (of_instance(segment=[float("nan"), 1.0]), "nan"),
        (of_instance(label="c"), "3 classes, params say 2"),
        (of_video(frame=0), "0.0 frames"),
        (of_file(blocked="v0"), "no list of video names"),
        (of_file(classes=["a"]), "not in the class list"),
        (nothing_to_evaluate, "'validation' has no ground truth"),
    ],
)
def test_an_audit_fails_on_what_makes_a_number_wrong(fineaction, change, words, capfd):
    code, _ = fineaction(change)
    assert code == 1
    assert words in capfd.readouterr().err


def test_an_audit_compares_the_class_order_with_a_published_list(fineaction, tmp_path, capfd):
    (tmp_path / "classes.txt").write_text("b\na\n")
    options = ("--classes", str(tmp_path / "classes.txt"))
    assert fineaction(None, *options)[0] == 1
    assert "class 0 is 'a', in the published list 'b'" in capfd.readouterr().err
    assert fineaction(of_file(classes=["b", "a"]), *options)[0] == 0


@real
@pytest.mark.parametrize(
    ("name", "folder"), [("thumos14", "thumos14"), ("activitynet", "activitynet"), ("epic", "epic")]
)
def test_real_files_pass_the_audit_with_the_published_counts(name, folder, tmp_path, capfd):
    out = tmp_path / "audit.json"
    assert main(["audit", name, "--source", str(REAL / folder), "--out", str(out)]) == 0
    assert "(published: " in capfd.readouterr().out


@real
def test_another_protocol_than_the_published_one_fails_the_audit(tmp_path, capfd):
    """THUMOS-14 on 212 videos scores 0.69 mAP less than on 211."""
    everything = load_dataset("thumos14").model_copy(update={"excluded_videos": []})
    content = convert_folder(everything, REAL / "thumos14")
    write(tmp_path, {"a.json": content})
    command = ["audit", "thumos14", "--edition", "paper", "--annotations", str(tmp_path / "a.json")]
    assert main([*command, "--out", str(tmp_path / "audit.json")]) == 1
    counted = "212 videos and 3332 instances in 'validation', published are 211 / 3325"
    assert counted in capfd.readouterr().err


def test_features_that_most_evaluated_videos_lack_or_of_another_stride_fail_the_audit():
    """A few may be missing, as the published loaders allow; listed and blocked ones are known."""
    names = [f"v{i:02d}" for i in range(41)]
    videos = {}
    for name in names:
        subset = "training" if name == "v00" else "validation"
        instance = {"segment": [1.0, 4.0], "label": "a"}
        facts = {"subset": subset, "duration": 40.0, "frame": 1000}
        videos[name] = facts | {"annotations": [instance]}
    subsets = {"train_subset": "training", "eval_subset": "validation"}

    def found(lengths, blocked=(), **more):
        database = load_database({"database": videos, "blocked": list(blocked)})
        return audit(database, feature_lengths=lengths, stride=4.0, **subsets, **more)

    whole = dict.fromkeys(names, 250)
    assert not found(whole).errors
    assert not found(dict.fromkeys([names[0], *names[2:]], 250)).errors
    few = dict.fromkeys(names[:30], 250)
    (error,) = found(few).errors
    assert "11 of 40 evaluated videos lack features" in error
    lost = sorted(set(whole) - set(few))
    assert not found(few, listed_missing=lost).errors
    assert not found(few, blocked=lost).errors
    (error,) = found(dict.fromkeys(whole, 125)).errors
    assert "most features have another length than their videos" in error
    assert "check stride and fps" in error


@real
def test_class_lists_of_nouns_and_verbs_are_told_apart_by_their_names(tmp_path):
    content = convert_folder(load_dataset("epic"), REAL / "epic")
    nouns = load_database(content, "noun").classes
    lists = {"category_idx_noun.txt": "\n".join(nouns), "list.txt": "id_000"}
    write(tmp_path, {"a.json": content} | lists)
    files = ["--annotations", str(tmp_path / "a.json"), "--out", str(tmp_path / "o.json")]
    command = ["audit", "epic", *files, "--classes"]
    assert main([*command, str(tmp_path / "category_idx_noun.txt")]) == 0
    assert main([*command, str(tmp_path / "list.txt")]) == 1


def test_one_file_is_a_source_too(tmp_path):
    """As is a JSON database that somebody else converted."""
    (source,) = (EXCERPTS / "activitynet").iterdir()
    out = tmp_path / "out.json"
    assert main(["convert", "activitynet", "--source", str(source), "--out", str(out)]) == 0
    assert counts(json.loads(out.read_text()), "training") == (1, 1)


def test_what_is_wrong_in_a_converted_folder_is_said_of_that_folder(tmp_path, capfd):
    video = {"subset": "training", "duration": 3.0, "annotations": []}
    files = {"annotations_gt.json": {"database": {"v1": video}}}
    folder = write(tmp_path / "in", files)
    options = ["fineaction", "--source", str(folder), "--out"]
    assert main(["audit", *options, str(tmp_path / "a.json")]) == 1
    assert f"{folder}: 0 classes" in capfd.readouterr().err
    video["duration"] = 0
    write(folder, files)
    assert main(["convert", *options, str(tmp_path / "b.json")]) == 1
    assert f"{folder}: video 'v1' has duration 0.0" in capfd.readouterr().err


def test_whole_numbers_of_a_published_file_stay_whole(tmp_path):
    """Or the database would have another md5, and every training of it would be outdated."""
    entry = {"subset": "training", "duration": 40.0, "frame": 1000}
    entry["annotations"] = [{"segment": [0, 5.5], "label": "Run"}]
    write(tmp_path, {"anet.json": json.dumps({"database": {"v": entry}})})
    converted = database_json.convert([tmp_path / "anet.json"])["v"]
    assert json.dumps([converted["frame"], converted["annotations"][0]["segment"]]) == (
        "[1000, [0, 5.5]]"
    )
