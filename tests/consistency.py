"""Are the files that are made from others up to date? Part of `make check`.

    requirements.lock, environment.yml    from what is installed      --write
    requirements-extras.lock              from what is installed      --write
    workflow/schemas/*.json               from the typed params       actionformer params --schemas
    workflow/report/*.rst                 the figures' captions       --table
    docs/data.md                          the table of all files      --table
    docs/api.md                           what the package exports    --table
    docs/architecture.md                  the list of all files       --table

Also: every params file is valid, every link within the prose leads somewhere, letters in names of
tensors stand in the legend, the version is the same everywhere, the repository's DVC store holds no
more than 15 MB, no path of one machine is committed.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from actionformer import __version__, api, layout
from actionformer.data import plan
from actionformer.params.dataset import Params
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
# the first of each that `make env` takes: Debian 12 has 3.11.2
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")
EXTRAS_LOCK = CHECKOUT / "requirements-extras.lock"
# of pyproject.toml: what `make env EXTRAS=...` adds; `dev` is part of every environment
EXTRAS = ("slurm", "s3", "ssh", "postgres", "torchcodec", "moto")
ENVIRONMENT = CHECKOUT / "environment.yml"
SCHEMAS = CHECKOUT / "workflow/schemas"
CAPTIONS = CHECKOUT / "workflow/report"
DATA_PAGE = CHECKOUT / "docs/data.md"
API_PAGE = CHECKOUT / "docs/api.md"
LAYOUT_PAGE = CHECKOUT / "docs/architecture.md"
SOURCE = CHECKOUT / "src/actionformer"
STORE_LIMIT = 15_000_000
# the last two are installed by .ci/run
NOT_LOCKED = {"actionformer", "pip", "setuptools", "wheel", "playwright", "pyee"}

LOCK_HEAD = """\
# Every package of the environment, pinned; `make lock` writes it. No hashes, index lines or local
# version labels: CPU and CUDA builds of torch differ in all three.
"""
EXTRAS_HEAD = """\
# What `make env EXTRAS="slurm s3"` installs beside requirements.lock, a section each; `make lock`
# writes it. The last one is for tests alone.
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
LIST_HEAD = """\
## Every file

What the first line of each says of it; `make schemas` writes this list.
"""
API_HEAD = """\
# What Python programs may use

What this page names stays: a change of it is a change of version. Everything else in `actionformer`
is how the commands are built, and moves when that gets simpler
([docs/architecture.md](architecture.md)). Written from the docstrings by `make schemas`.

```python
from actionformer import ActionFormer, Experiment, load_experiment, predict, train
from actionformer import detections, evaluate, plot_timeline
from actionformer import load_published, published_model
```

[tour.ipynb](tour.ipynb) is a notebook that goes from the demo edition to a figure.

"METHOD section 5" is a section of [docs/method.md](method.md); letters in names are those of
[docs/architecture.md](architecture.md#letters).
"""


def installed() -> dict[str, str]:
    """Name -> version of every package of this environment, without local version labels."""
    found = {d.metadata["Name"]: d.version.partition("+")[0] for d in distributions()}
    names = sorted(found, key=str.lower)
    return {name: found[name] for name in names if name.lower() not in NOT_LOCKED}


def needed_by(extra: str) -> set[str]:
    """Canonical names of all that this package leads to with an extra of its own; '' for none."""
    known: set[tuple[str, str]] = set()
    waiting = [("actionformer", extra)]
    while waiting:
        one = waiting.pop()
        if one not in known:
            known.add(one)
            with suppress(PackageNotFoundError):
                waiting += required_by(*one)
    return {name for name, _ in known}


def required_by(package: str, extra: str) -> Iterator[tuple[str, str]]:
    """(package, its extra) of everything that a package asks for."""
    for text in distribution(package).requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for part in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), part


