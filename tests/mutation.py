"""Do the tests notice a fault?

Puts small faults into the code, one at a time, and runs the tests of its room.

    make mutants                       600 faults, drawn with a seed; some hours
    python tests/mutation.py --help

Which faults there are is cosmic-ray's answer (its operators are used, its runner is not). A worker
imports torch and numba once and forks for every fault, so that a fault costs seconds. A fault that
changes nothing that runs (an annotation, a docstring, the words of an error) is not counted.
`build/mutation/results-SEED.jsonl` has a line per fault; an interrupted run goes on from there.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import Process, Queue
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# file, operator and occurrence; when it was tried, also what noticed it
Fault = dict[str, object]
PACKAGE = Path("src/actionformer")
ROOMS = ("model", "training", "detection", "evaluation")
OUT = CHECKOUT / "build/mutation"
# after which the tests count as hanging: the fault was noticed
SECONDS = 240

# a room's or a file's tests, the quick ones first: the next ones run where a fault was not noticed
PREDICT = (
    "test_outputs.py -k 'say_the_same or times_scale or way_of_seeing or has_to_be_given or "
    "another_kind or class_agnostic or device or offset_of_the or span or duration or lasts'"
)
TESTS = {
    "model/onnx_export.py": ["test_outputs.py -k onnx"],
    "model/state_dict_adapter.py": ["test_published_weights.py", "test_parity.py -k release"],
    "model": [
        "test_parity.py -k 'test_network and anet'",
        "test_parity.py -k test_targets_are",
        "test_network.py",
        "test_training.py -k loop",
        "test_parity.py -k 'test_network and egovlp'",
        "test_parity.py -k 'release and anet'",
    ],
    "training": [
        "test_training.py -k loop",
        "test_training.py -k 'not loop'",
        "test_parity.py -k learning_rate",
        "test_published_weights.py",
    ],
    "detection/actions.py": ["test_outputs.py -k 'fused or ten_best'"],
    "detection/from_files.py": [PREDICT],
    "detection": [
        "test_detection.py",
        "test_parity.py -k 'nms or voting or fused or detections'",
        PREDICT,
    ],
    "evaluation": [
        "test_evaluation.py",
        "test_diagnosis.py",
        "test_parity.py -k map_and_recall",
    ],
}


def tests_of(file: str) -> list[str]:
    """The tests of a file, or those of its room."""
    return TESTS.get(file) or TESTS[file.partition("/")[0]]


# ------------------------------------------------------------------------------------------ faults


def faults(seed: int, count: int) -> list[Fault]:
    """`count` faults of all that there are in these rooms, drawn with a seed, in that order."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    every = []
    for room in ROOMS:
        for path in sorted((CHECKOUT / PACKAGE / room).glob("*.py")):
            tree = get_ast(path.read_text(encoding="utf-8"))
            for name in sorted(operator_names()):
                if "Variable" in name:  # needs arguments
                    continue
                operator = get_operator(name)()
                places = [len(list(operator.mutation_positions(node))) for node in ast_nodes(tree)]
                file = f"{room}/{path.name}"
                every += [
                    {"file": file, "operator": name, "occurrence": i} for i in range(sum(places))
                ]
    random.Random(seed).shuffle(every)
    chosen: list[Fault] = []
    for fault in every:
        if len(chosen) == count:
            break
        before, after = with_fault(fault)
        if bare(before) != bare(after):
            chosen.append(fault)
    return chosen


def with_fault(fault: Fault) -> tuple[str, str]:
    """The code of a file without and with a fault."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    before = (CHECKOUT / PACKAGE / str(fault["file"])).read_text(encoding="utf-8")
    after = mutate_code(before, get_operator(fault["operator"])(), fault["occurrence"])
    return before, before if after is None else after


class _Bare(ast.NodeTransformer):
    """Without what does nothing: annotations, docstrings and other texts, words of errors."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None)


def bare(code: str) -> str:
    """What of a code does anything; the code itself where it can't be parsed."""
    try:
        return ast.dump(_Bare().visit(ast.parse(code)))
    except SyntaxError:
        return code


# ----------------------------------------------------------------------------------------- running


def a_copy() -> Path:
    """A copy of the checkout, to put faults into."""
    copy = Path(tempfile.mkdtemp(prefix="mutation-")) / "main"
    copy.mkdir()
    for name in ("src", "tests", "params", "docs", "benchmarks", "workflow"):
        ignored = shutil.ignore_patterns("__pycache__", "oracles")
        shutil.copytree(CHECKOUT / name, copy / name, ignore=ignored)
    for name in ("Snakefile", "pyproject.toml", "data.dvc", "README.md", "requirements.lock"):
        shutil.copy(CHECKOUT / name, copy / name)
    (copy / "tests/oracles").symlink_to(CHECKOUT / "tests/oracles")
    if (CHECKOUT.parent / "shared").exists():
        (copy.parent / "shared").symlink_to(CHECKOUT.parent / "shared")
    return copy


