"""How fast is it, against the published implementations?

One command, one page: docs/performance.md and a plot.

    python benchmarks/benchmark.py [--out docs/performance.md] [--quick] [--only GPU]

`measure.py` has what is measured, `machine.py` what it is measured on, `peers.py` what the
published implementations take. What the network does is compared through the rate of matrix
products: a peer's time counts as time * its machine's rate / the rate measured here, right before
and after the work. Post-processing, evaluation and loading are compared as they stand.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import measure
import peers
import torch
from machine import BUSY, LIMITS, Watch, instruction_sets
from measure import THREADS, Grown
from peers import PEERS

from actionformer import load_experiment
from actionformer.files.reading import read_json
from actionformer.files.writing import write_json, write_text
from actionformer.params.files import published_rows
from actionformer.progress import progress
from actionformer.provenance import commit_text, environment, git_state
from actionformer.threads import SPINS, spin_briefly
from actionformer.training.cost import forward_flops, matrix_rate
from actionformer.training.device import prepare_cpu

GPU = "GPU"
# the section that `benchmarks/rehearsal.py` writes
REHEARSAL = "Rehearsal"
WHOLE = "A whole row"
VIDEO = "Videos"
# TriDet and TemporalMaxer report the latency of ActionFormer on (1, 2048, 2304)
LATENCY_ROW = "thumos14_i3d"
# how long the machine is looked at before it is measured
LOOK_SECONDS = 5

HEADER = """\
# Performance

Written by `make benchmark`: a section for every instruction set that a processor has, and one for a
GPU. `ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2` limits a processor with AVX-512 to the
matrix products and convolutions of one without, not to its caches, its clock or its neighbours: the
heading says so. A section stays until a machine with its instruction set is measured again. The
last sections are those of `make rehearsal`, all rows at published size, and of one row that was
trained whole.

