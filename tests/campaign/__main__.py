"""`make campaign`, or `python -m campaign` in tests/: all of it, and docs/reliability.md."""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401  # before anything forks

from actionformer import provenance
from actionformer.files.writing import write_json, write_text
from actionformer.synthetic import demo
from campaign import crowds, disks, fuzz, sandbox
from campaign.kills import STAGES, Campaign
from campaign.mutations import RULES
from campaign.targets import targets
from campaign.workflow import TIMES, Workflow

CHECKOUT = Path(__file__).resolve().parents[2]
OUT = CHECKOUT / "build/campaign"
PAGE = CHECKOUT / "docs/reliability.md"
# cases that once failed: [reader, file, seed, what went wrong of which damage]
ONCE_FAILED = Path(__file__).parent / "once_failed.json"
PARTS = ("fuzz", "kills", "disks", "crowds", "workflow")


@dataclass(frozen=True)
class Line:
    """A line of the table: a promise, how it was tested, and how often it held."""

    promise: str
    how: str
    cases: int
    # what was wrong, a line per case
    wrong: list[str]
    seconds: float
    # of the good ones, in words
    counts: str = ""
    # of the code that was tested, with `+` where it differed from the commit
    commit: str = ""
    seed: int = 0
    date: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cases", type=int, default=10_000, help="damaged files (10,000)")
    parser.add_argument("--kills", type=int, default=1000, help="killed processes (1,000)")
    parser.add_argument("--disks", type=int, default=150, help="full or failing disks (150)")
    parser.add_argument("--workflows", type=int, default=4, help="workflows that are ended (4)")
    parser.add_argument("--only", default="", help="of damaged files: readers called so")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at once (2)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of what was wrong")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sandbox.quiet()
    # before an hour in which another one may be made
    state = provenance.git_state()
    commit = str(state["commit"])[:12] + ("+" if state["dirty"] else "")
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        demo.write_all(root / "demo")
        if "fuzz" in args.parts:
            lines += _done("fuzz", [_fuzz(args, root)], args, commit)
        if {"kills", "disks", "crowds"} & set(args.parts):
            campaign = Campaign(root / "demo", root / "stages")
            if "kills" in args.parts:
                lines += _done("kills", [_kills(args, campaign)], args, commit)
            if "disks" in args.parts:
                lines += _done("disks", [_disks(args, campaign, root)], args, commit)
            if "crowds" in args.parts:
                lines += _done("crowds", _crowds(campaign, root), args, commit)
        if "workflow" in args.parts:
            lines += _done("workflow", [_workflows(args, root)], args, commit)
    (args.out / "wrong.txt").write_text("\n".join(text for line in lines for text in line.wrong))
    if any(line.wrong for line in lines):
        print(f"{args.out / 'wrong.txt'}: what was wrong")
        return 1
    # parts that held at another time count, too: the page says of which commit each is
    every = [line for part in PARTS for line in _lines_of(part, args.out)]
    missing = [part for part in PARTS if not _lines_of(part, args.out)]
    if missing or any(line.wrong for line in every):
        print(f"the page is written once every part has held; {', '.join(missing) or 'some'} not")
    else:
        write_text(PAGE, _page(every))
        print(f"wrote {PAGE}")
    return 0


