"""Are the files that are made from others up to date? Part of `make check`; `--write` makes them.

    requirements.lock, environment.yml    from what is installed
    workflow/schemas/*.json               from the typed params
    workflow/report/*.rst                 from the figures' captions

Also: every params file is valid, every link within the prose leads somewhere, the repository's DVC
store holds no more than 15 MB, no path of one machine is committed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from actionformer import layout
from actionformer.data import plan
from actionformer.params.files import (
    load_dataset,
    load_edition,
    load_experiment,
    names,
    published_rows,
    schemas,
)
from actionformer.reporting.figures import of_row

CHECKOUT = Path(__file__).resolve().parents[1]
LOCK = CHECKOUT / "requirements.lock"
ENVIRONMENT = CHECKOUT / "environment.yml"
SCHEMAS = CHECKOUT / "workflow/schemas"
CAPTIONS = CHECKOUT / "workflow/report"
DATA_PAGE = CHECKOUT / "docs/data.md"
STORE_LIMIT = 15_000_000
NOT_LOCKED = {
    "actionformer",
    "pip",
    "setuptools",
    "wheel",
    "playwright",
    "pyee",
}  # the last two: .ci/run

LOCK_HEAD = """\
# Every package of the environment, pinned; `make lock` writes it. No hashes, index lines or local
# version labels:
# CPU and CUDA builds of torch differ in all three.
"""
ENVIRONMENT_HEAD = """\
# The environment for conda users; `make lock` writes it from requirements.lock, `make check`
# compares the two.
name: actionformer
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def installed() -> list[str]:
    """name==version of every package of this environment, without local version labels."""
    found = {d.metadata["Name"]: d.version.partition("+")[0] for d in distributions()}
    return [
        f"{name}=={found[name]}"
        for name in sorted(found, key=str.lower)
        if name.lower() not in NOT_LOCKED
    ]


def lock_text(pins: list[str]) -> str:
    return LOCK_HEAD + "".join(f"{pin}\n" for pin in pins)


def environment_text(pins: list[str]) -> str:
    return ENVIRONMENT_HEAD + "".join(f"      - {pin}\n" for pin in pins)


def pins_of(lock: str) -> list[str]:
    return [line for line in lock.splitlines() if line and not line.startswith("#")]


def files_table() -> str:
    """Every file of the paper edition, as docs/data.md ends with."""
    return plan.as_markdown([load_experiment(row, "paper") for row in published_rows()])


def captions() -> dict[str, str]:
    """Captions for Snakemake's report, by file name."""
    return {
        f"{name}.rst": f"**{title}.** {caption}\n"
        for name, (title, caption) in of_row.WORDS.items()
    }


def dead_links() -> list[str]:
    """Relative links of the prose that lead nowhere."""
    found = []
    for page in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                found.append(f"{page.relative_to(CHECKOUT)}: no such file: {target}")
    return found


def problems() -> list[str]:
    """One line per file that is out of date or doesn't belong."""
    found = []
    pins = pins_of(LOCK.read_text())
    found += [
        f"requirements.lock: '{pin}' is no plain == pin"
        for pin in pins
        if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)
    ]
    if ENVIRONMENT.read_text() != environment_text(pins):
        found.append("environment.yml differs from requirements.lock; run `make lock`")
    for name, text in schemas().items():
        if not (SCHEMAS / name).exists() or (SCHEMAS / name).read_text() != text:
            found.append(
                f"workflow/schemas/{name} differs from the typed params; run `make schemas`"
            )
    for edition in names("editions"):
        load_edition(edition)
        for dataset in names("datasets"):
            load_dataset(dataset, edition)
        for row in names("experiments"):
            load_experiment(row, edition)
    for kind in ("dataset", "experiment", "edition"):
        validator = Draft202012Validator(json.loads(schemas()[f"{kind}.schema.json"]))
        for path in (CHECKOUT / f"params/{kind}s").glob("*.yaml"):
            errors = validator.iter_errors(json.loads(json.dumps(yaml.safe_load(path.read_text()))))
            found += [f"{path}: {error.json_path}: {error.message}" for error in errors]
    for name, text in captions().items():
        if not (CAPTIONS / name).exists() or (CAPTIONS / name).read_text() != text:
            found.append(
                f"workflow/report/{name} differs from the figure's caption; run `make schemas`"
            )
    if tuple(of_row.WORDS) != layout.FIGURES:
        found.append("layout.FIGURES and of_row.WORDS name different figures")
    if not DATA_PAGE.read_text().endswith(files_table()):
        found.append("docs/data.md: the table differs from params/; run `make schemas`")
    found += dead_links()
    size = sum(
        path.stat().st_size for path in (CHECKOUT / ".dvc/store").rglob("*") if path.is_file()
    )
    if size > STORE_LIMIT:
        found.append(
            f".dvc/store holds {size / 1e6:.1f} MB, at most {STORE_LIMIT / 1e6:.0f} are meant for the demo"
        )
    pattern = r"(^|[^[:alnum:]_.~-])/(tmp|work|root|home|opt)/"
    grep = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", ":!tests/oracles", ":!.dvc/store"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    found += [
        f"a path of one machine: {line}"
        for line in grep.stdout.splitlines()
        if "consistency.py" not in line
    ]
    return found


def main() -> int:
    if "--table" in sys.argv:
        head = DATA_PAGE.read_text().partition("| file | read by |")[0]
        DATA_PAGE.write_text(head + files_table())
        for name, text in captions().items():
            (CAPTIONS / name).write_text(text)
        return 0
    if "--write" in sys.argv:
        pins = installed()
        LOCK.write_text(lock_text(pins))
        ENVIRONMENT.write_text(environment_text(pins))
        return 0
    found = problems()
    print("\n".join(found) or "generated files, params and store are consistent")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
