"""Where jobs run: places on GPUs, and whether a device computes what the CPU computes.

`make gpu` runs what needs a CUDA device; without one these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer import ActionFormer, gpus, load_experiment
from actionformer.commands.main import main
from actionformer.detection.predict import predict
from actionformer.errors import InputError
from actionformer.model.precision import effective
from actionformer.params.files import published_rows
from actionformer.training import checkpoint, device
from actionformer.training.agreement import AGREES, SMALL, step_batch, step_difference
from actionformer.training.average import WeightAverage
from actionformer.training.cost import batch_of
from actionformer.training.device import leased_device
from actionformer.training.loop import step_of, train
from actionformer.training.observer import Observer
from actionformer.training.optimizer import adamw
from conftest import assert_same_tensors

# ------------------------------------------------------------------------------------------ memory

# blocks of growing sizes, each freed before the next: the heap keeps them all
FRAGMENTED = """
import re, torch
from pathlib import Path
from actionformer.training.device import prepare_cpu, release_memory

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

prepare_cpu(1)
before = held()
kept = []
for megabytes in range(2, 60, 2):
    torch.ones(megabytes << 18)
    kept.append(torch.ones(1 << 18))
freed = held()
release_memory()
print(before, freed, held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_freed_goes_back_to_the_system_between_training_and_evaluation():
    """A THUMOS training took 7.1 GB, of which 0.9 were in use: its evaluation came on top."""
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=True
    )
    before, freed, after = map(float, done.stdout.split())
    kept = 29
    assert freed - before > 2 * kept
    assert after - before < 1.5 * kept


# ------------------------------------------------------------------------------------------ places


@given(st.integers(0, 200_000), st.one_of(st.none(), st.integers(1, 20)))
def test_a_gpu_has_as_many_places_as_are_given_or_fit_its_memory(memory_mb, given):
    places = gpus.slots_of(memory_mb, given)
    assert places >= 1
    assert places == given or given is None
    if given is None and places > 1:
        assert places * gpus.MB_PER_JOB <= memory_mb < (places + 1) * gpus.MB_PER_JOB


def test_jobs_take_a_gpu_of_their_own_first_then_share_then_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.01)
    slots, said = {"a": 2, "b": 1}, []
    waiting = threading.Event()

    def say(line):
        said.append(line)
        waiting.set()

    def fourth():
        with gpus.leased(slots, say, tmp_path) as uuid:
            got.append(uuid)

    got = []
    with gpus.leased(slots, say, tmp_path) as first, gpus.leased(slots, say, tmp_path) as second:
        with gpus.leased(slots, say, tmp_path) as third:
            assert [first, second, third] == ["a", "b", "a"]
            job = threading.Thread(target=fourth)
            job.start()
            assert waiting.wait(timeout=10)
            assert said == [
                f"waits for a GPU: all 3 places on 2 GPU(s) are taken (locks in {tmp_path})"
            ]
        job.join(timeout=10)
        assert got == ["a"]
    assert len(said) == 1


def test_a_place_of_a_job_that_fails_is_free_again(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), gpus.leased({"a": 1}, print, tmp_path):
            raise KeyError


