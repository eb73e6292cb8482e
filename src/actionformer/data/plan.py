"""What rows need before they can run: every file, from where, how large, what has to be asked for,
and the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actionformer import layout
from actionformer.params.dataset import File, Source
from actionformer.params.experiment import Experiment
from actionformer.params.files import load_dataset


@dataclass(frozen=True)
class Needed:
    """One file of a row."""

    path: Path
    file: File

    @property
    def bytes(self) -> int | None:
        return self.file.size if isinstance(self.file.size, int) else self.file.estimate

    def size(self) -> str:
        """As published, reckoned (~), or unknown."""
        if self.bytes is None:
            return "size unknown"
        return f"{'' if isinstance(self.file.size, int) else '~'}{_gigabytes(self.bytes)}"

    def sources(self) -> str:
        """Where it comes from, in the order tried."""
        return ", or ".join(map(_address, self.file.sources)) or "no known source"

    def access(self) -> str:
        """What stands between the reader and the file."""
        if self.file.gated:
            return "gated"
        return "by hand" if all(source.kind == "manual" for source in self.file.sources) else "open"

    def md5(self) -> str:
        """As published, of the file or of one of its sources."""
        if self.file.md5 != "unknown":
            return f"`{self.file.md5}`"
        of_sources = [
            f"`{s.md5}` ({s.note or s.address})" for s in self.file.sources if s.md5 != "unknown"
        ]
        return ", ".join(of_sources) or "unknown"


def needed(experiment: Experiment, *, released: bool = True) -> list[Needed]:
    """Every file that a row reads, of its own data set's folder or another's; with its checkpoint
    if `released`.
    """
    owner = experiment.dataset
    if experiment.features.dataset is not None:
        owner = load_dataset(experiment.features.dataset, experiment.edition)
    own = [
        layout.classifier_of(experiment),
        layout.released_checkpoint_of(experiment) if released else None,
    ]
    listed = [(path, experiment.dataset) for path in layout.annotation_files_of(experiment)]
    listed.append((layout.features_of(experiment), owner))
    listed += [(path, experiment.dataset) for path in own if path is not None]
    return [
        Needed(
            path,
            next(
                (f for name, f in dataset.files.items() if path.as_posix().endswith(f"/{name}")),
                File(),
            ),
        )
        for path, dataset in listed
    ]


def as_text(experiments: Sequence[Experiment], *, released: bool = True) -> str:
    """Per row: its files, their sources, sizes and access; then what has to be asked for, and the
    disk in all.
    """
    lines: list[str] = []
    everything: dict[Path, Needed] = {}
    for experiment in experiments:
        items = needed(experiment, released=released)
        lines.append(f"{experiment.name}, disk: {_disk(items)}")
        for item in items:
            everything[item.path] = item
            facts = (
                "there"
                if item.path.exists()
                else f"{item.size()}, {item.access()}, from {item.sources()}"
            )
            lines.append(f"  {item.path}: {facts}")
    missing = [item for item in everything.values() if not item.path.exists()]
    disk = _disk(list(everything.values()))
    lines += [
        "",
        f"to fetch: {len(missing)} of {len(everything)} files; disk for all of them: {disk}",
    ]
    closed = [item for item in missing if item.access() != "open"]
    if closed:
        lines.append(
            "no program may or can fetch these alone; get them first, or leave their rows out with rows=:"
        )
        lines += [f"  {item.path}: {item.file.gated or item.sources()}" for item in closed]
    return "\n".join(lines) + "\n"


def as_markdown(experiments: Sequence[Experiment]) -> str:
    """One table: every file of these rows, the rows that read it, size, md5, access and sources."""
    readers: dict[Path, tuple[Needed, list[str]]] = {}
    for experiment in experiments:
        for item in needed(experiment):
            readers.setdefault(item.path, (item, []))[1].append(experiment.name)
    lines = [
        "| file | read by | size | md5 | access | sources, in order |",
        "|---|---|---|---|---|---|",
    ]
    for path, (item, rows) in sorted(readers.items()):
        size = item.size().removeprefix("size ")
        access = f"**gated**: {item.file.gated}" if item.file.gated else item.access()
        lines.append(
            f"| `{path.as_posix()}` | {', '.join(rows)} | {size} | {item.md5()} | {access} | {item.sources()} |"
        )
    return "\n".join(lines) + "\n"


def disk(experiments: Sequence[Experiment]) -> str:
    """What the files of these rows and their packed stores take, as far as it is known."""
    return _disk(list({item.path: item for row in experiments for item in needed(row)}.values()))


def _disk(items: Sequence[Needed]) -> str:
    """Files, and the packed stores, which take as much again as their features."""
    total = sum((item.bytes or 0) * (2 if "features" in item.path.parts else 1) for item in items)
    unknown = sum(item.bytes is None for item in items)
    known = _gigabytes(total) if total else ""
    more = f"{unknown} files of unknown size" if unknown else ""
    return f"at least {known}, and {more}" if known and more else known or more


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _address(source: Source) -> str:
    where = {
        "google_drive": f"https://drive.google.com/file/d/{source.address}/view",
        "google_drive_folder": f"https://drive.google.com/drive/folders/{source.address} ({source.path})",
        "hugging_face": f"https://huggingface.co/datasets/{source.address} ({source.path})",
    }.get(source.kind, source.address)
    return f"{where}{f', of which {source.member}' if source.member else ''}"
