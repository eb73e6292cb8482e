"""What rows need before they can run: files, their sources and sizes, and room on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actionformer import layout
from actionformer.files.md5 import files_of
from actionformer.params.dataset import Dataset, File, Source
from actionformer.params.experiment import OWN, Experiment
from actionformer.params.files import PARAMS, load_dataset, load_edition

# bytes of one weight, and how many copies of all: in model.pt and in the checkpoint; while it is
# trained twice in the optimiser's state and once more. What MLflow keeps is a second name of these
WEIGHT, KEPT, TRAINED = 4, 2, 5
# bytes of a detection, as it is written
DETECTION = 80


@dataclass(frozen=True)
class Needed:
    """One file of a row."""

    path: Path
    file: File
    # from a mirror alone, which has it already
    mirrored: bool = False
    # where it lies, here or in a mirror on this machine
    found: Path | None = None

    @property
    def bytes(self) -> int | None:
        """As it lies there, as published, or reckoned; None where nobody knows."""
        if self.found is not None:
            return sum(item.stat().st_size for item in files_of(self.found))
        return self.file.size if isinstance(self.file.size, int) else self.file.estimate

    def size(self) -> str:
        """As it is, as published, reckoned (~), or unknown."""
        if self.bytes is None:
            return "size unknown"
        is_known = self.found is not None or isinstance(self.file.size, int)
        return f"{'' if is_known else '~'}{_gigabytes(self.bytes)}"

    def sources(self) -> str:
        """Where it comes from, in the order tried."""
        if self.mirrored:
            return "the mirror"
        told = ", or ".join(map(_address, self.file.sources)) or "no known source"
        return f"{told}; archived at {self.file.archive}" if self.file.archive else told

    def access(self) -> str:
        """What stands between the reader and the file."""
        if self.mirrored or self.found is not None:
            return "open"
        if self.file.gated:
            return "gated"
        by_hand = all(source.kind == "manual" for source in self.file.sources)
        return "by hand" if by_hand else "open"

    def md5(self) -> str:
        """As published, of the file or of one of its sources."""
        if self.file.md5 != "unknown":
            return f"`{self.file.md5}`"
        of_sources = []
        for source in self.file.sources:
            if source.md5 != "unknown":
                of_sources.append(f"`{source.md5}` ({source.note or source.address})")
        return ", ".join(of_sources) or "unknown"


def needed(
    experiment: Experiment,
    *,
    released: bool = True,
    params: Path = PARAMS,
    mirror: str | None = None,
) -> list[Needed]:
    """Every file that a row reads, in its own data set's folder or another's.

    Args:
        released: with the published checkpoint.
        mirror: a folder that holds the same files, if there is one.
    """
    dataset = owner = experiment.dataset
    if experiment.features.dataset is not None:
        owner = load_dataset(experiment.features.dataset, experiment.edition, params)
    paths = [(path, dataset) for path in layout.annotation_files_of(experiment)]
    paths.append((layout.raw_features_of(experiment), owner))
    more = [layout.classifier_of(experiment)]
    if released:
        more.append(layout.released_checkpoint_of(experiment))
    paths += [(path, dataset) for path in more if path is not None]

    mirrored = False
    if experiment.edition != OWN:
        mirrored = load_edition(experiment.edition, params).origin == "mirror"
    root = Path("data") / layout.raw_edition(experiment.edition)
    items = []
    for path, facts in paths:
        places = [path]
        if mirror is not None and path.is_relative_to(root):
            places.append(Path(mirror) / path.relative_to(root))
        found = next((place for place in places if place.exists()), None)
        items.append(Needed(path, _facts_of(path, facts), mirrored, found))
    return items


def _facts_of(path: Path, dataset: Dataset) -> File:
    """What the data set's params say of a file, if they say anything."""
    for name, file in dataset.files.items():
        if path.as_posix().endswith(f"/{name}"):
            return file
    return File()


def overview(
    experiments: Sequence[Experiment],
    seeds: Sequence[int],
    *,
    released: bool = True,
    params: Path = PARAMS,
    mirror: str | None = None,
) -> str:
    """What is to be done, on one screen: of every row what it trains, fetches and waits for."""
    width = max(len(experiment.name) for experiment in experiments)
    lines = [f"{'row':<{width}}  {'to train':<10}{'to fetch':<10}{'disk':<18}in the way"]
    everything: dict[Path, Needed] = {}
    to_train = 0
    for experiment in experiments:
        items = needed(experiment, released=released, params=params, mirror=mirror)
        everything.update({item.path: item for item in items})
        missing = _missing(items)
        untrained = _untrained(experiment, seeds)
        to_train += untrained
        trainings = f"{untrained} of {len(seeds)}" if untrained else "nothing"
        files = f"{len(missing)} file{'' if len(missing) == 1 else 's'}" if missing else "nothing"
        room = _room(items, runs_bytes(experiment, len(seeds)))
        cells = f"{trainings:<10}{files:<10}{room:<18}{_in_the_way(missing)}"
        lines.append(f"{experiment.name:<{width}}  {cells}".rstrip())
    missing = _missing(everything.values())
    trainings = f"{to_train} of {len(experiments) * len(seeds)} runs to train"
    files = f"{len(missing)} of {len(everything)} files to fetch"
    kept = sum(runs_bytes(experiment, len(seeds)) for experiment in experiments)
    lines += ["", f"{trainings}; {files}; disk for all of them: {_disk(everything.values(), kept)}"]
    more = max(runs_bytes(experiment, 1, TRAINED - KEPT) for experiment in experiments)
    lines.append(
        f"that is files, packed features, runs; {_gigabytes(more)} more while one trains, and what "
        "is pinned again in DVC's cache"
    )
    lines.append("files and sources of a row: actionformer plan ROW")
    return "\n".join(lines) + "\n"


