"""What reads outside data: a command, the files that it reads, and the numbers that it gives.

`prepare` writes the folder of a target; `fuzz` damages one of its files and runs its command there.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from actionformer import load_experiment
from actionformer.commands.main import main
from actionformer.params.files import load_dataset

# the data sets whose publishers have annotation files of their own
DATASETS = (
    *("thumos14", "multithumos", "activitynet", "hacs"),
    *("epic", "ego4d", "charades", "fineaction"),
)
CHANNELS = 6
DATASET_YAML = f"""\
name: mine
format: database
annotations: [annotations.json]
features:
  x: {{file: FILE, dim: {CHANNELS}, stride_frames: 4, offset_frames: 8, fps: 30}}
num_classes: 2
"""
EXPERIMENT_YAML = """\
table: mine
row: mine
data:
  dataset: set.yaml
  features: x
training:
  lr: 0.001
  batch_size: 2
"""


@dataclass(frozen=True)
class Target:
    """A command that reads outside data."""

    name: str
    # the files that are damaged, from the folder of the target
    files: Sequence[str]
    arguments: Sequence[str]
    # writes the folder of the target, which is the current one
    prepare: Callable[[], None]
    # from the same folder, after the command: what must not differ; None: what it printed
    result: Callable[[], Any] | None = None
    # how often it is chosen, beside the others
    weight: float = 1.0


def targets(demo: Path) -> list[Target]:
    """Every reader of outside data. `demo` is the folder of the demo edition's files."""
    return [
        *(_convert(demo, name) for name in DATASETS),
        _evaluate(),
        *(_pack(name) for name in PACKED),
        *(_predict(demo, name) for name in ("features", "weights", "store", "classifier")),
        *(_extract(name) for name in VIDEOS),
        _described(),
        _params(),
        _evaluate_released(demo),
        _resume(demo),
        _tabulate(demo),
    ]


# --------------------------------------------------------------------------------------- databases


def _convert(demo: Path, name: str) -> Target:
    dataset = load_dataset(name, "demo")
    lists = [*dataset.class_lists.values()]
    read = [*dataset.annotations, *lists, *([dataset.blocked] if dataset.blocked else [])]

    def prepare() -> None:
        for file in read:
            target = Path("data/demo") / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(demo / name / file, target)

    return Target(
        f"convert {name}",
        [f"data/demo/{name}/{file}" for file in read],
        ["convert", name],
        prepare,
        lambda: _content(f"build/demo/{name}/annotations.json"),
        weight=1.5,
    )


def _content(path: str) -> Any:
    return json.loads(Path(path).read_bytes())


def database() -> dict[str, Any]:
    """Three videos of two subsets with two classes."""
    videos = {}
    for v, subset in enumerate(["training", "validation", "validation"]):
        annotations = []
        for i in range(3):
            segment = [2.0 * i + 0.5, 2.0 * i + 2.0 + v / 4]
            annotations.append({"segment": segment, "label": "ab"[i % 2]})
        videos[f"v{v}"] = {"subset": subset, "duration": 12.5, "annotations": annotations}
    return {"database": videos, "classes": ["a", "b"], "blocked": ["v9"]}


def _evaluate() -> Target:
    def prepare() -> None:
        content = database()
        Path("a.json").write_text(json.dumps(content))
        rng = np.random.default_rng(0)
        results = {}
        for video in content["database"]:
            found = []
            for start, score in rng.random((6, 2)).tolist():
                segment = [5 * start, 5 * start + 2]
                found.append({"segment": segment, "label": "ab"[score > 0.5], "score": score})
            results[video] = found
        Path("d.json").write_text(json.dumps({"version": "x", "results": results}))

    return Target(
        "evaluate two files",
        ["a.json", "d.json"],
        [
            *("evaluate", "--annotations", "a.json", "--detections", "d.json"),
            *("--subset", "validation", "--out", "build/out.json"),
        ],
        prepare,
        lambda: _content("build/out.json"),
        weight=4,
    )


# ---------------------------------------------------------------------------------------- features

PACKED = ("f.zip", "f.tar.gz", "f.h5", "f/v0.npy", "f/v1.npz", "f/v2.pt")


