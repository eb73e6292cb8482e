"""Processes that are killed at every step: at each file-system call, and at each call of MLflow's.

A stage runs once undisturbed, and its steps are counted. Then it is killed with SIGKILL at a step,
the same command is ended once more at another one, by SIGKILL or as a user or a scheduler ends it,
and a third call runs to its end: which must leave what the undisturbed one left, bit for bit, no
temporary file, and no run that MLflow still says to be running.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from actionformer import layout
from actionformer.commands.main import main
from actionformer.files.md5 import file_md5
from actionformer.tracking.store import BESIDE
from campaign import sandbox
from videos import growing_bar, tiny_extractor, write_video

OVERRIDES = [
    *("data.videos=2", "training.schedule_epochs=2", "training.warmup_epochs=1"),
    "training.ema_decay=0.05",
]
ROW = ["thumos14_i3d", "--set", *OVERRIDES]
ROWS = ["--rows", *ROW, "--seeds", "0", "--no-released"]
CPU = ["--device", "cpu"]
FEATURES = "features/i3d_actionformer_stride4_thumos.zip"
# in the order of the workflow; each finds what those before it have left
STAGES: dict[str, list[str]] = {
    "fetch": [
        *("fetch", "thumos14", "--edition", "rehearsal", "--mirror", "mirror", "--files"),
        *("annotations/TH14_Temporal_annotations_test.zip", FEATURES),
    ],
    "convert": ["convert", "thumos14"],
    "pack": ["pack", "thumos14", "i3d"],
    "audit": ["audit", *ROW],
    "evaluate-released": ["evaluate-released", "thumos14_i3d", *CPU],
    "extract": [
        *("extract", "videos", "--extractor", "tiny/tiny.yaml", *CPU),
        *("--out", "build/extracted"),
    ],
    "train": ["train", *ROW, *CPU],
    "detect": ["detect", *ROW, *CPU],
    "evaluate": ["evaluate", *ROW],
    "draw": ["draw", *ROW, "--seeds", "0", "--no-released"],
    "card": ["card", *ROW, "--seeds", "0"],
    "tabulate": ["tabulate", "--table", "thumos14", *ROWS],
    "page": ["page", "thumos14"],
    "report": ["report", *ROWS],
    "track": ["track"],
    # everything that MLflow has is made anew
    "track from nothing": ["track"],
}
# audit events that change files; `open` counts where it opens for writing
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "os.chmod", "os.truncate"}
CALLS = (
    *("create_experiment", "create_run", "log_batch", "log_inputs", "set_tag", "update_run"),
    *("set_terminated", "log_artifact", "create_logged_model", "create_registered_model"),
    *("create_model_version", "update_registered_model", "finalize_logged_model"),
)
WRITING = os.O_WRONLY | os.O_RDWR
# (stage, steps before its last one, second step): what once went wrong, and comes first ever since
ONCE_FAILED = (
    # all files there, the checkpoint being slimmed: MLflow's run was never ended
    ("train", 3, 8),
)
# of the second end
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Kill:
    """What became of a stage that was ended twice."""

    stage: str
    # the numbers of the steps, of how many
    first: int
    second: int
    steps: int
    # what ended it at the second
    by: str
    # what was wrong afterwards; empty: nothing
    wrong: str


class _Steps:
    """Counts the steps of this process, and ends it at one."""

    def __init__(self, end_at: int | None, by: signal.Signals = signal.SIGKILL) -> None:
        self.count = 0
        self._end_at = end_at
        self._by = by

    def step(self) -> None:
        self.count += 1
        if self.count == self._end_at:
            os.kill(os.getpid(), self._by)

    def watch(self) -> None:
        """From now on every step counts."""
        # no hook can be taken away again: this process ends soon
        sys.addaudithook(self._hook)
        fsync = os.fsync

        def counted(handle: Any) -> None:
            self.step()
            fsync(handle)

        os.fsync = counted
        self._watch_mlflow()

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and _writes(*arguments)):
            self.step()

    def _watch_mlflow(self) -> None:
        from mlflow.tracking import MlflowClient

        for name in CALLS:
            setattr(MlflowClient, name, self._counted(getattr(MlflowClient, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self.step()
            result = function(*given, **named)
            # after it, too: what it has done is then known to nobody
            self.step()
            return result

        return counted


def _writes(path: Any, mode: Any, flags: int | None) -> bool:
    """Does this open a file of the disk for writing?"""
    if not isinstance(path, str | os.PathLike) or not (flags or 0) & WRITING:
        return False
    return not os.fspath(path).startswith(("/dev", "/proc"))


class Campaign:
    """Folders in which every stage can begin, and what each leaves undisturbed."""

    def __init__(self, demo: Path, root: Path) -> None:
        self._root = root
        self.steps: dict[str, int] = {}
        self._expected: dict[str, Any] = {}
        before = root / "begin/x"
        before.mkdir(parents=True)
        for place in ("mirror", "data/demo"):
            shutil.copytree(demo / "thumos14", before / place / "thumos14")
        # not in this process, which forks: torch's and FFmpeg's threads would not be there after
        sandbox.in_child(_write_videos, before)
        for stage, arguments in STAGES.items():
            if stage == "track from nothing":
                (before / layout.TRACKING_FILE).unlink()
                shutil.rmtree(before / "mlruns")
            begun = root / f"{stage}/x"
            sandbox.copied(before, begun)
            done = sandbox.in_child(lambda a=arguments: _counted_steps(a), before)
            if done.code:
                raise AssertionError(f"{stage}: undisturbed it gives {done.code}: {done.said}")
            self.steps[stage] = done.result
            self._expected[stage] = sandbox.in_child(_left, before).result

    def cases(self, count: int, seed: int) -> Iterator[tuple[str, int, int]]:
        """(stage, first step, second step): every step of every stage, then more by lot."""
        for stage, before_last, second in ONCE_FAILED:
            yield stage, self.steps[stage] - before_last, second
        count -= len(ONCE_FAILED)
        rng = random.Random(seed)
        every = [(stage, step) for stage, steps in self.steps.items() for step in range(1, steps)]
        rng.shuffle(every)
        while len(every) < count:
            every.append(rng.choice(every))
        for stage, step in every[:count]:
            yield stage, step, rng.randrange(1, self.steps[stage] + 1)

    def begin(self, stage: str, folder: Path) -> None:
        """Let a folder be as it is before a stage."""
        shutil.rmtree(folder.parent, ignore_errors=True)
        sandbox.copied(self._root / f"{stage}/x", folder)

    def end(self, stage: str, folder: Path) -> str:
        """Run a stage to its end; says what is not as it should be then."""
        done = sandbox.in_child(lambda: main(list(STAGES[stage])), folder)
        if done.code or done.trace:
            return f"the last call gives {done.code}: {done.said} {done.trace}"
        left = sandbox.in_child(_left, folder)
        different = _differences(self._expected[stage], left.result)
        return "; ".join([*different, *_litter(folder)]) or left.trace

    def run(self, stage: str, first: int, second: int) -> Kill:
        """Kill a stage at two of its steps, and see what the third call makes of it."""
        folder = self._root / f"case{os.getpid()}/x"
        self.begin(stage, folder)
        # by lot, but the same of the same case
        by = random.Random(f"{stage} {first} {second}").choice(SIGNALS)
        sandbox.in_child(lambda: _ended_at(STAGES[stage], first, signal.SIGKILL), folder)
        sandbox.in_child(lambda: _ended_at(STAGES[stage], second, by), folder)
        wrong = self.end(stage, folder)[-2000:]
        return Kill(stage, first, second, self.steps[stage], by.name, wrong)


def _write_videos() -> None:
    """Two videos and an extractor, in the current folder."""
    tiny_extractor(Path("tiny"))
    for name in ("a", "b"):
        write_video(Path(f"videos/{name}.mp4"), partial(growing_bar, count=20), 20)


def _counted_steps(arguments: Sequence[str]) -> tuple[int, int]:
    steps = _Steps(None)
    steps.watch()
    return main(list(arguments)), steps.count


def _ended_at(arguments: Sequence[str], step: int, by: signal.Signals) -> int:
    _Steps(step, by).watch()
    return main(list(arguments))


def _left() -> dict[str, Any]:
    """What a user would find in the current folder: by name, what must be the same."""
    found: dict[str, Any] = {}
    for path in sorted(Path().rglob("*")):
        name = path.as_posix()
        if not path.is_file() or name.startswith(("mirror/", "mlruns/")):
            continue
        if path.suffix == ".pt":
            found[name] = _weights(path)
        elif (
            path.suffix in (".svg", ".html", ".md", ".csv", ".tex") and "history" not in name
        ) or path.name in ("detections.json", "annotations.json", "diagnosis.json"):
            found[name] = file_md5(path)
        elif path.name == "metrics.json":
            found[name] = json.loads(path.read_bytes())["percent"]
        elif path.suffix == ".npz":
            found[name] = file_md5(path)
        elif path.suffix == ".json" and "build/" in name:
            found[name] = json.loads(path.read_bytes()).get("md5")
        elif path.parts[0] == "data":
            found[name] = file_md5(path)
    return found | _in_mlflow()


def _weights(path: Path) -> list[str]:
    content = torch.load(path, weights_only=True)
    weights = content.get("state_dict") or content.get("ema") or {}
    return [f"{name} {tensor.double().sum().item()!r}" for name, tensor in weights.items()]


def _in_mlflow() -> dict[str, Any]:
    """Of every run its name, state and last metrics; of every model its number of versions."""
    if not layout.TRACKING_FILE.exists():
        return {}
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    found: dict[str, Any] = {}
    runs = client.search_runs([table.experiment_id for table in client.search_experiments()])
    for run in runs:
        names = [key for key in run.data.metrics if "mAP" in key or key.startswith("loss")]
        metrics = {key: repr(run.data.metrics[key]) for key in sorted(names)}
        state = "RUNNING" if run.info.status == "RUNNING" else "ended"
        kind = run.data.tags.get("kind", "")
        found.setdefault(f"mlflow {kind} {run.info.run_name}", []).append([state, metrics])
    return found


def _differences(expected: dict[str, Any], found: Any) -> list[str]:
    if not isinstance(found, dict):
        return ["nothing can be read"]
    different = []
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            different.append(f"{name}: {expected.get(name)!r:.200} -> {found.get(name)!r:.200}")
    return different


def _litter(folder: Path) -> list[str]:
    """Temporary files that the third call has left."""
    return [
        f"{path.relative_to(folder)} is left"
        for path in folder.rglob("*")
        if path.name.endswith((".part", ".partial", ".link"))
        or ".partial." in path.name
        or path.name.startswith((BESIDE, "tmp"))
    ]
