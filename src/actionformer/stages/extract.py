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
from actionformer.data.described import described
from actionformer.data.extracted import Description
from actionformer.data.members import VIDEOS
from actionformer.errors import InputError
from actionformer.files.md5 import files_of
from actionformer.files.writing import write_json
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
    # as JSON: `_kept` compares jobs by their hash, which params with lists in them have none of
    params: str
    weights: Path
    weights_md5: str
    device: str
    batch_size: int
    # of a process among several; None: as many as torch has in this one
    threads: int | None


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
    targets = {video: out / f"{called}.npz" for called, video in named(sources).items()}
    md5 = made_by(name, extractor, weights)["weights_md5"]
    waiting = {}
    for video, target in targets.items():
        if not anew and _is_there(video, target, extractor, md5):
            say(f"{target}: is there already, made alike; `--anew` makes it again")
        else:
            waiting[video] = target
    failed = []
    with leased_device(device, gpu_slots) as chosen:
        jobs = max(1, min(jobs, len(waiting)))
        is_one = jobs == 1
        threads = None if is_one else max(1, _cores() // jobs)
        params = extractor.model_dump_json()
        job = _Job(name, params, weights, md5, chosen, batch_size, threads)
        if waiting:
            processes = "one process" if is_one else f"{jobs} processes of {threads} threads"
            say(f"{name}: {chosen}, {processes}, {len(waiting)} to extract")
        for done in _each(waiting, job, jobs):
            for line in done.lines:
                say(line)
            if done.failed:
                failed.append(done.video)
                # a video that is another now must not keep the features of what it was
                target = targets[done.video]
                if not _is_of(done.video, _description(target)):
                    target.unlink(missing_ok=True)
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


def made_by(name: str, extractor: Extractor, weights: Path) -> dict[str, str]:
    """What features say of this extractor (`Description.made_by`).

    Raises:
        InputError: no weights.
    """
    if not weights.exists():
        brings = "put it there"
        if weights.is_relative_to(EXTRACTORS):
            brings = f"`actionformer fetch --extractor {name}` brings it"
        raise InputError(f"{weights}: no such file; {brings} (licence: {extractor.licence})")
    md5 = provenance.source_md5(weights)
    return {"extractor": name, "identity": extractor.identity, "weights_md5": md5}


def named(sources: Sequence[Path]) -> dict[str, Path]:
    """The video files of these files and folders by their names, in the order of these in each.

    Raises:
        InputError: one that isn't there, a folder without videos, two of one name.
    """
    videos: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such video or folder")
        of_source = [source]
        if source.is_dir():
            of_source = [path for path in files_of(source) if path.suffix.lower() in VIDEOS]
            if not of_source:
                wanted = ", ".join(VIDEOS)
                raise InputError(f"{source}: no videos in it; expected files in {wanted}")
        for video in of_source:
            other = videos.setdefault(video.stem, video)
            if other != video:
                wrong = f"{other} and {video} are both videos '{video.stem}'"
                raise InputError(f"{wrong}; give every video a name of its own")
    return videos


def _cores() -> int:
    """The cores that this process may use: a cluster gives a job some of its machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_there(video: Path, target: Path, extractor: Extractor, weights_md5: str) -> bool:
    """Was this file made of this video, as it would be now?"""
    there = _description(target)
    if there is None:
        return False
    is_alike = there.identity == extractor.identity and there.weights_md5 == weights_md5
    return is_alike and _is_of(video, there)


def _is_of(video: Path, there: Description | None) -> bool:
    """Is this the description of features of this video as it is, by whatever extractor?"""
    return there is not None and there.video_md5 == provenance.source_md5(video)


def _description(target: Path) -> Description | None:
    """What a file of features says of itself; None of one that is not there, or damaged."""
    try:
        return described(target) if target.exists() else None
    except InputError:
        return None


def _each(waiting: dict[Path, Path], job: _Job, jobs: int) -> Iterator[_Done]:
    """What comes of every video, as it comes."""
    if not waiting:
        return
    if jobs == 1:
        loaded = _loaded(job)
        for video, target in waiting.items():
            yield _extracted(video, target, loaded, shows_progress=True)
        return
    others = multiprocessing.active_children()
    # `spawn`: a process that is forked has torch's threads half-way
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        begun = [pool.submit(_in_process, video, target, job) for video, target in waiting.items()]
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
            if process not in others:
                process.terminate()


def _in_process(video: Path, target: Path, job: _Job) -> _Done:
    """Extract one video in a process among several, which keeps the network for the next one."""
    return _extracted(video, target, _kept(job), shows_progress=False)


@cache
def _kept(job: _Job) -> videos.LoadedExtractor:
    return _loaded(job)


def _extracted(
    video: Path, target: Path, loaded: videos.LoadedExtractor, *, shows_progress: bool
) -> _Done:
    """Extract one video in this process."""
    lines: list[str] = []
    began = time.perf_counter()
    try:
        description = videos.extract(
            video,
            target,
            loaded,
            video_md5=provenance.source_md5(video),
            say=lines.append,
            shows_progress=shows_progress,
        )
    except InputError as error:
        return _Done(video, (*lines, str(error)), failed=True)
    lines.append(_line(target, description, time.perf_counter() - began))
    return _Done(video, tuple(lines), failed=False)


def _loaded(job: _Job) -> videos.LoadedExtractor:
    """The extractor with its network."""
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
