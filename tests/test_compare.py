"""Two detectors side by side: differences that are right, and how far they may be luck."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from actionformer.commands.main import main
from actionformer.errors import InputError
from actionformer.evaluation import mean_average_precision
from actionformer.evaluation.bootstrap import chance, compare, weighted_ap
from actionformer.evaluation.matching import match, true_positives
from actionformer.evaluation.summary import diagnosis_of, metrics_of
from actionformer.files.writing import write_json
from actionformer.params import keys
from actionformer.params.experiment import EvaluationParams
from actionformer.params.files import load_experiment
from actionformer.stages import inputs

TIOU = [0.3, 0.5, 0.7]


def drawn(seed, *, errors):
    """Ground truth of 20 videos, and detections of which this share is somewhere else."""
    truth, chance = random.Random(0), random.Random(seed)
    database, results = {}, {}
    for v in range(20):
        annotations, found = [], []
        for start in range(0, 90, 10):
            label = truth.choice(["jump", "run"])
            segment = [float(start), start + truth.uniform(3, 8)]
            annotations.append({"segment": segment, "label": label})
            late = 20.0 if chance.random() < errors else chance.uniform(0, 1)
            moved = [time + late for time in segment]
            found.append({"segment": moved, "label": label, "score": chance.random()})
        entry = {"subset": "validation", "duration": 120.0, "annotations": annotations}
        database[f"video_{v:02d}"] = entry | {"frame": 3600}
        results[f"video_{v:02d}"] = found
    return {"database": database}, results


def matched(seed, *, errors):
    return match(*drawn(seed, errors=errors), subset="validation")


def test_with_every_video_once_it_is_the_published_average_precision():
    database, results = drawn(1, errors=0.3)
    expected = mean_average_precision(
        database, results, subset="validation", tiou_thresholds=TIOU
    ).ap_KU
    arrays = match(database, results, subset="validation")
    correct_NU = true_positives(arrays, TIOU) >= 0
    np.testing.assert_allclose(weighted_ap(arrays, correct_NU, np.ones(20)), expected, rtol=1e-12)


def test_a_video_that_counts_twice_is_a_video_that_is_there_twice():
    database, results = drawn(1, errors=0.3)
    arrays = match(database, results, subset="validation")
    weight_V = np.ones(20)
    weight_V[3] = 2
    ap_KU = weighted_ap(arrays, true_positives(arrays, TIOU) >= 0, weight_V)
    database["database"]["video_99"] = database["database"]["video_03"]
    # right behind the original, as equals are
    twice = {}
    for name, found in results.items():
        twice[name] = found
        if name == "video_03":
            twice["video_99"] = found
    expected = mean_average_precision(
        database, twice, subset="validation", tiou_thresholds=TIOU
    ).ap_KU
    np.testing.assert_allclose(ap_KU, expected, atol=0.002)


def test_a_detector_does_not_differ_from_itself():
    same = matched(1, errors=0.3)
    result = compare(same, same, TIOU, draws=50)
    assert (result.overall.value, result.overall.low, result.overall.high) == (0, 0, 0)
    assert result.higher == 0


def test_a_clearly_better_detector_is_no_luck_and_an_equal_one_may_be():
    worse, equal, better = matched(1, errors=0.5), matched(2, errors=0.5), matched(3, errors=0.1)
    result = compare(worse, better, TIOU, draws=200)
    assert result.overall.low > 0.1
    assert result.higher == 1
    assert compare(worse, equal, TIOU, draws=200).overall.low < 0
    assert compare(worse, equal, TIOU, draws=200).overall.high > 0


def test_the_same_draws_give_the_same_interval():
    pair = matched(1, errors=0.3), matched(2, errors=0.3)
    assert compare(*pair, TIOU, draws=50) == compare(*pair, TIOU, draws=50)


def test_detectors_on_different_ground_truth_are_refused():
    database, results = drawn(1, errors=0.3)
    del database["database"]["video_00"]
    other = match(database, results, subset="validation")
    with pytest.raises(InputError, match="different ground truth"):
        compare(matched(1, errors=0.3), other, TIOU)


def test_the_mean_over_seeds_has_an_interval_that_holds_it_and_is_wider_with_fewer_videos():
    seeds = [matched(seed, errors=0.4) for seed in range(3)]
    scores, nothing = chance(seeds, None, TIOU, draws=300)
    assert nothing == {}
    assert list(scores) == ["0.3", "0.5", "0.7", "average"]
    expected = []
    for seed in range(3):
        database, results = drawn(seed, errors=0.4)
        found = mean_average_precision(database, results, subset="validation", tiou_thresholds=TIOU)
        expected.append(found.ap_KU.mean())
    assert scores["average"].value == pytest.approx(np.mean(expected), rel=1e-12)
    for interval in scores.values():
        assert interval.low < interval.value < interval.high


def test_a_distance_is_drawn_on_the_same_videos_and_so_narrower_than_the_scores():
    """Two detectors that fail on the same videos differ by less than either varies."""
    one, other = matched(1, errors=0.3), matched(1, errors=0.3)
    scores, differences = chance([one], other, TIOU, draws=100)
    assert (differences["average"].low, differences["average"].high) == (0, 0)
    assert scores["average"].high - scores["average"].low > 0.01
    better = matched(3, errors=0.05)
    _, differences = chance([better, better], matched(2, errors=0.5), TIOU, draws=100)
    assert differences["average"].low > 0
    compared = compare(matched(2, errors=0.5), better, TIOU, draws=100)
    assert differences["average"].value == pytest.approx(compared.overall.value, rel=1e-9)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two evaluated runs of one row, the second of which is better."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "existing", lambda path, maker: path)
    experiment = load_experiment("thumos14_i3d", "demo")
    for seed, errors in ((0, 0.5), (1, 0.1)):
        database, results = drawn(seed, errors=errors)
        write_json(inputs.layout.database_of(experiment), database)
        run = inputs.layout.run("demo", experiment.name, seed)
        write_json(run / "detections.json", {"results": results})
        arrays = inputs.database_of(experiment)
        tiou = experiment.evaluation.tiou
        metrics = metrics_of(arrays, results, EvaluationParams(tiou=tiou), "validation")
        made = keys.record("evaluate", experiment, {})
        write_json(run / "metrics.json", metrics | {"made_with": made})
        write_json(
            run / "diagnosis.json", diagnosis_of(arrays, results, subset="validation", tiou=tiou)
        )
    return inputs.layout.run("demo", experiment.name, 0).parent


def test_the_command_says_which_is_better_and_writes_a_page(runs, tmp_path, capsys):
    assert main(["compare", str(runs / "seed0"), str(runs / "seed1")]) == 0
    said = capsys.readouterr().out.splitlines()
    scores = [json.loads((runs / f"seed{i}/metrics.json").read_text()) for i in (0, 1)]
    for line, score in zip(said, scores, strict=False):
        assert f"{score['percent']['mAP/average']:.2f} average mAP" in line
    assert said[2].startswith("+")
    assert "paired bootstrap" in said[2]
    page = (tmp_path / said[-1].removeprefix("written to ")).read_text()
    for title in ("Difference per class", "Difference per video", "Gain from removing errors"):
        assert title in page


@pytest.mark.parametrize(
    ("second", "words"),
    [("nowhere", "no run, and no row with runs"), ("seed0", "two folders are needed")],
)
def test_what_cannot_be_compared_is_one_line(runs, capsys, second, words):
    assert main(["compare", str(runs / "seed0"), str(runs / second)]) == 1
    assert words in capsys.readouterr().err