def prepare() -> None:
    """Import what is slow to import, but nothing of this project: forked processes have it then."""
    import h5py  # noqa: F401
    import hypothesis  # noqa: F401
    import numba  # noqa: F401
    import pandas  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401


def refuse_failing_tests(chosen: Sequence[Fault]) -> None:
    """Tests that fail without a fault notice nothing."""
    prepare()
    copy = a_copy()
    for tests in dict.fromkeys(tests for fault in chosen for tests in tests_of(str(fault["file"]))):
        if not passes(copy, tests):
            sys.exit(
                f"these tests fail, or take longer than {SECONDS} s, without any fault: {tests}"
            )
        print(f"passes without a fault: {tests}", flush=True)
    shutil.rmtree(copy.parent)


def worker(faults: Queue[Fault | None], results: Queue[Fault]) -> None:
    """Try faults in a copy of the checkout, in a forked process each."""
    prepare()
    copy = a_copy()
    try:
        for fault in iter(faults.get, None):
            before, after = with_fault(fault)
            path = copy / PACKAGE / str(fault["file"])
            path.write_text(after, encoding="utf-8")
            began = time.monotonic()
            noticed_by = next(
                (t for t in tests_of(str(fault["file"])) if not passes(copy, t)), None
            )
            path.write_text(before, encoding="utf-8")
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
            change = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            results.put(
                fault
                | {"noticed_by": noticed_by, "change": change, "seconds": time.monotonic() - began}
            )
    finally:
        shutil.rmtree(copy.parent)


def passes(copy: Path, tests: str) -> bool:
    """Do these tests pass in the copy? In a process of its own, with a numba cache of its own."""
    import pytest

    cache = tempfile.mkdtemp(prefix="numba-")
    child = os.fork()
    if child == 0:
        os.setsid()
        os.environ |= {
            "NUMBA_CACHE_DIR": cache,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{copy}/src",
        }
        sys.dont_write_bytecode = True
        os.chdir(copy)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        sys.path[:0] = [f"{copy}/src", f"{copy}/tests"]
        file, _, which = tests.partition(" -k ")
        options = ["-k", which.strip("'")] if which else []
        code = 1
        try:
            code = pytest.main(
                ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/{file}", *options]
            )
        finally:
            os._exit(int(code))
    began = time.monotonic()
    status = None
    while status is None and time.monotonic() - began < SECONDS:
        found, code = os.waitpid(child, os.WNOHANG)
        status = code if found else None
        time.sleep(0.02)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    shutil.rmtree(cache, ignore_errors=True)
    return status == 0


def known(results: Path) -> Iterator[Fault]:
    if results.exists():
        yield from map(json.loads, results.read_text(encoding="utf-8").splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=600, help="faults (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args()
    results = OUT / f"results-{args.seed}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    tried = {(r["file"], r["operator"], r["occurrence"]) for r in known(results)}
    chosen = faults(args.seed, args.count)
    left = [
        fault
        for fault in chosen
        if (fault["file"], fault["operator"], fault["occurrence"]) not in tried
    ]
    print(f"{len(chosen)} faults, {len(left)} to try", flush=True)
    refuse_failing_tests(left)

    queue: Queue[Fault | None] = Queue()
    answers: Queue[Fault] = Queue()
    for fault in left:
        queue.put(fault)
    workers = [Process(target=worker, args=(queue, answers)) for _ in range(args.workers)]
    for process in workers:
        queue.put(None)
        process.start()
    with results.open("a", encoding="utf-8") as file:
        for number in range(len(left)):
            answer = answers.get()
            file.write(json.dumps(answer) + "\n")
            file.flush()
            if answer["noticed_by"] is None:
                change = " ".join(answer["change"])  # type: ignore[arg-type]
                print(f"{number + 1}/{len(left)} survived: {answer['file']}: {change}", flush=True)
    for process in workers:
        process.join()
    print_table(list(known(results)))


def print_table(results: list[Fault]) -> None:
    """Faults and survivors per room."""
    total = Counter(str(r["file"]).partition("/")[0] for r in results)
    survived = Counter(str(r["file"]).partition("/")[0] for r in results if r["noticed_by"] is None)
    print("room        faults  noticed  survived")
    for room in ROOMS:
        print(f"{room:<12}{total[room]:>6}{total[room] - survived[room]:>9}{survived[room]:>10}")
    every, left = sum(total.values()), sum(survived.values())
    print(f"{'all':<12}{every:>6}{every - left:>9}{left:>10}")


if __name__ == "__main__":
    main()