def locks() -> tuple[list[str], dict[str, list[str]]]:
    """The pins of the environment, and of every extra what it adds."""
    pins = {}
    for name, version in installed().items():
        pins[canonicalize_name(name)] = f"{name}=={version}"
    always = needed_by("") | needed_by("dev")
    extras = {}
    for extra in EXTRAS:
        more = needed_by(extra) - always
        extras[extra] = [pin for name, pin in pins.items() if name in more]
    added = {pin for found in extras.values() for pin in found}
    return [pin for pin in pins.values() if pin not in added], extras


def extras_text(extras: Mapping[str, list[str]]) -> str:
    text = EXTRAS_HEAD
    for extra, pins in extras.items():
        text += "\n".join([f"# [{extra}]", *pins]) + "\n"
    return text


def lock_text(pins: list[str]) -> str:
    return LOCK_HEAD + "".join(f"{pin}\n" for pin in pins)


def environment_text(pins: list[str]) -> str:
    return ENVIRONMENT_HEAD + "".join(f"      - {pin}\n" for pin in pins)


def pins_of(lock: str) -> list[str]:
    return [line for line in lock.splitlines() if line and not line.startswith("#")]


# --------------------------------------------------------------------------- files made from others


def files_table() -> str:
    """Every file of the paper edition, as docs/data.md ends with."""
    return plan.as_markdown([load_experiment(row, "paper") for row in published_rows()])


def source_list() -> str:
    """Every file of the package and its docstring's first line: the end of docs/architecture.md."""
    lines = ["", "**Beside the rooms**", *_table_of(SOURCE)]
    for room in sorted(SOURCE.rglob("__init__.py")):
        folder = room.parent
        if folder != SOURCE:
            name = folder.relative_to(SOURCE).as_posix()
            lines += ["", f"**`{name}/`** {_first_words(room)}", *_table_of(folder)]
    return "\n".join(lines) + "\n"


def _table_of(folder: Path) -> Iterator[str]:
    yield from ("", "| | |", "|---|---|")
    for path in sorted(folder.glob("[!_]*.py")):
        yield f"| `{path.name}` | {_first_words(path)} |"


def _first_words(path: Path) -> str:
    """The first line of a file's docstring."""
    return str(ast.get_docstring(ast.parse(path.read_text()))).splitlines()[0]


def captions() -> dict[str, str]:
    """Captions for Snakemake's report, by file name."""
    texts = {}
    for name, (title, caption) in of_row.WORDS.items():
        texts[f"{name}.rst"] = f"**{title}.** {caption}\n"
    return texts


