"""Every command of README and docs does what it says, as it is written.

The line that opens a block of code marks what is done with each of its commands:

    ```sh run               it runs, in a clone whose demo edition has one trained row
    ```sh dry-run           its program takes it: what would cost hours, a download or a server
    ```sh start-and-stop    it serves: its port answers before it is stopped
    ```python run           it runs, from top to bottom
    ```python dry-run       it compiles, and what it imports is there

A block of another language is no command. One without a language is refused.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
import requests
from dvc.cli.parser import get_main_parser

from actionformer.commands.main import parser
from conftest import CHECKOUT, environment
from project import Place, project

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
NO_COMMANDS = {"mermaid", "text", "json", "yaml", "python"}
# docs/api.md is written from docstrings, whose signatures are no programs
SIGNATURES = "api.md"
# in which a start-and-stop has to answer
SECONDS = 120


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    """Every block of code of every page."""
    found = []
    for page in PAGES:
        opened: tuple[int, str] | None = None
        lines: list[str] = []
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if not line.startswith("```"):
                lines.append(line)
            elif opened is None:
                opened, lines = (number, line.removeprefix("```")), []
            else:
                language, _, mark = opened[1].partition(" ")
                text = "\n".join(lines) + "\n"
                found.append(Block(page.name, opened[0], language, mark, text))
                opened = None
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a block, in words."""
    joined = block.text.replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words for words in found if words]


def marked(language: str, mark: str) -> list[Block]:
    return [block for block in blocks() if (block.language, block.mark) == (language, mark)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A clone after `snakemake`, for one row of one epoch."""
    copy = project(tmp_path_factory.mktemp("clone"))
    for name in ("Makefile", "data.dvc", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, copy / name)
    shutil.copytree(CHECKOUT / "docs", copy / "docs")
    shutil.copytree(CHECKOUT / ".dvc/store", copy / ".dvc/store")
    for name in (".dvc/config", ".dvcignore"):
        shutil.copy(CHECKOUT / name, copy / name)
    place = Place(copy, copy)
    place.run("snakemake", "--cores", "2", "--config", "rows=thumos14_i3d")
    np.save(copy / "video.npy", np.zeros((100, 48), np.float32))
    return place


def test_every_block_of_code_says_what_a_test_does_with_it():
    marks = {"run", "dry-run", "start-and-stop"}
    for block in blocks():
        if block.language == "sh":
            assert block.mark in marks, f"{block}: a command without a mark"
        elif block.language == "python" and block.page != SIGNATURES:
            assert block.mark in marks - {"start-and-stop"}, f"{block}: a program without a mark"
        else:
            assert block.language in NO_COMMANDS, f"{block}: a block without a language"


@pytest.mark.parametrize("block", marked("sh", "run"), ids=str)
def test_a_command_runs_as_it_is_written(clone, block):
    for words in commands(block):
        clone.run(*words)


@pytest.mark.parametrize("block", marked("sh", "dry-run"), ids=str)
def test_a_command_is_one_that_its_program_takes(clone, block):
    for words in commands(block):
        assert_taken(clone, words)


def assert_taken(clone: Place, words: list[str]) -> None:
    program, *arguments = words
    if program == "snakemake":
        if "experiment=sbhar/sbhar.yaml" in arguments:
            shutil.copytree(clone.copy / "docs/own-dataset", clone.copy / "sbhar")
            (clone.copy / "sbhar/annotations.json").write_text("{}")
            (clone.copy / "sbhar/features").mkdir()
        if "experiment=data/own/mine/mine.yaml" in arguments:
            own = clone.copy / "data/own/mine"
            shutil.copytree(clone.copy / "docs/own-dataset", own, dirs_exist_ok=True)
            shutil.move(own / "sbhar.yaml", own / "mine.yaml")
            (own / "annotations.json").write_text("{}")
            (own / "features").mkdir()
        for argument in arguments:
            if argument.startswith("mirror=") and "://" not in argument:
                (clone.folder / argument.removeprefix("mirror=")).mkdir(parents=True, exist_ok=True)
        said = clone.run(*words, "-n").stdout
        assert "This was a dry-run" in said or "Nothing to be done" in said, said
    elif program == "make":
        clone.run("make", "-n", *arguments)
    elif program == "actionformer":
        parser().parse_args(arguments)
    elif program == "dvc":
        get_main_parser().parse_args(arguments)
    else:
        pytest.fail(f"nothing is known of a dry run of {program}")


@pytest.mark.parametrize("block", marked("sh", "start-and-stop"), ids=str)
def test_a_command_that_serves_starts_and_stops(clone, block):
    for words in commands(block):
        port = int(words[words.index("-p") + 1]) if "-p" in words else 5000
        assert not answers(port), f"something else serves at port {port}"
        output = clone.folder / "build/serving.log"
        with output.open("w") as log:
            started = subprocess.Popen(
                words,
                cwd=clone.folder,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        began = time.monotonic()
        while started.poll() is None and time.monotonic() - began < SECONDS and not answers(port):
            time.sleep(0.2)
        served = started.poll() is None and answers(port)
        started.send_signal(signal.SIGTERM)
        started.wait(60)
        assert served, f"{shlex.join(words)} does not serve: {output.read_text()}"


def answers(port: int) -> bool:
    """Is there an MLflow server, or a model that is served?"""
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    return False


@pytest.mark.parametrize("block", marked("python", "run"), ids=str)
def test_a_program_runs_as_it_is_written(clone, block):
    clone.run(sys.executable, "-c", block.text)


@pytest.mark.parametrize("block", marked("python", "dry-run"), ids=str)
def test_a_program_compiles_and_what_it_imports_is_there(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_the_notebook_runs_from_top_to_bottom_and_shows_a_figure(clone):
    notebook = json.loads((CHECKOUT / "docs/tour.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in notebook["cells"] if "outputs" in cell)
    told = "\nprint(plot_timeline(f'{BUILD}/annotations.json', f'{RUN}/detections.json', video)"
    told += "._repr_mimebundle_()['image/svg+xml'][:4], len(detected), percent['mAP/average'])"
    said = clone.run(sys.executable, "-c", "\n".join(cells) + told).stdout.split()
    assert said[0] == "<svg"
    table = (clone.folder / "results/demo/tables/thumos14.md").read_text()
    assert f"{float(said[2]):.2f}" in table


INLINE = re.compile(r"`(actionformer [a-z][^`]*)`")
# stand for something of the reader's own, and for several
PLACEHOLDERS = {"ROW": "thumos14_i3d", "FOLDER": "folder", "...": "more"}


def inline_commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for text in INLINE.findall(page.read_text(encoding="utf-8")):
            if (page.name, text) not in found:
                found.append((page.name, text))
    return found


@pytest.mark.parametrize(("page", "text"), inline_commands())
def test_a_command_within_a_sentence_exists(page, text, capsys):
    """With its options, where it is whole; by its name and what is there of it, where it isn't."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(text)[1:]]
    said = ""
    try:
        parser().parse_args(words)
    except SystemExit:
        said = capsys.readouterr().err
    # what a sentence leaves out of a command is no mistake; an option that there isn't is one
    incomplete = re.search("required|expected (one|at least one) argument", said)
    assert not said or incomplete, f"{page}: {text}: {said}"
    with pytest.raises(SystemExit):
        parser().parse_args([words[0], "--help"])
    told = capsys.readouterr().out
    for word in words:
        if word.startswith("--"):
            assert word in told, f"{page}: {text}: no option {word}"