def _done(part: str, lines: list[Line], args: argparse.Namespace, commit: str) -> list[Line]:
    """Keep what a part has found, unless it was narrowed to some readers, and say it."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    lines = [replace(line, commit=commit, seed=args.seed, date=today) for line in lines]
    if not args.only:
        write_json(args.out / f"{part}.json", [asdict(line) for line in lines])
    for line in lines:
        print(f"{line.promise}: {line.cases} cases, {len(line.wrong)} wrong, {line.seconds:.0f} s")
    return lines


def _lines_of(part: str, out: Path) -> list[Line]:
    """What a part found when it ran last; nothing where it never did."""
    path = out / f"{part}.json"
    return [Line(**line) for line in json.loads(path.read_bytes())] if path.exists() else []


def _each(function: Callable[[Any], Any], cases: Iterable[Any], jobs: int) -> list[Any]:
    """The results of a function for all cases, several at once; a count now and then."""
    results: list[Any] = []
    told = time.monotonic()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for result in pool.imap_unordered(function, cases, chunksize=4):
            results.append(result)
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{len(results)} cases", file=sys.stderr, flush=True)
    return results


# what forked workers read
_prepared: dict[str, Any] = {}


def _fuzz(args: argparse.Namespace, root: Path) -> Line:
    chosen = [target for target in targets(root / "demo") if args.only in target.name]
    for i, target in enumerate(chosen):
        _prepared[target.name] = fuzz.Prepared(target, root / f"target{i}/x")
    began = time.monotonic()
    drawn = fuzz.cases(chosen, args.cases, args.seed)
    cases = [(target.name, *rest) for target, *rest in drawn]
    known = json.loads(ONCE_FAILED.read_bytes())
    cases += [(name, file, seed) for name, file, seed, _ in known if name in _prepared]
    verdicts: list[fuzz.Verdict] = _each(_fuzzed, cases, args.jobs)
    with (args.out / "fuzz.jsonl").open("w") as log:
        for verdict in verdicts:
            if not verdict.is_good:
                print(json.dumps(asdict(verdict)), file=log)
    counts = Counter(verdict.verdict for verdict in verdicts)
    print(dict(counts))
    return Line(
        "Bad input is one line that names the file, or changes no number",
        f"{len(chosen)} readers of outside data; files damaged by structure and by bytes",
        len(verdicts),
        [str(verdict) for verdict in verdicts if not verdict.is_good],
        time.monotonic() - began,
        ", ".join(f"{counts[kind]} {kind}" for kind in fuzz.GOOD),
    )


def _fuzzed(case: tuple[str, str, int]) -> fuzz.Verdict:
    name, file, seed = case
    verdict: fuzz.Verdict = _prepared[name].run(file, seed)
    return verdict


def _kills(args: argparse.Namespace, campaign: Campaign) -> Line:
    _prepared["campaign"] = campaign
    began = time.monotonic()
    kills = _each(_killed, campaign.cases(args.kills // 2, args.seed), args.jobs)
    return Line(
        "A killed command goes on to the same bits",
        f"kill -9 at one of {sum(campaign.steps.values())} steps of {len(STAGES)} stages (each "
        "call that changes a file, each of MLflow's), and in the next call once more, or SIGTERM "
        "or SIGINT",
        2 * len(kills),
        [str(kill) for kill in kills if kill.wrong],
        time.monotonic() - began,
    )


def _killed(case: tuple[str, int, int]) -> Any:
    return _prepared["campaign"].run(*case)


def _disks(args: argparse.Namespace, campaign: Campaign, root: Path) -> Line:
    _prepared["campaign"], _prepared["root"] = campaign, root
    began = time.monotonic()
    found = _each(_filled, disks.cases(args.disks, args.seed), args.jobs)
    small = "a file system of a few megabytes" if disks.may_mount() else "no file system mounted"
    return Line(
        "A full or failing disk is one line, and loses nothing",
        f"a limit on the size of files, {small}, fsync that fails (EIO)",
        len(found),
        [str(full) for full in found if full.wrong],
        time.monotonic() - began,
    )


def _filled(case: tuple[str, str, int]) -> Any:
    return disks.run(_prepared["campaign"], _prepared["root"], *case)


def _crowds(campaign: Campaign, root: Path) -> list[Line]:
    began = time.monotonic()
    same = {stage: crowds.same_command(campaign, root, stage) for stage in STAGES}
    crowd = Line(
        "Eight at once are as one",
        "the same stage eight times at once, each of them",
        len(same),
        [f"eight times {stage}: {wrong}" for stage, wrong in same.items() if wrong],
        time.monotonic() - began,
    )
    began = time.monotonic()
    beside = {
        "readers": crowds.readers_beside_a_repack(root),
        "log calls": crowds.log_calls(root),
    }
    readers = Line(
        "Readers see the old or the new, and every metric arrives",
        f"four readers beside five repacks; {crowds.LOG_CALLS:,} log calls of eight processes",
        len(beside),
        [f"{name}: {wrong}" for name, wrong in beside.items() if wrong],
        time.monotonic() - began,
    )
    began = time.monotonic()
    damaged = crowds.damaged_databases(campaign, root)
    database = Line(
        "MLflow's database can be lost",
        f"mlflow.db {', '.join(damaged)}; then `actionformer track`",
        len(damaged),
        [f"mlflow.db {name}: {wrong}" for name, wrong in damaged.items() if wrong],
        time.monotonic() - began,
    )
    return [crowd, readers, database]


def _workflows(args: argparse.Namespace, root: Path) -> Line:
    began = time.monotonic()
    workflow = Workflow(root / "demo", root)
    wrong = [workflow.ended(number, args.seed) for number in range(args.workflows)]
    return Line(
        "A workflow that was ended goes on until nothing is left",
        f"snakemake with its jobs, ended {TIMES} times each by SIGKILL, SIGTERM, SIGINT or SIGSTOP",
        TIMES * args.workflows,
        [text for text in wrong if text],
        time.monotonic() - began,
    )


def _page(lines: list[Line]) -> str:
    table = [
        "| promise | how it is tested | cases | held | | commit, date, seed |",
        "|---|---|---:|---:|---|---|",
    ]
    for line in lines:
        held = line.cases - len(line.wrong)
        cells = [line.promise, line.how, f"{line.cases:,}", f"{held:,}", line.counts]
        cells.append(f"`{line.commit}`, {line.date}, {line.seed}")
        table.append(f"| {' | '.join(cells)} |")
    minutes = sum(line.seconds for line in lines) / 60
    rules = [f"- {text}" for text in RULES.values()]
    return "\n".join(
        [
            "# Reliability",
            "",
            "What is promised of files, processes and disks, and how often it was broken",
            "on purpose to see whether it holds. `make campaign` writes this page, where",
            "everything held; `make test` replays a short share and every case that once failed.",
            "",
            f"Python {platform.python_version()} on {platform.system()}, {minutes:.0f} minutes.",
            "",
            *table,
            "",
            "A case of a damaged file is good when the command gives one line that names the",
            "publisher's file, exit code 1, and leaves everything outside `build/` as it was",
            "(refused); or the same numbers (same); or other numbers, where nothing in the file",
            "tells that it is damaged (by a rule):",
            "",
            *rules,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