def arrays() -> dict[str, np.ndarray]:
    """Features of three videos."""
    rng = np.random.default_rng(0)
    return {f"v{i}": rng.normal(size=(20 + i, CHANNELS)).astype(np.float32) for i in range(3)}


def write_features(name: str) -> None:
    """The three videos in one of the forms that publishers choose."""
    videos = arrays()
    npy = {f"{video}.npy": _npy(array) for video, array in videos.items()}
    match name:
        case "f.zip":
            with zipfile.ZipFile(name, "w") as archive:
                for member, content in npy.items():
                    archive.writestr(member, content)
        case "f.tar.gz":
            with tarfile.open(name, "w:gz") as archive:
                for member, content in npy.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        case "f.h5":
            with h5py.File(name, "w") as file:
                for video, array in videos.items():
                    file[f"group/{video}"] = array
        case _:
            Path("f").mkdir()
            Path("f/v0.npy").write_bytes(npy["v0.npy"])
            np.savez("f/v1.npz", feats=videos["v1"])
            torch.save(torch.from_numpy(videos["v2"]), "f/v2.pt")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _pack(name: str) -> Target:
    source = name.partition("/")[0]

    def prepare() -> None:
        write_features(name)
        Path("annotations.json").write_text(json.dumps(database()))
        Path("set.yaml").write_text(DATASET_YAML.replace("FILE", source))

    return Target(
        f"pack {name}",
        [name],
        ["pack", "set.yaml", "x"],
        prepare,
        lambda: [_content(str(path))["md5"] for path in Path("build").rglob("x.json")],
    )


# ----------------------------------------------------------------------------------------- weights


def _predict(demo: Path, damaged: str) -> Target:
    # class-agnostic weights alone take a classifier
    row = "activitynet_tsp" if damaged == "classifier" else "thumos14_i3d"
    files = {"features": "f/v0.npy", "store": "store.h5", "weights": "model.pt"}
    file = files.get(damaged, "scores.json")
    features = "store.h5" if damaged == "store" else "f"

    def prepare() -> None:
        from actionformer.data.features import pack
        from weights_files import weights_file

        _, experiment, _ = weights_file(Path(), row)
        Path("f").mkdir()
        rng = np.random.default_rng(0)
        for i in range(2):
            array = rng.normal(size=(60, experiment.features.dim)).astype(np.float32)
            np.save(f"f/v{i}.npy", array)
        pack(Path("f"), Path("store.h5"), dim=experiment.features.dim)
        if damaged == "classifier":
            names = [f"class {k}" for k in range(int(experiment.dataset.num_classes))]
            scores = rng.random((2, len(names))).tolist()
            results = {f"v{i}": scores[i] for i in range(2)}
            Path(file).write_text(json.dumps({"results": results, "class": names}))

    more = ["--classifier", file] if damaged == "classifier" else []
    return Target(
        f"predict, {damaged}",
        [file],
        [
            *("predict", "--weights", "model.pt", "--features", features, "--device", "cpu"),
            *("--fps", "30", "--stride", "4", "--out", "build/p", *more),
        ],
        prepare,
        lambda: _content("build/p/predictions.json"),
        weight=0.4,
    )


# file of a video -> codec of its sound
VIDEOS = {"clip.mp4": "aac", "clip.mkv": "libmp3lame", "clip.avi": None}


def _extract(name: str) -> Target:
    """A video whose damage shows in its pictures alone can be told by nobody."""

    def prepare() -> None:
        from videos import growing_bar, tiny_extractor, write_video

        tiny_extractor(Path("tiny"))
        picture = partial(growing_bar, count=30)
        write_video(Path(name), picture, 30, sound=VIDEOS[name])

    return Target(
        f"extract {name}",
        [name],
        [
            *("extract", name, "--extractor", "tiny/tiny.yaml", "--device", "cpu"),
            *("--out", "build/features"),
        ],
        prepare,
        lambda: Path("build/features/clip.npz").exists(),
        weight=0.4,
    )