@pytest.mark.parametrize(
    ("told", "visible", "places"),
    [
        ("81559\n24000\n", None, 13),
        ("81559\n24000\n", "1", 3),
        ("81559\n24000\n", "1,0", 13),
        # the first that is none ends the list
        ("81559\n24000\n", "0,-1,1", 10),
        ("81559\n24000\n", "-1", 0),
        ("81559\n24000\n", "GPU-5d1a,GPU-77c0", 13),
        ("81559\n", "", 0),
        ("?", None, 2),
    ],
)
def test_places_follow_the_driver_and_what_this_process_may_use(
    told, visible, places, tmp_path, monkeypatch
):
    """Where the driver does not tell its memory, a GPU has one place."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{told}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "_devices", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.places() == places


def test_slots_that_are_no_number_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["train", "thumos14_i3d", "--gpu-slots", "0"])
    assert "'0': expected a whole number from 1 on" in capsys.readouterr().err


# --------------------------------------------------------------------------------------- agreement


def test_a_step_on_the_cpu_agrees_with_itself_and_bfloat16_does_not():
    assert step_difference(SMALL, "cpu") == 0.0
    assert 1e-3 < step_difference(SMALL, "cpu", "bf16") < 0.2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_apples_gpu_is_taken_only_where_a_step_agrees(monkeypatch):
    """Here there is none: the step fails, and what it fails of is said."""
    said = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    if not torch.backends.mps.is_built():
        with leased_device("auto", say=said.append) as chosen:
            assert chosen == "cpu"
        assert len(said) == 1
        assert said[0].startswith("mps is not used: ")
    monkeypatch.setattr(device, "step_difference", lambda params, device: 0.5)
    with leased_device("auto", say=said.append) as chosen:
        assert chosen == "cpu"
    assert said[-1] == "mps is not used: a training step differs by 0.5 from the CPU's; the CPU is"
    monkeypatch.setattr(device, "step_difference", lambda params, device: 1e-5)
    with leased_device("auto", say=said.append) as chosen:
        assert chosen == "mps"


@pytest.mark.parametrize(("wanted", "words"), [("gpu", "expected auto"), ("cuda:64", "torch sees")])
def test_a_device_that_is_not_there_is_one_line(wanted, words):
    with pytest.raises(InputError, match=words), leased_device(wanted):
        pass


# ----------------------------------------------------------------------------------- on a CUDA GPU


def on_gpu(test):
    """A test that needs a CUDA device, and says so where there is none."""
    reason = "torch sees no CUDA device on this machine"
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)(test))


# TF32 has 10 bits of mantissa, bfloat16 7
WITHIN = {"float32": AGREES, "published": 0.02, "bf16": 0.2}


@on_gpu
@pytest.mark.parametrize("precision", WITHIN)
@pytest.mark.parametrize("row", published_rows())
def test_a_step_of_every_row_agrees_with_the_cpu(row, precision):
    params = load_experiment(row, "demo").model
    assert step_difference(params, "cuda", precision) < WITHIN[precision]


@on_gpu
def test_a_gpu_computes_convolutions_in_tf32_and_attention_in_float32():
    torch.manual_seed(0)
    model = ActionFormer(SMALL).eval().cuda()
    features_BCT, mask_BT = torch.randn(1, 32, 64).cuda(), torch.ones(1, 64).cuda()
    seen = {}
    attention = model.backbone.stem[0].attention
    attention.query.register_forward_hook(lambda layer, x, out: seen.update(x=x[0], out=out))
    with torch.no_grad():
        model(features_BCT, mask_BT)
    weight_CC, bias_C = attention.query.weight.squeeze(-1).double(), attention.query.bias.double()
    exact = torch.nn.functional.linear(seen["x"].double(), weight_CC, bias_C)
    error = float(((seen["out"] - exact).norm() / exact.norm()).detach())
    assert effective("published", "cuda") == "TF32 convolutions"
    assert 1e-5 < error < 1e-2
    assert not torch.backends.cuda.matmul.allow_tf32


@on_gpu
@pytest.mark.parametrize("recorded", ["true", "false"])
@pytest.mark.parametrize("row", published_rows())
def test_a_step_does_not_wait_for_the_gpu(row, recorded):
    """As tests/test_training.py proves without one; here CUDA itself raises."""
    experiment = load_experiment(row, "demo", overrides=[f"training.cuda_graphs={recorded}"])
    batch = step_batch(experiment.model).each(torch.Tensor.cuda)
    step, _, _ = stepping(experiment)
    # what is made at the first step is made once, and the second may be recorded
    for mode in ("default", "default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            losses, _ = step(batch, lr=1e-4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(losses.total)


@on_gpu
@pytest.mark.parametrize("precision", WITHIN)
@pytest.mark.parametrize("row", published_rows())
def test_recorded_steps_compute_what_steps_compute_bit_for_bit(row, precision):
    """Dropout included, of batches of several shapes in any order, with other learning rates."""
    ended = []
    for recorded in ("true", "false"):
        overrides = [f"training.precision={precision}", f"training.cuda_graphs={recorded}"]
        experiment = load_experiment(row, "demo", overrides=overrides)
        step, model, ema = stepping(experiment)
        generator = torch.Generator().manual_seed(0)
        longest = experiment.model.max_seq_len
        batches = []
        for part in (1, 2, 1, 2, 2, 1, 1):
            lengths = [longest // part, longest // 4]
            batches.append(batch_of(experiment, lengths, generator).each(torch.Tensor.cuda))
        torch.manual_seed(1)
        seen = []
        for number, batch in enumerate(batches):
            # as a recording takes it, which rounds it to float32
            losses, norm = step(batch, lr=torch.tensor(1e-4 * number, device="cuda"))
            seen.append(torch.stack([losses.classification, losses.regression, norm]))
        ended.append(({"seen": torch.stack(seen)}, model.state_dict(), ema.state_dict()))
    for ours, theirs in zip(*ended, strict=True):
        assert_same_tensors(ours, theirs)


def stepping(experiment):
    """(step, network, average) on the GPU, with weights that are drawn alike."""
    torch.manual_seed(0)
    model = ActionFormer(experiment.model, experiment.training.precision).train().cuda()
    ema, optimizer = WeightAverage(model, 0.999), adamw(model, experiment.training)
    step, _ = step_of(model, ema, optimizer, experiment.training)
    return step, model, ema


class InterruptedOnce(Observer):
    """Ctrl-C after the first epoch."""

    def __init__(self):
        self.epochs = []

    def epoch_finished(self, epoch, record):
        self.epochs.append(epoch)
        if self.epochs == [0]:
            raise KeyboardInterrupt


@on_gpu
def test_a_training_on_a_gpu_is_gone_on_with_and_detects_what_the_cpu_detects(
    short_training, tmp_path
):
    experiment, training_views, classes = short_training
    whole, cut, looker = tmp_path / "whole", tmp_path / "cut", InterruptedOnce()
    options = {"seed": 0, "device": "cuda"}
    train(experiment, training_views, classes, run=whole, **options)
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            train(experiment, training_views, classes, run=cut, observer=looker, **options)
    assert looker.epochs == [0, 1, 2]
    assert (cut / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
    network, _, _ = checkpoint.load_model(cut / "model.pt")
    results = []
    for place in ("cpu", "cuda"):
        network.to(place)
        results.append(
            predict(network, training_views, experiment.inference, classes, device=place)
        )
    for there, here in zip(results[1].values(), results[0].values(), strict=True):
        assert there[0]["segment"] == pytest.approx(here[0]["segment"], abs=0.05)
        assert there[0]["score"] == pytest.approx(here[0]["score"], abs=0.01)