Ratios are to the faster of the two published implementations: what the network does through the
matrix rate of the two machines (`benchmarks/benchmark.py`), ours measured right before and after
the work (a machine that others share goes faster and slower), the rest as it stands. Medians.
Forward passes find ready what depends on weights alone, as every video but the first of a detection
does; in the sections of before 2026-11-29 they did not. Since dc8d9ea those on real lengths come in
batches of like lengths, in earlier sections in the order of the videos.
"""
SECTION = """\
{date}, commit {commit}; {cores} cores, {threads} threads; torch {torch}, numpy {numpy}, Python
{python}; others used {others:.0%} of the machine. Float32 matrices of 2048 x 2048: {rate:.0f}
GFLOP/s. Shares of the matrix rate count a convolution's operations as it is defined. Ours takes
fewer where it is wide (`src/actionformer/model/convolution.py`): shares can exceed 100 %.
"""
GPU_SECTION = """\
{date}, commit {commit}; {cores} cores; torch {torch}, Python {python}. Products of matrices of
8192 x 8192: float32 {float32:.0f} TFLOP/s, TF32 {published:.0f}, bfloat16 {bf16:.0f}.
"""
GPU_STEPS = """\
A training step of the row's batch at full length. `published` takes TF32 for convolutions,
`bf16` is bfloat16 (`training.precision`); recorded steps are replayed (`training.cuda_graphs`), the
others launched kernel by kernel. The share is of products in the same arithmetic. Memory is what
tensors took at most, and what PyTorch held. Hours are those of one seed with its evaluations, by
some steps of the row's own on the published lengths.
"""
OPERATIONS = """\
One video at full length. GMACs are multiply-adds of convolutions and matrix products, which is what
fvcore counts for them; latency is the median of single forward passes on (1, C, T).
"""
REAL_LENGTHS = """\
A step of a training epoch, and a test video's forward pass in the batches of a detection, on
lengths drawn from the real ones; the peers pad to full length. EPIC's peer is reckoned from
THUMOS-14's by the FLOPs.
"""
FULL_LENGTH_HEADS = [
    "row",
    "batch",
    "step, s",
    "steps/s",
    "matrix rate, GFLOP/s",
    "of it",
    "ratio",
    "floor",
    "forward, s",
    "ratio",
    "memory, GB",
    "theirs",
]
BUSY_ROW = "ego4d_slowfast"
BESIDE_OTHERS = f"""\
A training step of {BUSY_ROW} at full length, alone and beside one process per thread that never
rests. Every command lets its threads spin briefly, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT says
otherwise.
"""
WAITING = {
    "spin for a while, OpenMP's own way": {},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin briefly, then sleep": {"GOMP_SPINCOUNT": SPINS},
}
REAL_LENGTHS_HEADS = [
    "row",
    "batch",
    "step, s",
    "videos/s",
    "ratio",
    "floor",
    "forward, s",
    "ratio",
    "floor",
]


GPU_HEADS = [
    "row",
    "precision",
    "steps",
    "step, ms",
    "videos/s",
    "of the matrix rate",
    "memory, GB",
    "held",
    "hours of a seed",
]
# precision and `cuda_graphs` of the steps that are measured
GPU_WAYS = [("published", False), ("published", True), ("bf16", False), ("bf16", True)]


def full_length_table(repeats: int) -> tuple[list[str], dict[str, float]]:
    """Steps and forward passes at full length; and the FLOPs of a step per row."""
    rows, flops = [], {}
    others = [row for row in published_rows() if row not in PEERS]
    for row in progress([*PEERS, *others], "full length", unit="row"):
        peer, used = PEERS.get(row), measure.memory(row)
        found = measure.full_length(row, repeats if peer else repeats // 2)
        step, forward, flops[row] = found.step, found.forward, found.flops
        of_step, of_forward, theirs = ["–", "–"], ["–"], "–"
        if peer is not None:
            of_step = _ratio(peer.step * peers.MATRIX_RATE / step.products, peers.STEP_FLOOR)
            of_forward = _ratio(peer.forward * peers.MATRIX_RATE / forward.products)
            theirs = f"{peer.memory / 1e9:.1f}"
        cells = [
            row,
            str(measure.batch_at_full_length(row)),
            f"{step.seconds:.2f}",
            f"{1 / step.seconds:.2f}",
            f"{step.products / step.seconds / 1e9:.0f}",
            f"{flops[row] / step.products:.0%}",
            *of_step,
            f"{forward.seconds:.3f}",
            *of_forward,
            f"{used / 1e9:.1f}",
            theirs,
        ]
        rows.append(cells)
    return _table(FULL_LENGTH_HEADS, rows), flops


def real_lengths_table(flops: dict[str, float], batches: int) -> list[str]:
    """Training and inference on real lengths."""
    rows = []
    for row in progress(list(peers.EPOCH_FLOORS), "real lengths", unit="row"):
        found = measure.real_lengths(row, batches)
        if found is None:
            rows.append([row, "the real lengths are not at hand", *["–"] * 7])
            continue
        size = load_experiment(row).training.batch_size
        # the peer's step at this row's batch, and its forward pass at the length that it pads to
        if row in PEERS:
            peer = PEERS[row]
            step, forward = peer.step * size / peer.batch, peer.forward
        else:
            peer = PEERS["thumos14_i3d"]
            more = found.full_flops / flops["thumos14_i3d"]
            step, forward = peer.step * more, peer.forward * more * peer.batch / size
        forward *= found.padded
        of_step = step * peers.MATRIX_RATE / found.step.products
        of_forward = forward * peers.MATRIX_RATE / found.forward.products
        cells = [
            row,
            str(size),
            f"{found.step.seconds:.2f}",
            f"{size / found.step.seconds:.2f}",
            *_ratio(of_step, peers.EPOCH_FLOORS[row]),
            f"{found.forward.seconds:.3f}",
            *_ratio(of_forward, peers.INFERENCE_FLOORS[row]),
        ]
        rows.append(cells)
    return _table(REAL_LENGTHS_HEADS, rows)


def rest_table(repeats: int, videos: int) -> list[str]:
    """Post-processing, evaluation, loading."""
    rows = []
    every = list(peers.POST_PROCESSING.items())
    for row, theirs in progress(every, "post-processing", unit="row"):
        taken = measure.post_processing(row, 8 * repeats)
        ratio = _ratio(theirs / taken, peers.POST_PROCESSING_FLOOR)
        what = f"post-processing of one video, {row}"
        rows.append([what, f"{taken:.4f}", f"{theirs:g}", *ratio])
    for count, theirs in peers.SOFT_NMS.items():
        taken = measure.soft_nms(count, 3 * repeats)
        what = f"soft-NMS of {count} segments of one class"
        rows.append([what, f"{taken:.4f}", f"{theirs:g}", *_ratio(theirs / taken), ""])
    for peer in progress(peers.EVALUATIONS, "evaluation", unit="size"):
        found = measure.evaluation(peer.videos, peer.detections, peer.classes, peer.thresholds)
        sizes = f"{peer.videos} videos, {peer.classes} classes, {peer.thresholds} thresholds"
        reading = f"(reading the file: {found['reading']:.2f} s more)"
        what = f"mAP of {peer.detections} detections: {sizes} {reading}"
        ratio = _ratio(peer.seconds / found["seconds"], peers.EVALUATION_FLOOR)
        rows.append([what, f"{found['seconds']:.2f}", f"{peer.seconds:g}", *ratio])
    taken = measure.loading(videos)
    ratio = _ratio(peers.LOADING / taken, peers.LOADING_FLOOR)
    what = "one pass over the features of 200 THUMOS-14 videos"
    rows.append([what, f"{taken:.2f}", f"{peers.LOADING:g}", *ratio])
    return _table(["what", "s", "theirs, s", "ratio", "floor"], rows)


def busy_table() -> list[str]:
    """A step alone and on a busy machine, by what threads do that wait for each other."""
    rows = []
    for said, policy in progress(WAITING.items(), "beside others", unit="policy"):
        times = [measure.busy(BUSY_ROW, policy, others) for others in (0, THREADS)]
        rows.append([said, *(f"{taken:.2f}" for taken in times)])
    return _table(["threads that wait", "alone, s", "beside others, s"], rows)


def growth_table(growths: Sequence[Grown]) -> list[str]:
    """Sizes, seconds and the exponent of every quantity."""
    rows = []
    for grown in growths:
        sizes = ", ".join(f"{size:g}" for size in grown.sizes)
        times = ", ".join(f"{taken:.3g}" for taken in grown.seconds)
        rows.append([grown.what, sizes, times, f"{grown.exponent:.2f}"])
    return _table(["what", "sizes", "seconds", "exponent"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _ratio(value: float, floor: float | None = None) -> list[str]:
    """A ratio, and the floor that it has to reach, if there is one."""
    digits = 2 if value < 10 else 0
    cells = [f"**{value:.{digits}f}x**"]
    if floor is not None:
        cells.append(f"{floor:g}x")
    return cells


def operations_table(device: str, repeats: int) -> list[str]:
    """Multiply-adds of every row's network, and the latency of that on THUMOS-14's I3D features."""
    rows = []
    for row in progress(published_rows(), "operations", unit="row"):
        params = load_experiment(row).model
        macs = forward_flops(params, params.max_seq_len) / 2
        shape = f"(1, {params.in_channels}, {params.max_seq_len})"
        latency = ["–", "–"]
        if row == LATENCY_ROW:
            found = measure.latency(row, device, repeats)
            latency = [f"{1e3 * found['network']:.1f}", f"{1e3 * found['backbone']:.1f}"]
        rows.append([row, shape, f"{macs / 1e9:.1f}", *latency])
    return _table(["row", "input", "GMACs", "latency, ms", "of the backbone, ms"], rows)


def gpu_table(rates: Mapping[str, float], repeats: int) -> list[str]:
    """Training steps at full length on a GPU, launched and recorded."""
    rows = []
    for row in progress(published_rows(), "on the GPU", unit="row"):
        experiment = load_experiment(row)
        lengths = [experiment.model.max_seq_len] * experiment.training.batch_size
        flops = measure.training_flops(experiment, lengths)
        for precision, recorded in GPU_WAYS:
            way = [f"training.precision={precision}", f"training.cuda_graphs={recorded}".lower()]
            found = measure.on_gpu(load_experiment(row, overrides=way), repeats)
            cells = [
                row,
                precision,
                "recorded" if recorded else "launched",
                f"{1e3 * found.seconds:.1f}",
                f"{len(lengths) / found.seconds:.0f}",
                f"{flops / found.seconds / rates[precision]:.0%}",
                f"{found.used / 1e9:.1f}",
                f"{found.held / 1e9:.1f}",
                "–" if found.hours is None else f"{found.hours:.2f}",
            ]
            rows.append(cells)
    return _table(GPU_HEADS, rows)


def cpu_section(quick: bool) -> tuple[str, list[Grown]]:
    """What is measured with one instruction set, and the growth to plot."""
    prepare_cpu(THREADS)
    repeats, batches = (2, 4) if quick else (4, 12)
    rate = matrix_rate("cpu", repeats=9)
    full, flops = full_length_table(repeats)
    growths = measure.growth(2)
    parts = [
        _machine(rate),
        _part("Full length", full),
        _part("Real lengths", real_lengths_table(flops, batches), REAL_LENGTHS),
        _part("Operations and latency", operations_table("cpu", 3 * repeats), OPERATIONS),
        _part("Post-processing, evaluation, loading", rest_table(repeats, 40 if quick else 200)),
        _part("On a busy machine", busy_table(), BESIDE_OTHERS),
        _part(
            "Growth",
            growth_table(growths),
            "Time grows as size to the power of the exponent.\n",
        ),
    ]
    return "\n".join(parts), growths


def gpu_section(quick: bool) -> str:
    """What is measured on a GPU."""
    repeats, rates = 10 if quick else 50, measure.gpu_rates()
    told = {name: rate / 1e12 for name, rate in rates.items()}
    told |= {"date": date.today().isoformat(), "commit": commit_text(git_state())}
    parts = [
        GPU_SECTION.format(**environment(), **told),
        _part("Training at full length", gpu_table(rates, repeats), GPU_STEPS),
        _part("Operations and latency", operations_table("cuda", repeats), OPERATIONS),
    ]
    return "\n".join(parts)


def _machine(rate: float) -> str:
    """What was measured, when; how busy others were is filled in at the end."""
    told = {"date": date.today().isoformat(), "commit": commit_text(git_state())}
    text = SECTION.replace("{others:.0%}", "{{others:.0%}}")
    return text.format(**environment(), **told, threads=THREADS, rate=rate / 1e9)


def _part(title: str, table: Sequence[str], text: str = "") -> str:
    lead = f"{text}\n" if text else ""
    return f"### {title}\n\n{lead}" + "\n".join(table) + "\n"


# ---------------------------------------------------------------------------------------- the page


def sections_of(page: Path) -> dict[str, str]:
    """Instruction set, or 'GPU' -> its section, heading included, of a page that was written."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = {}
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
        name = section.partition(":")[0].removeprefix("## ")
        found[name] = section.partition("![")[0].rstrip() + "\n"
    return found


