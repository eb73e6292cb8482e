"""Raw files: brought from their publishers, planned, or written for the demo edition."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import yaml

from actionformer import layout, provenance
from actionformer.data import checksums
from actionformer.data import fetch as fetching
from actionformer.data import plan as plans
from actionformer.errors import InputError
from actionformer.files.writing import write_text
from actionformer.params.dataset import Dataset
from actionformer.params.experiment import Experiment
from actionformer.params.extractor import Extractor
from actionformer.stages import inputs

# the file that pins the data, and the remote of the demo edition, which is part of the repository
VERSION = Path("data.dvc")
DEMO_REMOTE = "demo"


def fetch(
    dataset: Dataset,
    name: str,
    edition: str,
    files: Sequence[str],
    *,
    mirror: str | None,
    accepted: bool,
    mirror_alone: bool = False,
    link: bool = False,
    say: Callable[[str], None],
) -> None:
    """Bring files of a data set from their publishers, and remember what came.

    Args:
        mirror: folder or http address that holds the same files; tried first.
        accepted: the caller holds the licences that gated files need.
        mirror_alone: never ask the publishers.
        link: link to a mirror's files on this machine instead of copying them.
    """
    root = layout.raw_root(dataset, name, edition)
    for file in files:
        if file not in dataset.files:
            known = ", ".join(dataset.files)
            raise InputError(f"data set {name} has no file '{file}'; it has {known}")
        target = root / file
        facts = dataset.files[file]
        if mirror_alone:
            facts = facts.model_copy(update={"sources": [], "gated": None, "md5": "unknown"})
        with layout.locked(target):
            fetched = fetching.fetch(
                target,
                facts,
                known=inputs.known_md5s(root, file),
                mirror=mirror,
                name=f"{name}/{file}",
                link=link,
                accepted=accepted,
                again=_again(name, edition, file, mirror),
                remember=partial(_record, root, file),
            )
        provenance.remember_md5(target, fetched.md5)
        say(f"{target}: md5 {fetched.md5}, {fetched.source}")
    for key, features in dataset.features.items():
        owner = features.dataset
        if owner is not None:
            say(f"features '{key}' are those of {owner}: actionformer fetch {owner}")
    if not mirror_alone:
        say(f"to make these files part of the version: actionformer pin {name} --remote REMOTE")


def fetch_weights(
    name: str,
    extractor: Extractor,
    weights: Path,
    *,
    mirror: str | None,
    accepted: bool,
    link: bool = False,
    say: Callable[[str], None],
) -> None:
    """Bring the weights of an extractor; the rest is as in `fetch`.

    A mirror has them in its folder `extractors`.
    """
    words = ["actionformer", "fetch", "--extractor", name]
    if mirror is not None:
        words += ["--mirror", mirror]
    root, file = weights.parent, weights.name
    with layout.locked(weights):
        fetched = fetching.fetch(
            weights,
            extractor.file,
            known=inputs.known_md5s(root, file),
            mirror=mirror,
            name=f"extractors/{extractor.weights}",
            link=link,
            accepted=accepted,
            again=shlex.join(words),
            remember=partial(_record, root, file),
        )
    provenance.remember_md5(weights, fetched.md5)
    say(f"{weights}: md5 {fetched.md5}, {fetched.source}; licence: {extractor.licence}")


def _record(root: Path, file: str, fetched: fetching.Fetched) -> None:
    """Remember which source gave a file."""
    with layout.locked(root):  # several jobs may do so at once
        checksums.record_source(root, file, fetched.source)


def pin(dataset: Dataset, name: str, edition: str, remote: str) -> str:
    """Make the files of a data set part of the version, as an output with a remote of its own.

    Says what is to be done next.

    Raises:
        InputError: no files, no such remote, or what DVC says of them.
    """
    root = layout.raw_root(dataset, name, edition)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; `actionformer fetch {name}` brings its files")
    remotes = [line.split()[0] for line in _dvc("remote", "list").splitlines()]
    if remote not in remotes or remote == DEMO_REMOTE:
        known = ", ".join(one for one in remotes if one != DEMO_REMOTE) or "none yet"
        wanted = f"dvc remote add {remote} ADDRESS (a folder, ssh://host/path, s3://bucket/path)"
        raise InputError(f"--remote {remote}: no remote for your data ({known}); {wanted}")
    before = VERSION.read_text(encoding="utf-8")
    content = yaml.safe_load(before)
    others = [output for output in content["outs"] if output["path"] != root.as_posix()]
    content["outs"] = [*others, {"path": root.as_posix(), "remote": remote}]
    write_text(VERSION, yaml.safe_dump(content, sort_keys=False))
    try:
        _dvc("add", "--quiet", root.as_posix())
    except BaseException:
        write_text(VERSION, before)
        raise
    keeps = f"`git commit {VERSION}` keeps that, `dvc push` brings it to {remote}"
    return f"{VERSION}: {root} is pinned; {keeps}"


def _dvc(*arguments: str) -> str:
    """What a command of DVC prints; its own words where it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments)}: {done.stderr.removeprefix('ERROR: ')}")
    return done.stdout


def _again(dataset: str, edition: str, file: str, mirror: str | None) -> str:
    """The command that goes on with a file."""
    words = ["actionformer", "fetch", dataset, "--edition", edition, "--files", file]
    if mirror is not None:
        words += ["--mirror", mirror]
    return shlex.join(words)


def plan(rows: Sequence[Experiment], *, markdown: bool) -> str:
    """What rows need before they can run: files, sources, sizes, what is gated, and the disk."""
    return plans.as_markdown(rows) if markdown else plans.as_text(rows)


def overview(rows: Sequence[Experiment], seeds: Sequence[int], params: Path) -> str:
    """What is to be done, a line per row."""
    return plans.overview(rows, seeds, params=params)


def demo_data(out: Path) -> str:
    """Write the demo edition's publisher files to a folder; says what it wrote."""
    # torch, for the checkpoints: fetching does without
    from actionformer.synthetic import demo

    demo.write_all(out)
    return f"wrote the demo edition's publisher files under {out}"
