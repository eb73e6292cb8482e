"""Features of video files, one file per video; what is there and made alike is left as it is."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from actionformer import layout, provenance
from actionformer.data.extracted import Description
from actionformer.data.feature_files import VIDEOS, described
from actionformer.errors import InputError
from actionformer.files import files_of, write_json
from actionformer.params.dataset import Dataset
from actionformer.params.extractor import Extractor
from actionformer.params.files import EXTRACTORS, load_extractor
from actionformer.progress import progress
from actionformer.training.device import leased_device
from actionformer.video import extract as videos
from actionformer.video.networks.build import network_with_weights

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Job:
    """What a process needs to know to extract the features of any video."""

    name: str
    # as JSON: `_loaded` compares jobs by their hash, which params with lists in them have none of
    params: str
    weights: Path
    weights_md5: str
    device: str
    batch_size: int
    # of a process among several; None: as many as torch has in this one
    threads: int | None
    shows_progress: bool


@dataclass(frozen=True)
class _Done:
    """What came of a video."""

    video: Path
    # what is to be said of it
    lines: tuple[str, ...]
    failed: bool


def extract(
    name: str,
    extractor: Extractor,
    weights: Path,
    sources: Sequence[Path],
    out: Path,
    *,
    device: str,
    gpu_slots: int | None = None,
    jobs: int = 1,
    batch_size: int = 8,
    anew: bool = False,
    say: Say,
) -> list[Path]:
    """Write the features of videos to folder `out`, VIDEO.npz each; returns these files.

    Interrupted, the next call goes on with the next video. One that cannot be decoded is said, and
    the others go on.

    Args:
        sources: video files, and folders of them.
        jobs: processes that each have a video and the network; they share the threads.
        batch_size: clips that the network sees at once.
        anew: extract also what is there and was made alike.

    Raises:
        InputError: no weights, no videos, two of one name; at the end, what could not be decoded.
    """
    targets = _targets(sources, out)
    if not weights.exists():
        brings = "put it there"
        if weights.is_relative_to(EXTRACTORS):
            brings = f"`actionformer fetch --extractor {name}` brings it"
        raise InputError(f"{weights}: no such file; {brings} (licence: {extractor.licence})")
    md5 = provenance.source_md5(weights)
    waiting = {}
    for video, target in targets.items():
        if not anew and _is_there(video, target, extractor, md5):
            say(f"{target}: is there already, made alike; `--anew` makes it again")
        else:
            # a video that cannot be extracted any more must not keep the features of what it was
            target.unlink(missing_ok=True)
            waiting[video] = target
    failed = []
    with leased_device(device, gpu_slots) as chosen:
        jobs = max(1, min(jobs, len(waiting)))
        is_one = jobs == 1
        threads = None if is_one else max(1, _cores() // jobs)
        params = extractor.model_dump_json()
        job = _Job(name, params, weights, md5, chosen, batch_size, threads, shows_progress=is_one)
        if waiting:
            processes = "one process" if is_one else f"{jobs} processes of {threads} threads"
            say(f"{name}: {chosen}, {processes}, {len(waiting)} to extract")
        for done in _each(waiting, job, jobs):
            for line in done.lines:
                say(line)
            if done.failed:
                failed.append(done.video)
    if failed:
        names = ", ".join(video.name for video in failed)
        raise InputError(
            f"{len(failed)} of {len(targets)} videos could not be extracted: {names} (why, stands "
            f"above); the others are in {out}"
        )
    return list(targets.values())


def extract_dataset(
    dataset: Dataset,
    name: str,
    edition: str,
    features: str,
    *,
    params: Path,
    say: Say,
    **options: Any,
) -> None:
    """Extract all videos of a feature set of a data set; the rest is as in `extract`.

    A manifest beside the folder says that all is there:

        {"sources": {videos and weights: md5}, "extractor": name, "identity", "videos": how many}
    """
    if features not in dataset.features:
        known = ", ".join(dataset.features)
        raise InputError(f"data set {name} has no features '{features}'; it has {known}")
    chosen = dataset.features[features]
    if chosen.videos is None or chosen.extractor is None:
        wrong = f"the features '{features}' of data set {name} come from their publisher"
        raise InputError(f"{wrong}; `videos` and `extractor` in its params have them made")
    called, extractor, weights = load_extractor(chosen.extractor, params)
    source = layout.raw_root(dataset, name, edition) / chosen.videos
    out = layout.extracted(edition, name, chosen)
    manifest = out.with_name(f"{features}.json")
    manifest.unlink(missing_ok=True)
    files = extract(called, extractor, weights, [source], out, say=say, **options)
    # of videos that are gone
    for path in set(out.glob("*.npz")) - set(files):
        say(f"{path}: its video is gone; removed")
        path.unlink()
    content = {
        "sources": provenance.sources([source, weights]),
        "extractor": called,
        "identity": extractor.identity,
        "videos": len(files),
    }
    write_json(manifest, content)
    say(f"{out}: features of {len(files)} videos")


def found(sources: Sequence[Path]) -> list[Path]:
    """The video files of these files and folders, in the order of their names in each.

    Raises:
        InputError: one that isn't there, or a folder without videos.
    """
    videos: list[Path] = []
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such video or folder")
        of_source = [source]
        if source.is_dir():
            of_source = [path for path in files_of(source) if path.suffix.lower() in VIDEOS]
            if not of_source:
                wanted = ", ".join(VIDEOS)
                raise InputError(f"{source}: no videos in it; expected files in {wanted}")
        videos += of_source
    return videos


def _cores() -> int:
    """The cores that this process may use: a cluster gives a job some of its machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _targets(sources: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Video -> the file of its features."""
    targets: dict[Path, Path] = {}
    of_name: dict[str, Path] = {}
    for video in found(sources):
        other = of_name.setdefault(video.stem, video)
        if other != video:
            wrong = f"{other} and {video} are both videos '{video.stem}'"
            raise InputError(f"{wrong}; give every video a name of its own")
        targets[video] = out / f"{video.stem}.npz"
    return targets


def _is_there(video: Path, target: Path, extractor: Extractor, weights_md5: str) -> bool:
    """Was this file made of this video, as it would be now?"""
    if not target.exists():
        return False
    try:
        there = described(target)
    except InputError:  # damaged: it is made again
        return False
    if there is None:
        return False
    is_alike = there.identity == extractor.identity and there.weights_md5 == weights_md5
    return is_alike and there.video_md5 == provenance.source_md5(video)


def _each(waiting: dict[Path, Path], job: _Job, jobs: int) -> Iterator[_Done]:
    """What comes of every video, as it comes."""
    if jobs == 1:
        for video, target in waiting.items():
            yield _extracted(video, target, job)
        return
    # `spawn`: a process that is forked has torch's threads half-way
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        begun = [pool.submit(_extracted, video, target, job) for video, target in waiting.items()]
        shown = progress(as_completed(begun), "extract", unit="video", total=len(begun))
        for future in shown:
            yield future.result()
    except BrokenProcessPool:
        wrong = "a process was killed: is there too little memory?"
        raise InputError(f"{wrong} fewer --jobs or a smaller --batch-size take less") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # after an interruption they would go on to the end of their videos
        for process in multiprocessing.active_children():
            process.terminate()


def _extracted(video: Path, target: Path, job: _Job) -> _Done:
    """Extract one video in this process."""
    loaded = _loaded(job)
    lines: list[str] = []
    began = time.perf_counter()
    try:
        description = videos.extract(
            video,
            target,
            loaded,
            video_md5=provenance.source_md5(video),
            say=lines.append,
            shows_progress=job.shows_progress,
        )
    except InputError as error:
        return _Done(video, (*lines, str(error)), failed=True)
    lines.append(_line(target, description, time.perf_counter() - began))
    return _Done(video, tuple(lines), failed=False)


@cache
def _loaded(job: _Job) -> videos.LoadedExtractor:
    """The extractor with its network, once in every process."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    params = Extractor.model_validate_json(job.params)
    network = network_with_weights(params, job.weights).to(job.device)
    return videos.LoadedExtractor(
        job.name, params, job.weights_md5, network, job.device, job.batch_size
    )


def _line(target: Path, description: Description, seconds: float) -> str:
    rate = description.frames / seconds
    frames = f"{description.frames:,} frames, {rate:,.0f} frames/s"
    return f"{target}: {description.duration:.1f} s of video, {frames}; {description.grid()}"