def api_page() -> str:
    """docs/api.md: signatures and docstrings of what the package exports."""
    parts = [API_HEAD]
    for name in api.__all__:
        thing = getattr(api, name)
        parts.append(f"## {name}\n")
        if not inspect.isclass(thing):
            parts.append(_documented(name, thing))
            continue
        parts.append(f"{inspect.getdoc(thing)}\n")
        if not issubclass(thing, Params):
            parts.append(_signature(name, thing))
        for member, function in _methods_of(thing):
            parts.append(_documented(f"{name}.{member}", function))
        fields = getattr(thing, "model_fields", {})
        if fields:
            parts.append("| field | what it is |\n|---|---|")
            for member, read in inspect.getmembers_static(thing, _is_property):
                if not member.startswith(("_", "model_")):
                    parts.append(f"| `{member}` | {inspect.getdoc(read)} |")
            for field, info in fields.items():
                words = info.description
                if words is None and isinstance(info.annotation, type(Params)):
                    words = str(inspect.getdoc(info.annotation)).splitlines()[0]
                parts.append(f"| `{field}` | {words} |")
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _methods_of(kind: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """The public methods that a class of this project has, its own first."""
    seen = set()
    for owner in kind.__mro__:
        if not owner.__module__.startswith("actionformer."):
            continue
        for name, member in vars(owner).items():
            function = member.__func__ if isinstance(member, classmethod) else member
            if name.startswith("_") or name in seen or not inspect.isfunction(function):
                continue
            seen.add(name)
            yield name, function


def _documented(name: str, function: Callable[..., object]) -> str:
    """A signature and a docstring, as Markdown."""
    return f"{_signature(name, function)}\n```text\n{inspect.getdoc(function)}\n```\n"


def _signature(name: str, function: Callable[..., object]) -> str:
    """How something is called, as a block of code."""
    signature = inspect.signature(function)
    parameters = ",\n".join(f"    {parameter}" for parameter in _parameters(signature))
    returned = signature.return_annotation
    arrow = "" if returned in (signature.empty, None, "None") else f" -> {_type(returned)}"
    return f"```python\n{name}(\n{parameters}\n){arrow}\n```\n"


def _is_property(member: object) -> bool:
    return isinstance(member, property)


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    """Parameters as they are written in a call's signature, without self."""
    starred = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        text = f"{parameter.name}: {_type(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            is_path = isinstance(parameter.default, Path)
            text += " = the checkout's" if is_path else f" = {parameter.default!r}"
        yield text


def _type(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")


# --------------------------------------------------------------------------------------- what holds


def problems() -> list[str]:
    """One line per file that is out of date or doesn't belong."""
    found = [*lock_problems(), *params_problems(), *made_problems()]
    found += [*dead_links(), *unknown_letters(), *machine_paths(), *version_problems()]
    stored = [path for path in (CHECKOUT / ".dvc/store").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in stored)
    if size > STORE_LIMIT:
        limit = f"at most {STORE_LIMIT / 1e6:.0f} are meant for the demo"
        found.append(f".dvc/store holds {size / 1e6:.1f} MB, {limit}")
    return found


def lock_problems() -> Iterator[str]:
    """The lock has plain pins, and environment.yml the same."""
    pins = pins_of(LOCK.read_text())
    for pin in pins:
        if not re.fullmatch(r"[\w.-]+==[\w.]+", pin):
            yield f"requirements.lock: '{pin}' is no plain == pin"
    sections = re.findall(r"^# \[(\w+)\]$", EXTRAS_LOCK.read_text(), re.M)
    if sections != list(EXTRAS) or len(pins_of(EXTRAS_LOCK.read_text())) < len(EXTRAS):
        yield "requirements-extras.lock: other sections than EXTRAS here; run `make lock`"
    for pin in pins_of(EXTRAS_LOCK.read_text()):
        if not re.fullmatch(r"[\w.-]+==[\w.]+", pin):
            yield f"requirements-extras.lock: '{pin}' is no plain == pin"
    if ENVIRONMENT.read_text() != environment_text(pins):
        yield "environment.yml differs from requirements.lock; run `make lock`"
    for package in distributions():
        wanted = SpecifierSet(package.metadata.get("Requires-Python") or "")
        refused = [version for version in PYTHONS if version not in wanted]
        if refused:
            pin = f"{package.name}=={package.version}"
            yield f"requirements.lock: {pin} refuses Python {', '.join(refused)}"


def params_problems() -> Iterator[str]:
    """Every params file can be loaded in every edition, and fits its schema."""
    for edition in names("editions"):
        load_edition(edition)
        for dataset in names("datasets"):
            load_dataset(dataset, edition)
        for row in names("experiments"):
            load_experiment(row, edition)
    for row in names("experiments"):
        expect = load_experiment(row, "paper").expect
        if not expect.time.startswith(f"{expect.hours:.1f} h a seed"):
            yield f"params/experiments/{row}.yaml: expect.time and expect.hours differ"
    for kind in ("dataset", "experiment", "edition"):
        validator = Draft202012Validator(json.loads(schemas()[f"{kind}.schema.json"]))
        for path in (CHECKOUT / f"params/{kind}s").glob("*.yaml"):
            content = json.loads(json.dumps(yaml.safe_load(path.read_text())))
            for error in validator.iter_errors(content):
                yield f"{path}: {error.json_path}: {error.message}"


def made_problems() -> Iterator[str]:
    """Schemas, captions, tables and pages are what `make schemas` would write."""
    for name, text in schemas().items():
        if not _is(SCHEMAS / name, text):
            yield f"workflow/schemas/{name} differs from the typed params; run `make schemas`"
    for name, text in captions().items():
        if not _is(CAPTIONS / name, text):
            yield f"workflow/report/{name} differs from the figure's caption; run `make schemas`"
    if tuple(of_row.WORDS) != layout.FIGURES:
        yield "layout.FIGURES and of_row.WORDS name different figures"
    if not DATA_PAGE.read_text().endswith(files_table()):
        yield "docs/data.md: the table differs from params/; run `make schemas`"
    if not LAYOUT_PAGE.read_text().endswith(LIST_HEAD + source_list()):
        yield "docs/architecture.md: the list of files differs from src/; run `make schemas`"
    if not _is(API_PAGE, api_page()):
        yield "docs/api.md differs from the docstrings; run `make schemas`"


def version_problems() -> Iterator[str]:
    """The places that a version is named in, beside `__version__`."""
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())["version"]
    if cited != __version__:
        yield f"CITATION.cff: version is {cited}, the package's {__version__}"
    if f"\n## {__version__}\n" not in (CHECKOUT / "CHANGELOG.md").read_text():
        yield f"CHANGELOG.md: no section '## {__version__}'"


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def dead_links() -> Iterator[str]:
    """Relative links of the prose that lead nowhere."""
    for page in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                yield f"{page.relative_to(CHECKOUT)}: no such file: {target}"


def unknown_letters() -> Iterator[str]:
    """Names of tensors end in letters of the one legend."""
    legend = LAYOUT_PAGE.read_text().partition("## Letters")[2].partition("##")[0]
    known = set("".join(re.findall(r"\| ([A-Z](?:, [A-Z])*) \|", legend)))
    sources = [
        *SOURCE.rglob("*.py"),
        *CHECKOUT.glob("tests/*.py"),
        *CHECKOUT.glob("benchmarks/*.py"),
    ]
    for path in sorted(sources):
        shown = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                shown.add(node.id)
            elif isinstance(node, ast.arg):
                shown.add(node.arg)
        for name in sorted(shown):
            shape = re.search(r"[a-z0-9]_([A-Z0-9]+)$", name)
            if shape and not set(re.sub(r"\d", "", shape[1])) <= known:
                yield f"{path.relative_to(CHECKOUT)}: {name}: a letter that the legend lacks"


def machine_paths() -> Iterator[str]:
    """Paths of one machine in what is committed."""
    pattern = r"(^|[^[:alnum:]_.~-])/(tmp|work|root|home|opt)/"
    command = ["git", "grep", "-nIE", pattern, "--", ":!tests/oracles", ":!.dvc/store"]
    grep = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    for line in grep.stdout.splitlines():
        if "consistency.py" not in line:
            yield f"a path of one machine: {line}"


def main() -> int:
    """0, or 1 with a line per problem."""
    if "--table" in sys.argv:
        head = DATA_PAGE.read_text().partition("| file | read by |")[0]
        DATA_PAGE.write_text(head + files_table())
        API_PAGE.write_text(api_page())
        head = LAYOUT_PAGE.read_text().partition(LIST_HEAD)[0]
        LAYOUT_PAGE.write_text(head.rstrip() + "\n\n" + LIST_HEAD + source_list())
        for name, text in captions().items():
            (CAPTIONS / name).write_text(text)
        return 0
    if "--write" in sys.argv:
        pins, extras = locks()
        missing = [extra for extra, found in extras.items() if not found]
        if missing:
            print(f"make env EXTRAS='{' '.join(EXTRAS)}' first: {missing} are not installed")
            return 1
        EXTRAS_LOCK.write_text(extras_text(extras))
        LOCK.write_text(lock_text(pins))
        ENVIRONMENT.write_text(environment_text(pins))
        return 0
    found = problems()
    print("\n".join(found) or "generated files, params and store are consistent")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
