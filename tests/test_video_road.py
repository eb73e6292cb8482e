"""The whole road: videos, the six commands of docs/video.md, a table and a labelled video."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import torch
import yaml

from actionformer import predict
from actionformer.commands.main import main
from actionformer.data.described import described, description_in, descriptions_in
from actionformer.data.extracted import Description, as_text
from actionformer.errors import InputError
from actionformer.params.files import load_dataset, load_experiment, load_extractor
from actionformer.stages.status import run_status
from actionformer.training import checkpoint
from actionformer.video.networks.build import built_for
from conftest import CHECKOUT
from project import Place, project
from videos import ACTIONS, acted, growing_bar, tiny_extractor, write_video
from weights_files import weights_file

FPS, SECONDS = 25, 14
TRAINING, HELD_OUT = 10, 3
Action = tuple[float, float, str]


def drawn_actions(rng: random.Random) -> list[Action]:
    """Actions of two to four seconds, one after the other."""
    actions, now = [], rng.uniform(0.5, 2)
    while True:
        end = now + rng.uniform(2, 4)
        if end > SECONDS - 0.5:
            return actions
        actions.append((round(now, 2), round(end, 2), rng.choice(sorted(ACTIONS))))
        now = end + rng.uniform(1, 2.5)


def six_commands() -> list[str]:
    """The first block of docs/video.md."""
    page = (CHECKOUT / "docs/video.md").read_text()
    block = re.search(r"```sh dry-run\n(.*?)```", page, re.S)
    assert block is not None
    return block[1].strip().splitlines()


def annotated(actions: Sequence[Action]) -> list[dict[str, object]]:
    return [{"segment": [start, end], "label": label} for start, end, label in actions]


def shortened(experiment: Path) -> None:
    """A third of the suggested epochs, and an average that forgets the initial weights in them."""
    content = yaml.safe_load(experiment.read_text())
    content["training"] |= {"schedule_epochs": 20, "first_eval_epoch": 19, "ema_decay": 0.93}
    experiment.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Action]]:
    """The folder in which the six commands ran, on shapes that move and with a small network."""
    folder = project(tmp_path_factory.mktemp("road"))
    rng = random.Random(0)
    database = {}
    for number in range(TRAINING + HELD_OUT):
        name, actions = f"shapes{number:02d}", drawn_actions(rng)
        pictures = partial(acted, fps=FPS, actions=actions)
        write_video(folder / f"videos/{name}.mp4", pictures, FPS * SECONDS, fps=FPS)
        database[name] = {
            "subset": "training" if number < TRAINING else "validation",
            "duration": SECONDS,
            "annotations": [
                {"segment": [start, end], "label": label} for start, end, label in actions
            ],
        }
    new = drawn_actions(rng)
    write_video(
        folder / "new.mp4",
        partial(acted, fps=FPS, actions=new),
        FPS * SECONDS,
        fps=FPS,
        sound="aac",
    )
    (folder / "data/own/mine").mkdir(parents=True)
    text = json.dumps({"database": database})
    (folder / "data/own/mine/annotations.json").write_text(text)
    # its weights come from a mirror, as the published ones do
    _, _, weights = tiny_extractor(folder / "tiny", file={"sources": [], "licence": "drawn"})
    (folder / "mirror/extractors").mkdir(parents=True)
    shutil.move(weights, folder / "mirror/extractors/tiny.pt")
    place = Place(folder, folder)
    for line in six_commands():
        words = [word.replace("i3d_kinetics", "tiny/tiny.yaml") for word in shlex.split(line)]
        if words[1] == "fetch":
            words += ["--mirror", "mirror"]
        if words[1] == "suggest":
            # features name what made them, and not where its file lies
            words += ["--extractor", "tiny/tiny.yaml"]
        place.run(*words)
        if words[1] == "suggest":
            shortened(folder / "data/own/mine/mine.yaml")
    return folder, new


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, shared) / (max(one[1], other[1]) - min(one[0], other[0]))


def test_a_table_comes_of_a_folder_of_videos(walked: tuple[Path, list[Action]]) -> None:
    """Actions of held-out videos are found: chance would be near 0."""
    folder, _ = walked
    metrics = json.loads((folder / "results/own/mine/seed0/metrics.json").read_text())
    assert metrics["percent"]["mAP/0.5"] > 60
    assert "mine" in (folder / "results/own/tables/mine.md").read_text()


def test_actions_of_a_new_video_are_found_and_drawn_in(walked: tuple[Path, list[Action]]) -> None:
    folder, actions = walked
    out = folder / "results/predictions"
    found = json.loads((out / "predictions.json").read_text())["results"]["new"]
    best = sorted(found, key=lambda one: -one["score"])[: 2 * len(actions)]
    for start, end, label in actions:
        fits = [one for one in best if one["label"] == label]
        assert max(overlap(one["segment"], (start, end)) for one in fits) > 0.5
    for name in ("new.vtt", "new.png", "new-labelled.mp4"):
        assert (out / name).stat().st_size > 0
    with av.open(str(out / "new-labelled.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert sum(1 for _ in container.decode(video=0)) == FPS * SECONDS


def test_the_weights_know_what_made_their_features(
    walked: tuple[Path, list[Action]], tmp_path: Path
) -> None:
    """A program gets the same from the video; features of another extractor are refused."""
    folder, _ = walked
    weights = folder / "results/own/mine/seed0/model.pt"
    told = described(folder / "data/own/mine/features/shapes00.npz")
    assert told is not None
    made_by = {
        "extractor": told.extractor,
        "identity": told.identity,
        "weights_md5": told.weights_md5,
    }
    assert checkpoint.extractor_of(weights) == made_by
    manifest = json.loads(next((folder / "build/own").glob("*/features.json")).read_text())
    assert manifest["extractor"] == made_by
    dataset = yaml.safe_load((folder / "data/own/mine/mine-dataset.yaml").read_text())
    assert dataset["features"]["features"]["extractor"] == "../../../tiny/tiny.yaml"
    extractor = folder / "tiny/tiny.yaml"
    results = predict(weights, folder / "new.mp4", extractor=extractor, device="cpu")
    written = json.loads((folder / "results/predictions/predictions.json").read_text())["results"]
    assert results == written
    other = tmp_path / "tiny.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load(extractor.read_text()) | {"stride_frames": 8}))
    shutil.copy(folder / "tiny/tiny.pt", tmp_path / "tiny.pt")
    with pytest.raises(InputError, match="the weights were trained on those of tiny"):
        predict(weights, folder / "new.mp4", extractor=other, device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fps", "30"], "fps: goes with features; of a video its extractor knows it"),
        (["--subset", "testing"], "subset 'testing': goes with annotations"),
        (["--classifier", "absent.json"], "they take no classifier"),
        (["--annotations", "absent.json"], "absent.json"),
        (["--annotations", "others.json"], "no video that others.json names"),
        (["--extractor", "coarse/tiny.yaml"], "the weights were trained on those of tiny"),
        (["--extractor", "changed/tiny.yaml"], "weights_md5"),
        (["--extractor", "absent.yaml"], "absent.yaml"),
    ],
)
def test_what_is_refused_of_a_video_is_refused_before_it_is_extracted(
    walked: tuple[Path, list[Action]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    """To extract a video may take hours."""
    folder, _ = walked
    monkeypatch.chdir(tmp_path)
    _, _, weights = tiny_extractor(tmp_path / "changed")
    state = torch.load(weights, weights_only=True)
    torch.save({key: 2 * value for key, value in state.items()}, weights)
    tiny_extractor(tmp_path / "coarse", stride_frames=8)
    others = {"database": {"another": {"subset": "testing", "duration": 3, "annotations": []}}}
    (tmp_path / "others.json").write_text(json.dumps(others))
    arguments = ["predict", "--weights", str(folder / "results/own/mine/seed0/model.pt")]
    if "--extractor" not in options:
        arguments += ["--extractor", str(folder / "tiny/tiny.yaml")]
    assert main([*arguments, str(folder / "new.mp4"), *options, "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"dim": 64}, "makes 48 channels, the weights were trained on 64"),
        ({"transposed": True}, "another form"),
        ({"arrays": ["rgb", "flow"]}, "another form"),
    ],
)
def test_features_that_cannot_fit_are_refused_before_they_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known: dict[str, object], words: str
) -> None:
    """Of weights that name no extractor: one of one stream where they want two, and so on."""
    _, extractor, _ = tiny_extractor(tmp_path / "tiny")
    weights, experiment, _ = weights_file(tmp_path)
    content = torch.load(weights, weights_only=True)
    features = content["experiment"]["dataset"]["features"][experiment.data.features]
    features.update({"dim": extractor.dim, **known})
    torch.save(content, weights)
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=40), 40)
    arguments = ["predict", "--weights", str(weights), str(tmp_path / "a.mp4")]
    arguments += ["--extractor", str(tmp_path / "tiny/tiny.yaml")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_videos_and_features_is_neither(tmp_path: Path) -> None:
    weights, _, _ = weights_file(tmp_path)
    for name in ("mixed/a.mp4", "mixed/b.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds videos and features"):
        predict(weights, tmp_path / "mixed", device="cpu")


@pytest.mark.parametrize("form", ["zip", "gztar"])
def test_a_damaged_archive_of_features_is_one_line(
    walked: tuple[Path, list[Action]], tmp_path: Path, form: str
) -> None:
    folder, _ = walked
    source = folder / "data/own/mine/features"
    archive = Path(shutil.make_archive(str(tmp_path / "features"), form, source))
    content = bytearray(archive.read_bytes())
    if form == "zip":
        content[200:260] = bytes(60)
    else:
        del content[400:]
    archive.write_bytes(content)
    with pytest.raises(InputError, match="features"):
        description_in(archive)


def test_an_h5_file_says_what_each_of_its_videos_is(tmp_path: Path) -> None:
    """Of several rates, none is the one of all."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, fps in (("a", 25.0), ("b", 30.0)):
            told = Description("tiny", "a", "b", fps, 4.0, 8.0, 10.0, 250, "c")
            file.create_dataset(name, data=np.ones((3, 4), np.float32))
            file[name].attrs["actionformer"] = as_text(told)
    rates = [one.fps for one in descriptions_in(tmp_path / "a.h5") if one is not None]
    assert rates == [25, 30]


