"""NMS, fusion and rounding against the published implementation's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from actionformer.data.view import View
from actionformer.detection import batched_nms
from actionformer.detection.classifiers import load_classifier
from actionformer.detection.decode import candidates
from actionformer.detection.nms import vote
from actionformer.detection.predict import _nms, _rounded, as_published

KINDS = {"CUHKANETClassifier": "cuhk", "TCANetHACSClassifier": "tcanet", "StandardClassifier": "standard"}


def published_nms_cases():
    """Without the method that no row uses (3) and without hard NMS among ties, whose sort is unstable."""
    for case in oracle.read("misc/nms.json"):
        kwargs = case.get("kwargs")
        if kwargs and kwargs.get("method") != 3 and case["tag"] != "TIES hard":
            yield pytest.param(case["case"], kwargs, id=f"{case['case']} {case['tag']}")


@pytest.mark.parametrize(("i", "kwargs"), published_nms_cases())
def test_nms_is_the_published_one(i, kwargs):
    stored = oracle.arrays("misc/nms.npz")
    method = "hard" if not kwargs["use_soft_nms"] else "linear" if kwargs.get("method") == 1 else "gaussian"
    segments, scores, labels = batched_nms(
        *(stored[f"{i}/in_{name}"] for name in ("segs", "scores", "labels")),
        sigma=kwargs["sigma"],
        min_score=kwargs["min_score"],
        max_segments=kwargs["max_seg_num"],
        per_class=kwargs["multiclass"],
        voting_threshold=kwargs["voting_thresh"],
        method=method,
        iou_threshold=kwargs["iou_threshold"],
    )
    np.testing.assert_array_equal(scores, stored[f"{i}/out_scores"])
    expected_segments, expected_labels = stored[f"{i}/out_segs"], stored[f"{i}/out_labels"]
    assert Counter(labels.tolist()) == Counter(expected_labels.tolist())
    # among equal scores the published order is arbitrary: compare sorted
    ours, theirs = (
        s[np.lexsort((s[:, 1], s[:, 0], l, -c))]
        for s, l, c in ((segments, labels, scores), (expected_segments, expected_labels, scores))
    )
    if np.unique(scores).size == len(scores):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("j", range(3))
def test_voting_is_the_published_one(j):
    stored, case = oracle.arrays("misc/nms.npz"), oracle.read("misc/nms.json")[-3 + j]
    segments, scores = stored[f"voting{j}/in_segs"], stored[f"voting{j}/in_scores"]
    np.testing.assert_allclose(vote(segments[::3], segments, scores, case["thr"]), stored[f"voting{j}/out"], atol=1e-4)


@pytest.mark.parametrize("i", range(4))
def test_classifiers_are_fused_as_published(i):
    case, stored = oracle.read("misc/classifiers.json")[i], oracle.arrays("misc/classifiers.npz")
    classifier = load_classifier(oracle.ORACLES / "misc" / case["file"], KINDS[case["type"]], case["topk"])
    segments, scores, labels = classifier.fuse(case["video"], stored[f"{i}/in_segs"], stored[f"{i}/in_scores"])
    np.testing.assert_array_equal(segments, stored[f"{i}/out_segs"])
    np.testing.assert_allclose(scores, stored[f"{i}/out_scores"], rtol=1e-6)
    assert labels == stored[f"{i}/out_labels"].tolist()


@pytest.mark.parametrize("config", ["anet_tsp", "ego4d_egovlp", "fineaction_videomae_h", "thumos_i3d"])
def test_detections_are_the_published_ones_to_the_last_rounded_digit(config):
    """From the same candidates, through NMS, seconds, classifier and rounding; ties compared as multisets."""
    experiment, expected = oracle.experiment_of(config), oracle.read(f"{config}/oracle.json")
    stored, case, params = oracle.arrays(f"{config}/oracle.npz"), expected["post_synth"], experiment.inference
    collected: dict[str, list] = {}
    for i, ((video, _), meta) in enumerate(zip(case["windows"], case["metas"], strict=True)):
        rng, count, span = oracle.drawn(f"{config}/post_synth/{i}"), case["N"], experiment.model.max_seq_len
        centre = rng.uniform(0, span, count)
        length = np.exp(rng.uniform(np.log(2), np.log(0.6 * span), count))
        scores = (rng.uniform(0, 1, (count, experiment.model.num_classes)) ** 6).astype(np.float32)
        segments = np.stack([centre - length / 2, centre + length / 2], 1).astype(np.float32)
        best = [t.numpy() for t in candidates(torch.from_numpy(segments), torch.from_numpy(scores), params)]
        start = meta.get("window_start_frame")
        view = View(
            video, meta["duration"], {video: np.zeros((1, 1))}, slice(None), np.zeros((0, 2)), np.zeros(0),
            meta["fps"], meta.get("snippet_stride", 0.0), meta.get("offset_frames", 0.0),
            window=None if start is None else (int(start / meta["snippet_stride"]), 0),
            resize_length=meta.get("resize_length"),
        )  # fmt: skip
        found = _nms(best, params) if start is None else best
        found = (view.to_seconds(torch.from_numpy(found[0])).numpy(), *found[1:])
        collected.setdefault(video, []).append(found if start is None else _rounded(found))
    for video, parts in collected.items():
        joined = tuple(np.concatenate([part[k] for part in parts]) for k in range(3))
        segments, scores, labels = _nms(joined, params) if expected["sliding"] else joined
        names = [f"class_{label:03d}" for label in labels]
        if params.use_classifier:
            path, classifier = oracle.ORACLES / config / "external_cls.json", experiment.dataset.classifier
            fuse = load_classifier(path, classifier.kind, classifier.top_k).fuse
            segments, scores, names = fuse(video, segments, scores)
        ours = Counter(
            (d["label"], d["segment"][0] + 0.0, d["segment"][1], d["score"])
            for d in as_published(segments, scores, names)
        )
        theirs = Counter(
            (str(label), round(float(s), 2) + 0.0, round(float(e), 2), round(float(score), 4))
            for (s, e), score, label in zip(
                *(stored[f"post_synth/dets/{video}/{name}"] for name in ("segments", "scores", "labels")), strict=True
            )
        )
        assert ours == theirs


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 90), st.floats(0.1, 20), st.floats(0.01, 1)), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_soft_nms_keeps_the_best_and_never_raises_a_score(candidates_, cap):
    segments = np.array([[s, s + d] for s, d, _ in candidates_], np.float32)
    scores = np.array([score for _, _, score in candidates_], np.float32)
    labels = np.zeros(len(scores), np.int64)
    options = {"sigma": 0.5, "min_score": 0.001, "per_class": True, "voting_threshold": 0.0}
    _, all_scores, _ = batched_nms(segments, scores, labels, max_segments=1000, **options)
    _, kept, _ = batched_nms(segments, scores, labels, max_segments=cap, **options)
    assert kept[0] == scores.max()
    assert (np.diff(kept) <= 0).all()
    assert (np.sort(all_scores)[::-1] <= np.sort(scores)[::-1][: len(all_scores)]).all()
    np.testing.assert_array_equal(kept, all_scores[:cap])  # stopping early changes nothing