def measured(
    name: str, environment: Mapping[str, str], quick: bool, note: str = ""
) -> tuple[str, list[Grown]]:
    """A section, measured by a process of its own: libraries read the environment once.

    Args:
        note: what its heading says behind the processor.
    """
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--measure", name, "--out", str(result)]
        command += ["--quick"] if quick else []
        there = {**os.environ, **environment}
        spin_briefly(there)  # as in every command
        subprocess.run(command, env=there, check=True)
        content = read_json(result)
    others = watch.others()
    note += ", beside other load" if others > BUSY else ""
    text = content["text"].format(others=others)
    heading = f"## {name}: {content['where']}{note}"
    return f"{heading}\n\n{text}", [Grown(**grown) for grown in content["growth"]]


def measure_one(name: str, quick: bool, out: Path) -> None:
    """What `measured` starts."""
    growths: list[Grown] = []
    if name == GPU:
        text, where = gpu_section(quick), torch.cuda.get_device_name()
    else:
        text, growths = cpu_section(quick)
        where = str(environment()["processor"])
    content = {"text": text, "where": where, "growth": [asdict(grown) for grown in growths]}
    write_json(out, content)


def plot(growths: Sequence[Grown], out: Path) -> None:
    """Times against sizes, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (3.2 * len(growths), 3.2)
    figure, axes = pyplot.subplots(1, len(growths), figsize=size, layout="constrained")
    for axis, grown in zip(axes, growths, strict=True):
        sizes, times = grown.sizes, grown.seconds
        axis.loglog(sizes, times, marker="o", color="#3b6ea5")
        ideal = [times[0] * size / sizes[0] for size in sizes]
        axis.loglog(sizes, ideal, linestyle=":", color="gray")
        axis.set_title(grown.what, fontsize=8)
        axis.set_ylabel("seconds, logarithmic (dotted: linear)", fontsize=7)
        axis.set_xlabel("size, logarithmic", fontsize=7)
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        # two labels that are close would lie on each other
        told = [times[0], times[-1]] if times[-1] > 1.2 * times[0] else times[:1]
        axis.set_yticks(told, [f"{taken:.2g}" for taken in told])
        axis.minorticks_off()
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.suptitle("Times against sizes, both axes logarithmic", fontsize=9)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Measure, write the page and the plot, print the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    page = Path(__file__).parents[1] / "docs/performance.md"
    parser.add_argument("--out", type=Path, default=page)
    text = "fewer repeats, a quarter of the time"
    parser.add_argument("--quick", action="store_true", help=text)
    text = f"measure these sections alone, of {', '.join([*LIMITS, GPU])}: the others stay"
    parser.add_argument("--only", nargs="+", metavar="SECTION", help=text)
    text = "measure although others use the machine; the headings say so"
    parser.add_argument("--beside-load", action="store_true", help=text)
    parser.add_argument("--measure", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        measure_one(args.measure, args.quick, args.out)
        return
    environments = instruction_sets()
    largest = next(iter(environments))
    if torch.cuda.is_available():
        environments[GPU] = {}
    for name in args.only or ():
        if name not in environments:
            sys.exit(f"benchmark: no {name} here; this machine has {', '.join(environments)}")
    refuse_load(args.beside_load)
    sections, drawn = sections_of(args.out), False
    for name, variables in environments.items():
        if args.only and name not in args.only:
            continue
        note = "" if name in (largest, GPU) else f", an {largest} processor limited to it"
        sections[name], growths = measured(name, variables, args.quick, note)
        if growths and not drawn:  # the largest set comes first
            plot(growths, args.out.with_suffix(".png"))
            drawn = True
    print(write_page(args.out, sections))


def write_page(path: Path, sections: Mapping[str, str]) -> str:
    """The page with these sections, in their order; returns its text."""
    parts = [sections[name] for name in (*LIMITS, GPU, VIDEO, REHEARSAL, WHOLE) if name in sections]
    text = "\n".join([HEADER, *parts, "![Times against sizes](performance.png)\n"])
    write_text(path, text)
    return text


def refuse_load(wanted: bool) -> None:
    """Times of a machine that others use are not its own."""
    watch = Watch()
    time.sleep(LOOK_SECONDS)
    others = watch.others()
    if others > BUSY and not wanted:
        sys.exit(
            f"benchmark: others use {others:.0%} of this machine, at most {BUSY:.0%} is quiet; "
            "wait, or --beside-load measures all the same and says so"
        )


if __name__ == "__main__":
    main()