def _missing(items: Collection[Needed]) -> list[Needed]:
    return [item for item in items if not item.path.exists()]


def _untrained(experiment: Experiment, seeds: Sequence[int]) -> int:
    """How many seeds have yet to be trained."""
    count = 0
    for seed in seeds:
        run = layout.run(experiment.edition, experiment.name, seed)
        count += not (run / "model.pt").exists()
    return count


def _in_the_way(missing: Collection[Needed]) -> str:
    """What a person has to do before a row can run, in few words."""
    ways = Counter(item.access() for item in missing)
    parts = []
    for access, words in (("gated", "a licence or an account"), ("by hand", "by hand alone")):
        if ways[access]:
            parts.append(f"{words}: {ways[access]}")
    return ", ".join(parts)


def as_text(experiments: Sequence[Experiment], *, released: bool = True) -> str:
    """Per row its files, their sources, sizes and access.

    Then what has to be asked for, and the disk in all.
    """
    lines: list[str] = []
    everything: dict[Path, Needed] = {}
    for experiment in experiments:
        items = needed(experiment, released=released)
        lines.append(f"{experiment.name}, disk: {_disk(items)}")
        for item in items:
            everything[item.path] = item
            facts = f"{item.size()}, {item.access()}, from {item.sources()}"
            lines.append(f"  {item.path}: {'there' if item.path.exists() else facts}")
    missing = _missing(everything.values())
    counted = f"{len(missing)} of {len(everything)} files"
    lines += ["", f"to fetch: {counted}; disk for all of them: {_disk(everything.values())}"]
    closed = [item for item in missing if item.access() != "open"]
    if closed:
        lines.append(
            "no program may or can fetch these alone; get them first, or leave their rows out with "
            "rows=:"
        )
        lines += [f"  {item.path}: {item.file.gated or item.sources()}" for item in closed]
    return "\n".join(lines) + "\n"


def as_markdown(experiments: Sequence[Experiment]) -> str:
    """One table: every file of these rows, the rows that read it, size, md5, access and sources."""
    items: dict[Path, Needed] = {}
    readers: dict[Path, list[str]] = {}
    for experiment in experiments:
        for item in needed(experiment):
            # as published, whatever lies here
            items[item.path] = replace(item, found=None)
            readers.setdefault(item.path, []).append(experiment.name)
    lines = [
        "| file | read by | size | md5 | access | sources, in order |",
        "|---|---|---|---|---|---|",
    ]
    for path, item in sorted(items.items()):
        cells = [
            f"`{path.as_posix()}`",
            ", ".join(readers[path]),
            item.size().removeprefix("size "),
            item.md5(),
            f"**gated**: {item.file.gated}" if item.file.gated else item.access(),
            item.sources(),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def runs_bytes(experiment: Experiment, seeds: int, copies: int = KEPT) -> int:
    """What the runs of a row keep: weights and detections."""
    weights = copies * WEIGHT * experiment.model.parameters
    counts = experiment.dataset.published.get(experiment.dataset.eval_subset)
    videos = counts.videos if counts is not None and counts.videos is not None else 0
    classifier = experiment.dataset.classifier
    fused = classifier.top_k if experiment.inference.use_classifier and classifier else 1
    detections = videos * fused * experiment.inference.max_segments * DETECTION
    return seeds * (weights + detections)


def disk(experiment: Experiment, seeds: int, params: Path = PARAMS) -> str:
    """What the files of a row, its packed features and its runs take, as far as it is known."""
    return _disk(needed(experiment, params=params), runs_bytes(experiment, seeds))


def _bytes(items: Collection[Needed]) -> tuple[int, int]:
    """Of files, and of packed stores, which take as much again as their features.

    And of how many files nobody knows.
    """
    total = unknown = 0
    for item in items:
        if item.bytes is None:
            unknown += 1
        else:
            total += item.bytes * (2 if "features" in item.path.parts else 1)
    return total, unknown


def _room(items: Collection[Needed], runs: int) -> str:
    """What these files and runs take, in few words."""
    total, unknown = _bytes(items)
    return _gigabytes(total + runs) + (" or more" if unknown else "")


def _disk(items: Collection[Needed], runs: int = 0) -> str:
    """What these files and runs take, and of how many files that is not known."""
    total, unknown = _bytes(items)
    known = _gigabytes(total + runs) if total + runs else ""
    more = f"{unknown} files of unknown size" if unknown else ""
    return f"at least {known}, and {more}" if known and more else known or more


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def page_of(source: Source) -> str:
    """Where a source is, for a browser."""
    pages = {
        "google_drive": f"https://drive.google.com/file/d/{source.address}/view",
        "google_drive_folder": f"https://drive.google.com/drive/folders/{source.address}",
        "hugging_face": f"https://huggingface.co/datasets/{source.address}",
    }
    return pages.get(source.kind, source.address)


def _address(source: Source) -> str:
    """Where a source is, and which file there."""
    path = f" ({source.path})" if source.path else ""
    member = f", of which {source.member}" if source.member else ""
    return f"{page_of(source)}{path}{member}"
