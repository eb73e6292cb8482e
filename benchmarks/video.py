"""How fast videos are decoded and extracted, in how much memory: in docs/performance.md.

python benchmarks/video.py        what `make benchmark-video` calls
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

import av
import numpy as np
import torch
from benchmark import VIDEO, refuse_load, sections_of, write_page

from actionformer.errors import InputError
from actionformer.params.extractor import Extractor
from actionformer.params.files import load_extractor, names
from actionformer.progress import progress
from actionformer.provenance import environment, git_state
from actionformer.video.decode import VideoFrames
from actionformer.video.extract import LoadedExtractor
from actionformer.video.networks.build import built_for

PAGE = Path("docs/performance.md")
# of the video that is decoded: seconds of 720p at 30 frames a second, as phones write them
SECONDS, SIDES, FPS = 20, (720, 1280), 30
# a network is timed for so long, after its first batch
LEAST_SECONDS = 10.0
BATCH = 4
# lengths of the videos whose extraction is weighed, in seconds
LENGTHS = (60, 600, 3600)
TEXT = """\
{date}, commit {commit}; {cores} cores; torch {torch}, PyAV {av}. `make benchmark-video`.

A video of {height} x {width} pixels, H.264, {fps} frames/s: **{decoded:.0f} frames/s** decoded from
start to end and brought to 256 pixels, of which a network sees 224 x 224.

Networks with drawn weights, batches of {batch} clips, decoding not counted. Real time is what a
second of video takes, in seconds, at the extractor's own stride: below 1 it keeps up.

{networks}

Peak memory of extraction, by the video's length: `i3d_kinetics`' network on clips of 64 x 64
pixels, 8 frames/s, every 16 frames.

{memory}
"""
WEIGHED = """
import re, sys
from pathlib import Path
from actionformer.params.files import load_extractor
from actionformer.video.extract import LoadedExtractor, extract
from actionformer.video.networks.build import built_for
name, params, _ = load_extractor("i3d_kinetics")
params = params.model_copy(update={"resize": 64, "crop": 64, "fps": 8.0, "stride_frames": 16})
loaded = LoadedExtractor(name, params, "", built_for(params).network.eval(), "cpu", 8)
extract(Path(sys.argv[1]), Path(sys.argv[2]), loaded, video_md5="", say=print, shows_progress=False)
# not getrusage's: that is at first the one of the process that started this one
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6)
"""


def main() -> None:
    refuse_load(wanted="--beside-load" in sys.argv)
    known = environment()
    with tempfile.TemporaryDirectory() as folder:
        text = TEXT.format(
            date=date.today(),
            commit=git_state()["commit"][:12],
            cores=known["cores"],
            torch=known["torch"],
            av=av.__version__,
            height=SIDES[0],
            width=SIDES[1],
            fps=FPS,
            batch=BATCH,
            decoded=frames_per_second(Path(folder)),
            networks=table_of_networks(),
            memory=table_of_memory(Path(folder)),
        )
    sections = sections_of(PAGE) | {VIDEO: f"## {VIDEO}: {known['processor']}\n\n{text}"}
    write_page(PAGE, sections)
    print(text)


def write_video(path: Path, seconds: int, sides: tuple[int, int], fps: int) -> None:
    """Noise that moves, so that there is something to decode."""
    rng = np.random.default_rng(0)
    height, width = sides
    coarse = rng.integers(0, 255, (height // 8, 2 * width // 8, 3), np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(seconds * fps):
            shown = picture[:, k % width : k % width + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def frames_per_second(folder: Path) -> float:
    """Of decoding, converting and cutting."""
    path = folder / "decoded.mp4"
    write_video(path, SECONDS, SIDES, FPS)
    began = time.perf_counter()
    frames = VideoFrames(path, resize=256, crop=224)
    for _ in frames:
        pass
    return frames.count / (time.perf_counter() - began)


def table_of_networks() -> str:
    lines = [
        "| extractor | clip | weights, millions | clips/s | real time, s |",
        "|---|---|---:|---:|---:|",
    ]
    for name in progress(names("extractors"), "networks", unit="extractor"):
        _, extractor, _ = load_extractor(name)
        with suppress(InputError):  # torchvision isn't there
            lines.append(line_of(name, extractor))
    return "\n".join(lines)


def line_of(name: str, extractor: Extractor) -> str:
    """What one extractor's network takes."""
    network = built_for(extractor).network.eval()
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    loaded = LoadedExtractor(name, extractor, "", network, "cpu", BATCH)
    side = extractor.crop
    clips = torch.randint(0, 255, (BATCH, extractor.clip_frames, side, side, 3), dtype=torch.uint8)
    loaded.features(clips[:1])
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < LEAST_SECONDS:
        loaded.features(clips)
        count += BATCH
    rate = count / (time.perf_counter() - began)
    per_second = (extractor.fps or FPS) / extractor.stride_frames
    seen = f"{extractor.clip_frames} x {side} x {side}"
    return f"| {name} | {seen} | {millions:.0f} | {rate:.2f} | {per_second / rate:.1f} |"


def table_of_memory(folder: Path) -> str:
    lines = ["| length, min | peak, GB |", "|---:|---:|"]
    for seconds in LENGTHS:
        video = folder / f"{seconds}.mp4"
        write_video(video, seconds, (64, 80), 1)
        command = [sys.executable, "-c", WEIGHED, str(video), str(folder / f"{seconds}.npz")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        peak = float(re.findall(r"^[\d.]+$", done.stdout, re.M)[-1])
        lines.append(f"| {seconds // 60} | {peak:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
