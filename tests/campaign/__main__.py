"""`python -m campaign`, in tests/: the whole campaign, or a part of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from actionformer.synthetic import demo
from campaign import fuzz
from campaign.targets import targets

CHECKOUT = Path(__file__).resolve().parents[2]
OUT = CHECKOUT / "build/campaign"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="damaged files (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    fuzz.quiet()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        demo.write_all(root / "demo")
        chosen = [target for target in targets(root / "demo") if args.only in target.name]
        prepared = {}
        counts: Counter[str] = Counter()
        began = time.monotonic()
        with (OUT / "fuzz.jsonl").open("w") as log:
            for target, file, seed in fuzz.cases(chosen, args.cases, args.seed):
                if target.name not in prepared:
                    prepared[target.name] = fuzz.Prepared(target, root / f"t{len(prepared)}/x")
                verdict = prepared[target.name].run(file, seed)
                counts[verdict.verdict] += 1
                if not verdict.is_good:
                    print(fuzz.as_line(verdict)[:700], file=log, flush=True)
        print(dict(counts), f"{time.monotonic() - began:.0f} s")
    return int(any(counts[kind] for kind in fuzz.BAD))


if __name__ == "__main__":
    sys.exit(main())
