"""What a rehearsal took, and what a seed of every row will take: a section of docs/performance.md.

python benchmarks/rehearsal.py FOLDER                  the folder `edition=rehearsal` was run in
python benchmarks/rehearsal.py FOLDER --whole ROW      of one row, all videos and epochs
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmark import REHEARSAL, WHOLE, sections_of, write_page

from actionformer import load_experiment
from actionformer.metrics_file import read_metrics
from actionformer.params.experiment import Experiment
from actionformer.params.files import published_rows
from actionformer.provenance import commit_text, environment, git_state
from actionformer.stages.status import batches_of, hours_of, speed_of
from actionformer.training.history import read_history

EDITION = "rehearsal"
# in the order of the way; those before the audit are a data set's
STAGES = ("fetch", "convert", "pack", "audit", "train", "detect", "evaluate", "draw")
# how much of twice the cores comes as speed
PARALLEL = 0.75
TEXT = """\
{date}, commit {commit}; {cores} cores; torch {torch}. `make rehearsal`: every row of the paper
edition at published size, on {videos} training and as many evaluated videos of true length and two
epochs, from files in the publishers' formats to tables and report. Rows of one data set share its
fetching, conversion and packing.

### Seconds of each stage

{seconds}

### Peak memory, and what is read from and written to the disk

GB of memory; MB read and written, as the system counts them for the process: what is in its cache
is not read.

{disk}

### An epoch against its estimate

Seconds of training: what the last epoch took, and what some steps of the row's own say of it. They
were measured at different moments, of which a machine that others share has slow ones; and the
steps of an epoch, each of another length, take some percent longer than one that is repeated.

{estimates}

### Hours of a seed

One training with its evaluations, on 2 cores by some steps of the row's own on the published
lengths (`actionformer status --edition paper --measure`); on 16 cores **estimated** from these,
{parallel:.0%} of eight times as fast.

{hours}
"""


WHOLE_TEXT = """\
{date}, commit {commit}; {cores} cores; torch {torch}. {row} of the rehearsal edition with
all its videos and epochs, one seed: `actionformer rehearse {row}`, then `snakemake --cores all
--config edition=rehearsal mirror=build/rehearsal-mirror rows={row}`. Features are drawn;
annotations may be the publisher's.

{table}

