"""Where the rows of an edition stand, in words: a line per row and seed, then what is next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actionformer.params.experiment import Experiment
from actionformer.progress import clock


@dataclass(frozen=True)
class RunStatus:
    """One row with one seed."""

    experiment: Experiment
    seed: int
    # done, outdated, running, stopped, trained or missing
    state: str
    # epochs finished
    epoch: int
    # that they took; None where it isn't known
    seconds: float | None
    score: float | None
    # the first command that has yet to run; empty when done
    next_stage: str
    # of an outdated run: what has changed since
    why: Sequence[str] = ()

    @property
    def seconds_left(self) -> float | None:
        """Of training, at the rate so far."""
        if not self.epoch or self.seconds is None:
            return None
        return self.seconds / self.epoch * (self.experiment.training.epochs - self.epoch)

    @property
    def measured_hours(self) -> float | None:
        """What its training took here; None unless it is done."""
        if self.state != "done" or self.seconds is None:
            return None
        return self.seconds / 3600


@dataclass(frozen=True)
class Hours:
    """How long one seed will take."""

    hours: float
    # from steps that ran on this machine; else from operations alone
    is_measured: bool


@dataclass(frozen=True)
class Costs:
    """What the trainings of rows take on a machine."""

    device: str
    # float32 operations a second in matrix products
    rate: float
    # row -> of one seed; None where nobody says how many videos there are
    hours: Mapping[str, Hours | None]
    # row -> what its files and runs take, in words
    disk: Mapping[str, str]


def as_text(
    runs: Sequence[RunStatus],
    calls: Mapping[str, str],
    *,
    others: Sequence[str],
    costs: Costs | None,
) -> str:
    """A line per run, what is outdated and why, `others` as they are, and what is next.

    Args:
        calls: row -> the command that makes what it lacks.
    """
    width = max(len(run.experiment.name) for run in runs)
    head = f"{'row':<{width}}  seed  {'state':<26} {'mAP':>6} {'trained for':>11} {'to go':>9}"
    lines = [head + ("  one seed takes          disk" if costs is not None else "")]
    told: set[str] = set()
    for run in runs:
        line = _line(run, width)
        name = run.experiment.name
        if costs is not None and name not in told:  # once per row
            told.add(name)
            line += f"  {_hours(run, costs):<22}  {costs.disk[name]}"
        lines.append(line.rstrip())
    counted = Counter(run.state for run in runs)
    states = ", ".join(f"{number} {state}" for state, number in counted.items())
    lines += ["", f"{states} of {len(runs)}"]
    for run in runs:
        if run.why:
            where = f"{run.experiment.name}, seed {run.seed}, {run.next_stage}"
            lines.append(f"outdated: {where}: {'; '.join(run.why)}")
    lines += others
    waiting = [run for run in runs if run.state not in ("done", "running")]
    if waiting:
        lines.append(f"next: {_next(waiting[0])} ({calls[waiting[0].experiment.name]})")
    if costs is not None:
        lines.append(
            "hours: 'trained' where a seed has been trained here; 'by its steps' from some steps "
            "that ran here, on the lengths of its videos; 'by operations' from the network's "
            f"operations and the {costs.rate / 1e9:.0f} GFLOP/s of matrix products that this "
            f"machine has to spare just now ({costs.device}), which `--measure` makes better"
        )
    return "\n".join(lines) + "\n"


def _line(run: RunStatus, width: int) -> str:
    """Row, seed, state, score, and the time that training took and will take."""
    state, left = run.state, None
    if state in ("running", "stopped"):
        state += f", {run.epoch} of {run.experiment.training.epochs} epochs"
        left = run.seconds_left
    score = "" if run.score is None else f"{run.score:.2f}"
    times = ["" if seconds is None else clock(seconds) for seconds in (run.seconds, left)]
    name = f"{run.experiment.name:<{width}}"
    return f"{name}  {run.seed:>4}  {state:<26} {score:>6} {times[0]:>11} {times[1]:>9}"


def _next(run: RunStatus) -> str:
    """The stage that a run waits for, in words."""
    name, stage = run.experiment.name, run.next_stage
    if stage in ("train", "detect", "evaluate"):
        return f"{stage} {name}, seed {run.seed}"
    return f"fetch for {name}" if stage == "fetch" else stage


def _hours(run: RunStatus, costs: Costs) -> str:
    if run.measured_hours is not None:
        return f"{run.measured_hours:.2f} h, trained"
    told = costs.hours[run.experiment.name]
    if told is None:
        return "unknown"
    how = "by its steps" if told.is_measured else "by operations"
    return f"{told.hours:.2g} h, {how}" if told.hours < 1 else f"{told.hours:.1f} h, {how}"