def _described() -> Target:
    """Features that say what made them, as `extract` writes them."""

    def prepare() -> None:
        from actionformer.data.extracted import Description, FeatureWriter
        from weights_files import weights_file

        _, experiment, _ = weights_file(Path())
        dim = experiment.features.dim
        rows = np.random.default_rng(0).normal(size=(60, dim)).astype(np.float32)
        writer = FeatureWriter(dim, io.BytesIO())
        writer.append(rows)
        writer.finish(Path("v.npz"), Description("tiny", "a", "b", 25.0, 4.0, 8.0, 10.0, 250, "c"))

    return Target(
        "predict, described features",
        ["v.npz"],
        [
            *("predict", "--weights", "model.pt", "--features", "v.npz", "--device", "cpu"),
            *("--out", "build/p"),
        ],
        prepare,
        lambda: _content("build/p/predictions.json"),
        weight=0.4,
    )


def _evaluate_released(demo: Path) -> Target:
    checkpoint = "data/demo/thumos14/checkpoints/thumos14_i3d.pth"

    def prepare() -> None:
        shutil.copytree(demo / "thumos14", "data/demo/thumos14")
        for command in (["convert", "thumos14"], ["pack", "thumos14", "i3d"]):
            assert main(command) == 0

    return Target(
        "evaluate-released",
        [checkpoint],
        ["evaluate-released", "thumos14_i3d", "--device", "cpu"],
        prepare,
        lambda: _content(_only("results/demo/thumos14_i3d/released/metrics.json"))["percent"],
        weight=0.05,
    )


def _only(pattern: str) -> str:
    (path,) = Path().glob(pattern)
    return str(path)


SHORT = [
    *("--set", "data.videos=2", "training.schedule_epochs=1", "training.warmup_epochs=0"),
    "training.ema_decay=0.05",
]


def _trained(demo: Path) -> None:
    """A row that is trained for one epoch, and evaluated."""
    shutil.copytree(demo / "thumos14", "data/demo/thumos14")
    commands = [
        ["convert", "thumos14"],
        ["pack", "thumos14", "i3d"],
        ["train", "thumos14_i3d", "--device", "cpu", *SHORT],
        ["detect", "thumos14_i3d", "--device", "cpu", *SHORT],
        ["evaluate", "thumos14_i3d", *SHORT],
    ]
    for command in commands:
        assert main(command) == 0


def _run() -> Path:
    return Path(_only("results/demo/thumos14_i3d*/seed0"))


def _resume(demo: Path) -> Target:
    run = (
        "results/demo/"
        + load_experiment("thumos14_i3d", "demo", overrides=SHORT[1:]).name
        + "/seed0"
    )

    def prepare() -> None:
        _trained(demo)
        for name in ("model.pt", "model.manifest.json"):
            (_run() / name).unlink()

    def weights() -> list[float]:
        content = torch.load(_run() / "model.pt", weights_only=True)
        return [float(tensor.double().sum()) for tensor in content["state_dict"].values()]

    return Target(
        "train, going on",
        [f"{run}/checkpoint.pt"],
        ["train", "thumos14_i3d", "--device", "cpu", *SHORT],
        prepare,
        weights,
        weight=0.05,
    )


def _tabulate(demo: Path) -> Target:
    run = (
        "results/demo/"
        + load_experiment("thumos14_i3d", "demo", overrides=SHORT[1:]).name
        + "/seed0"
    )
    names = ("metrics.json", "lineage.json")
    return Target(
        "tabulate",
        [f"{run}/{name}" for name in names],
        [
            *("tabulate", "--table", "thumos14", "--rows", "thumos14_i3d", "--seeds", "0"),
            *("--no-released", *SHORT),
        ],
        lambda: _trained(demo),
        lambda: Path("results/demo/tables/thumos14.md").read_text(),
    )


# ------------------------------------------------------------------------------------------ params


def _params() -> Target:
    def prepare() -> None:
        Path("annotations.json").write_text(json.dumps(database()))
        Path("set.yaml").write_text(DATASET_YAML.replace("FILE", "f.zip"))
        Path("mine.yaml").write_text(EXPERIMENT_YAML)

    return Target("params", ["set.yaml", "mine.yaml"], ["params", "mine.yaml"], prepare)