Where a call was interrupted, `train` are the seconds of the last one. {quiet} of {epochs} epochs
ran with no other program beside them (within a fifth of the fastest one) and took {mean:.0f} s in
the mean, which makes a seed with its {scored} evaluations {hours:.1f} h; by some of its own steps
it was reckoned to take {reckoned:.1f} h (`status --measure`). All epochs as they ran took
{all:.1f} h. Average mAP {score:.2f}: rehearsal numbers, of features that were drawn to be told
apart.
"""


@dataclass(frozen=True)
class Job:
    """What Snakemake noted of a job, or of several together."""

    seconds: float = 0.0
    memory_mb: float = 0.0
    read_mb: float = 0.0
    written_mb: float = 0.0

    def __add__(self, other: Job) -> Job:
        return Job(
            self.seconds + other.seconds,
            max(self.memory_mb, other.memory_mb),
            self.read_mb + other.read_mb,
            self.written_mb + other.written_mb,
        )


def job(folder: Path, pattern: str) -> Job | None:
    """All jobs whose notes match; None where there are none."""
    found = None
    for path in sorted(folder.glob(pattern)):
        with path.open() as file:
            line = next(csv.DictReader(file, delimiter="\t"))
        values = (float(line[key]) if line[key] != "-" else 0.0 for key in COLUMNS)
        found = Job(*values) if found is None else found + Job(*values)
    return found


COLUMNS = ("s", "max_rss", "io_in", "io_out")


def jobs_of(folder: Path, row: Experiment) -> dict[str, Job | None]:
    """Stage -> what it took for a row, or for the data set that the row reads."""
    owner, dataset = row.feature_owner, row.dataset_folder
    before = folder / f"build/{EDITION}/benchmarks"
    after = folder / f"results/{EDITION}/benchmarks"
    # a row that was shortened on the command line has a longer name
    return {
        "fetch": job(before, f"fetch/{dataset}/**/*.tsv"),
        "convert": job(before, f"convert/{dataset}.tsv"),
        "pack": job(before, f"pack/{owner}-{row.data.features}.tsv"),
        "audit": job(before, f"audit/{row.name}[-.]*tsv"),
        "train": job(after, f"train/{row.name}-*seed0.tsv"),
        "detect": job(after, f"detect/{row.name}-*seed0.tsv"),
        "evaluate": job(after, f"evaluate/{row.name}-*seed0.tsv"),
        "draw": job(after, f"draw/{row.name}[-.]*tsv"),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines)


def seconds_table(taken: dict[str, dict[str, Job | None]]) -> str:
    rows = []
    for row, jobs in taken.items():
        cells = []
        for stage in STAGES:
            one = jobs[stage]
            cells.append("–" if one is None else f"{one.seconds:.1f}")
        rows.append([row, *cells])
    return table(["row", *STAGES], rows)


def disk_table(taken: dict[str, dict[str, Job | None]]) -> str:
    shown = ("pack", "train", "detect", "evaluate")
    head = ["row"]
    for stage in shown:
        head += [f"{stage}, GB", "read", "written"]
    rows = []
    for row, jobs in taken.items():
        cells = [row]
        for stage in shown:
            one = jobs[stage] or Job()
            cells += [f"{one.memory_mb / 1000:.1f}", f"{one.read_mb:.0f}", f"{one.written_mb:.0f}"]
        rows.append(cells)
    return table(head, rows)


def hours_table(rows: Sequence[Experiment]) -> str:
    _, _, hours = hours_of(rows, measure=False)
    lines = []
    for row in rows:
        told = hours[row.name]
        assert told is not None
        many = told.hours * 2 / 16 / PARALLEL
        lines.append([row.name, f"{told.hours:.1f}", f"{many:.1f} (estimated)"])
    return table(["row", "2 cores, h", "16 cores, h"], lines)


def estimates_table(rows: Sequence[Experiment]) -> str:
    """The last epoch of every rehearsed row, beside what `status --measure` reckons."""
    lines = []
    for row in rows:
        # a row that was shortened on the command line has a longer name
        results = Path(f"results/{EDITION}")
        (run, *_) = [
            path
            for folder in (row.name, f"{row.name}-*")
            for path in results.glob(f"{folder}/seed0/history.csv")
        ]
        history = read_history(run)
        taken = history[-1]["seconds"]
        batches = batches_of(row)
        assert batches is not None
        speed = speed_of(row, "cpu")
        if speed is None:
            sys.exit("first: actionformer status --edition paper --measure")
        reckoned = speed.step.seconds(batches.training[len(history) - 1])
        difference = f"{reckoned / taken - 1:+.0%}"
        lines.append([row.name, f"{taken:.1f}", f"{reckoned:.1f}", difference])
    return table(["row", "took, s", "estimate, s", "difference"], lines)


def whole_section(row: Experiment, jobs: dict[str, Job | None]) -> str:
    """What a row took whole."""
    lines = []
    for stage in STAGES:
        one = jobs[stage]
        if one is not None:
            cells = [f"{one.seconds:.0f}", f"{one.memory_mb / 1000:.1f}"]
            lines.append([stage, *cells, f"{one.read_mb:.0f}", f"{one.written_mb:.0f}"])
    run = Path(f"results/{EDITION}/{row.name}/seed0")
    metrics = read_metrics(run / "metrics.json")
    history = read_history(run / "history.csv")
    seconds = [record["seconds"] for record in history]
    quiet = [one for one in seconds if one <= 1.2 * min(seconds)]
    mean = sum(quiet) / len(quiet)
    _, _, reckoned = hours_of([load_experiment(row.name)], measure=False)
    told = reckoned[row.name]
    evaluations = jobs["detect"] or Job()
    scored = sum("mAP/average" in record for record in history)
    where = environment()
    sessions = metrics["lineage"]["trained_by"]
    return WHOLE_TEXT.format(
        date=date.today().isoformat(),
        commit=", ".join(dict.fromkeys(commit_text(session["git"]) for session in sessions)),
        cores=os.cpu_count(),
        torch=where["torch"],
        row=row.name,
        table=table(["stage", "seconds", "memory, GB", "MB read", "written"], lines),
        quiet=len(quiet),
        epochs=len(history),
        mean=mean,
        scored=scored,
        hours=(mean * len(history) + evaluations.seconds * scored) / 3600,
        reckoned=math.nan if told is None else told.hours,
        all=sum(seconds) / 3600,
        score=metrics["percent"]["mAP/average"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    page = Path(__file__).parents[1] / "docs/performance.md"
    parser.add_argument("--out", type=Path, default=page)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--whole", metavar="ROW", help="a row that was run with all its videos")
    args = parser.parse_args()
    page = args.out.resolve()
    os.chdir(args.folder)
    if args.whole is not None:
        row = load_experiment(args.whole, EDITION)
        text = whole_section(row, jobs_of(Path("."), row))
        sections = sections_of(page)
        sections[WHOLE] = f"## {WHOLE}: {environment()['processor']}\n\n{text}"
        print(write_page(page, sections))
        return
    rows = [load_experiment(name) for name in published_rows()]
    rehearsed = [load_experiment(name, EDITION) for name in published_rows()]
    taken = {row.name: jobs_of(Path("."), row) for row in rows}
    where = environment()
    text = TEXT.format(
        date=date.today().isoformat(),
        commit=commit_text(git_state()),
        cores=os.cpu_count(),
        torch=where["torch"],
        videos=args.videos,
        seconds=seconds_table(taken),
        disk=disk_table(taken),
        estimates=estimates_table(rehearsed),
        hours=hours_table(rows),
        parallel=PARALLEL,
    )
    sections = sections_of(page)
    sections[REHEARSAL] = f"## {REHEARSAL}: {where['processor']}\n\n{text}"
    print(write_page(page, sections))


if __name__ == "__main__":
    main()