@pytest.mark.parametrize(
    ("extractor", "words"),
    [
        ("i3d_kinetics", "made by tiny, not by i3d_kinetics"),
        ("coarse/tiny.yaml", "made by tiny with other params than its file has now"),
        ("absent.yaml", "absent.yaml"),
    ],
)
def test_suggest_writes_no_other_extractor_than_made_the_features(
    walked: tuple[Path, list[Action]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extractor: str,
    words: str,
) -> None:
    folder, _ = walked
    monkeypatch.chdir(tmp_path)
    tiny_extractor(tmp_path / "coarse", stride_frames=8)
    own = folder / "data/own/mine"
    command = ["suggest", str(own / "annotations.json"), "--features", str(own / "features")]
    assert main([*command, "--out", "new", "--extractor", extractor]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_of_videos_is_predicted_and_of_these_only_those_that_are_named(
    walked: tuple[Path, list[Action]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = walked
    monkeypatch.chdir(folder)
    weights = folder / "results/own/mine/seed0/model.pt"
    content = json.loads((folder / "data/own/mine/annotations.json").read_text())
    one = tmp_path / "one.json"
    one.write_text(json.dumps({"database": {"shapes03": content["database"]["shapes03"]}}))
    results = predict(weights, folder / "videos", annotations=one, device="cpu")
    features = folder / "data/own/mine/features/shapes03.npz"
    assert results == predict(weights, features, device="cpu")


@pytest.mark.parametrize("name", ["features.zip", "features.tar.gz"])
def test_an_archive_of_features_says_what_its_files_say(
    walked: tuple[Path, list[Action]], tmp_path: Path, name: str
) -> None:
    """Weights that fix no frame rate need none for it."""
    folder, _ = walked
    source = folder / "data/own/mine/features"
    form = "zip" if name.endswith("zip") else "gztar"
    archive = shutil.make_archive(str(tmp_path / name.partition(".")[0]), form, source)
    first, alone = description_in(Path(archive)), described(source / "shapes00.npz")
    assert first is not None
    assert alone is not None
    assert first.made_by == alone.made_by
    weights, _, _ = weights_file(tmp_path, in_channels=48)
    plain = predict(weights, source / "shapes00.npz", device="cpu")
    assert predict(weights, Path(archive), device="cpu")["shapes00"] == plain["shapes00"]


def test_what_features_say_needs_no_option_and_allows_no_other(
    walked: tuple[Path, list[Action]],
) -> None:
    folder, _ = walked
    weights = folder / "results/own/mine/seed0/model.pt"
    features = folder / "results/predictions/features/new.npz"
    plain = predict(weights, features, device="cpu")
    assert plain == predict(weights, features, fps=FPS, stride=4, device="cpu")
    with pytest.raises(InputError, match="stride 8 is asked for, its features say 4"):
        predict(weights, features, stride=8, device="cpu")


def test_a_store_says_of_itself_what_its_files_said(walked: tuple[Path, list[Action]]) -> None:
    """Packed or not, and without options: the same detections."""
    folder, _ = walked
    weights = folder / "results/own/mine/seed0/model.pt"
    (store,) = (folder / "build/own").glob("*/features.h5")
    assert described(store) == described(folder / "data/own/mine/features/shapes00.npz")
    packed = predict(weights, store, device="cpu")
    plain = predict(weights, folder / "data/own/mine/features/shapes03.npz", device="cpu")
    assert packed["shapes03"] == plain["shapes03"]


def test_a_linear_probe_scores_new_videos_for_class_agnostic_weights(
    walked: tuple[Path, list[Action]],
) -> None:
    folder, actions = walked
    features = folder / "results/predictions/features"
    command = ["actionformer", "classify", "data/own/mine/mine.yaml", "--on", str(features)]
    said = Place(folder, folder).run(*command, "--out", "scores.json").stdout
    assert "evaluated videos" in said
    content = json.loads((folder / "scores.json").read_text())
    assert content["classes"] == sorted(ACTIONS)
    scores = dict(zip(content["classes"], content["results"]["new"], strict=True))
    # features of another extractor would give scores that mean nothing
    other = folder / "other/tiny.yaml"
    tiny_extractor(other.parent, stride_frames=8)
    place = Place(folder, folder)
    place.run("actionformer", "extract", "new.mp4", "--extractor", str(other), "--out", "other/out")
    refused = place.run(*command[:-1], "other/out", check=False)
    assert refused.returncode == 1
    assert "the weights were trained on those of tiny" in refused.stderr
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    shown = {label: sum(one[2] == label for one in actions) for label in ACTIONS}
    if shown["Rise"] != shown["Slide"]:
        assert max(scores, key=lambda label: scores[label]) == max(
            shown, key=lambda label: shown[label]
        )


# --------------------------------------------------------------------------- in the workflow


def test_snakemake_extracts_what_a_feature_set_says_and_again_where_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are fetched first; a video that changes is extracted again, and no other."""
    folder = project(tmp_path / "place")
    _, _, weights = tiny_extractor(folder / "own/tiny")
    (folder / "mirror/extractors").mkdir(parents=True)
    shutil.move(weights, folder / "mirror/extractors/tiny.pt")
    database = {}
    for name, subset in (("a", "training"), ("b", "validation")):
        write_video(folder / f"own/videos/{name}.mp4", partial(growing_bar, count=80), 80)
        actions = [{"segment": [1, 2], "label": "Slide"}]
        database[name] = {"subset": subset, "duration": 3.2, "annotations": actions}
    (folder / "own/annotations.json").write_text(json.dumps({"database": database}))
    features = {
        "videos": "videos",
        "extractor": "tiny/tiny.yaml",
        "file": "rgb",
        "dim": 48,
        "stride_frames": 4,
        "offset_frames": 4,
        "fps": 25,
    }
    dataset = {
        "name": "Own",
        "annotations": ["annotations.json"],
        "num_classes": 1,
        "features": {"rgb": features},
    }
    (folder / "own/dataset.yaml").write_text(yaml.safe_dump(dataset))
    (folder / "own/mine.yaml").write_text("data: {dataset: dataset.yaml, features: rgb}\n")
    call = ["snakemake", "--cores", "2", "--until", "audit", "--config"]
    call += ["experiment=own/mine.yaml", "mirror=mirror"]
    place = Place(folder, folder)
    monkeypatch.chdir(folder)

    def next_stage() -> str:
        return run_status(load_experiment("own/mine.yaml"), 0).next_stage

    place.run("actionformer", "convert", "own/dataset.yaml")
    assert next_stage() == "fetch --extractor own/tiny/tiny.yaml"
    shutil.copy(folder / "mirror/extractors/tiny.pt", folder / "own/tiny/tiny.pt")
    assert next_stage() == "extract --dataset own/dataset.yaml --features rgb"
    (folder / "own/tiny/tiny.pt").unlink()
    # of an extractor that is gone another command tells: other rows have their states, too
    (folder / "own/tiny/tiny.yaml").rename(folder / "own/tiny/gone.yaml")
    assert next_stage() == "extract --dataset own/dataset.yaml --features rgb"
    (folder / "own/tiny/gone.yaml").rename(folder / "own/tiny/tiny.yaml")
    place.run(*call)
    (extracted,) = folder.glob("build/own/extracted/*/rgb")
    assert sorted(path.name for path in extracted.iterdir()) == ["a.npz", "b.npz"]
    assert (folder / "own/tiny/tiny.pt").exists()
    assert re.search(r"^total +0$", place.run(*call, "-n").stdout, re.M)
    before = {path.name: path.stat().st_mtime_ns for path in extracted.iterdir()}
    write_video(folder / "own/videos/b.mp4", partial(growing_bar, count=82), 82)
    place.run(*call)
    after = {path.name: path.stat().st_mtime_ns for path in extracted.iterdir()}
    assert after["a.npz"] == before["a.npz"]
    assert after["b.npz"] > before["b.npz"]
    # lineage begins with videos and weights, not with a folder in between
    (manifest,) = folder.glob("build/own/dataset-*/rgb.json")
    sources = json.loads(manifest.read_text())["sources"]
    assert sorted(Path(path).name for path in sources) == ["tiny.pt", "videos"]
    truncated = folder / "own/videos/b.mp4"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    assert place.run(*call, check=False).returncode != 0
    # what it was before it was damaged must not be packed
    assert sorted(path.name for path in extracted.iterdir()) == ["a.npz"]


def test_two_feature_sets_are_not_extracted_to_one_folder(tmp_path: Path) -> None:
    """Each would remove the other's files as those of videos that are gone."""
    one = {"videos": "videos", "extractor": "i3d_kinetics", "file": "rgb", "dim": 1024}
    content = {"name": "Own", "annotations": ["a.json"], "num_classes": 1}
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(content | {"features": {"a": one, "b": one}}))
    with pytest.raises(InputError, match="a and b are both extracted to file: rgb"):
        load_dataset(str(path))
    path.write_text(json.dumps(content | {"features": {"a": one, "b": one | {"file": "c"}}}))
    assert set(load_dataset(str(path)).features) == {"a", "b"}


# --------------------------------------------------------------- features of others, mixed, wrong


def test_two_kinds_of_features_in_one_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made with other params, or of unknown origin: one line that names both videos."""
    monkeypatch.chdir(tmp_path)
    tiny_extractor(tmp_path / "one")
    tiny_extractor(tmp_path / "other", stride_frames=8)
    for name, kind in (("a", "one"), ("b", "other")):
        write_video(tmp_path / f"{name}.mp4", partial(growing_bar, count=40), 40)
        arguments = ["extract", f"{name}.mp4", "--extractor", f"{kind}/tiny.yaml"]
        assert main([*arguments, "--out", "own/features", "--device", "cpu"]) == 0
    entry = {"subset": "training", "duration": 1.6, "annotations": []}
    (tmp_path / "own/annotations.json").write_text(
        json.dumps({"database": {"a": entry, "b": entry}})
    )
    (tmp_path / "own/dataset.yaml").write_text(
        "name: Own\nannotations: [annotations.json]\nnum_classes: 1\nfeatures:\n"
        "  some: {file: features, dim: 48, stride_frames: 4, offset_frames: 4}\n"
    )
    assert main(["pack", "own/dataset.yaml", "some"]) == 1
    assert "videos 'a' and 'b' differ in identity" in capsys.readouterr().err
    np.savez(tmp_path / "own/features/b.npz", features=np.ones((3, 48), np.float32))
    assert main(["pack", "own/dataset.yaml", "some"]) == 1
    assert "video 'b' does not say which extractor made it" in capsys.readouterr().err
    (tmp_path / "own/features/b.npz").unlink()
    assert main(["pack", "own/dataset.yaml", "some"]) == 0
    text = (tmp_path / "own/dataset.yaml").read_text()
    (tmp_path / "own/dataset.yaml").write_text(text.replace("stride_frames: 4", "stride_frames: 2"))
    assert main(["pack", "own/dataset.yaml", "some"]) == 1
    assert "stride_frames is 4.0 in the feature files, 2.0 in the params" in capsys.readouterr().err


def test_weights_that_name_no_extractor_ask_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, _, _ = weights_file(tmp_path)
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=40), 40)
    arguments = ["predict", "--weights", str(weights), str(tmp_path / "a.mp4")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "name it with --extractor" in capsys.readouterr().err


def test_a_published_row_goes_from_a_video_to_detections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ActivityNet's TSP at full size: its features name the extractor, which reads its weights as
    they are published, beside heads that features do without.
    """
    monkeypatch.chdir(tmp_path)
    name, extractor, weights = load_extractor("r2plus1d_tsp")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = built_for(extractor).network.state_dict()
    published = {f"features.{key}": tensor for key, tensor in state.items()}
    heads = {"fc1.weight": torch.zeros(200, 512), "fc2.bias": torch.zeros(2)}
    weights.parent.mkdir(parents=True)
    torch.save({"model": published | heads, "epoch": 5}, weights)
    model, _, _ = weights_file(tmp_path, "activitynet_tsp", "paper")
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=250), 250, sound="aac")
    assert main(["predict", "--weights", str(model), "a.mp4", "--device", "cpu"]) == 0
    told = described(tmp_path / "results/predictions/features/a.npz")
    assert told is not None
    # ten seconds at 15 frames a second, every 16 frames
    assert (told.extractor, told.fps, told.frames, told.offset_frames) == (name, 15, 150, 8)
    found = json.loads((tmp_path / "results/predictions/predictions.json").read_text())["results"]
    assert found["a"]
    assert all(0 <= one["segment"][0] <= one["segment"][1] <= 10 for one in found["a"])
    assert (tmp_path / "results/predictions/a-labelled.mp4").exists()


def test_the_same_weights_are_drawn_whatever_was_drawn_before(tmp_path: Path) -> None:
    """What a test compares must not depend on the order of tests."""
    torch.manual_seed(1)
    tiny_extractor(tmp_path / "one")
    torch.manual_seed(2)
    tiny_extractor(tmp_path / "two")
    assert (tmp_path / "one/tiny.pt").read_bytes() == (tmp_path / "two/tiny.pt").read_bytes()


def test_videos_of_several_rates_are_not_given_the_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The annotations' `frame` says each video's rate; without it one line says what is missing."""
    monkeypatch.chdir(tmp_path)
    tiny_extractor(tmp_path / "tiny")
    database = {}
    for name, subset, fps in (("a", "training", 25), ("b", "validation", 30)):
        write_video(
            tmp_path / f"videos/{name}.mp4", partial(growing_bar, count=4 * fps), 4 * fps, fps=fps
        )
        actions = [{"segment": [1, 2], "label": "Slide"}]
        database[name] = {"subset": subset, "duration": 4, "annotations": actions}
    arguments = ["extract", "videos", "--extractor", "tiny/tiny.yaml", "--out", "own/features"]
    assert main([*arguments, "--device", "cpu"]) == 0
    annotations = tmp_path / "own/annotations.json"
    annotations.write_text(json.dumps({"database": database}))
    command = ["suggest", str(annotations), "--features", "own/features"]
    assert main(command) == 1
    assert "video 'a' has no `frame`" in capsys.readouterr().err
    for name, frames in (("a", 100), ("b", 120)):
        database[name]["frame"] = frames
    annotations.write_text(json.dumps({"database": database}))
    assert main(command) == 0
    content = yaml.safe_load((tmp_path / "own/own-dataset.yaml").read_text())
    assert content["features"]["features"]["fps"] is None
