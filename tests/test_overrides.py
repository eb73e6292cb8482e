"""Values on the command line: they have a folder of their own, and every table tells of them."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionformer import layout, load_experiment
from actionformer.errors import InputError
from actionformer.params import keys
from actionformer.params.files import differences
from actionformer.params.yaml_files import parsed_yaml
from conftest import CHECKOUT

PARAMS = CHECKOUT / "params"


def test_a_row_with_other_values_has_folders_of_its_own_and_the_stores_of_the_row():
    row = load_experiment("thumos14_i3d", "demo")
    other = load_experiment("thumos14_i3d", "demo", overrides=["training.schedule_epochs=4"])
    assert other.name == "thumos14_i3d-training.schedule_epochs=4"
    assert layout.run("demo", other.name, 0) != layout.run("demo", row.name, 0)
    assert layout.store_of(other) == layout.store_of(row)
    assert layout.database_of(other) == layout.database_of(row)
    assert other.training.schedule_epochs == 4


def test_a_shorter_schedule_shortens_a_row_that_stops_early_too():
    """Ego4D's rows stop after 20 of 25 epochs: of two none is left to go on to."""
    assert load_experiment("ego4d_slowfast").training.epochs == 20
    short = load_experiment("ego4d_slowfast", overrides=["training.schedule_epochs=2"])
    assert short.training.epochs == 2


def test_it_says_what_departs_and_is_not_comparable():
    row = load_experiment("thumos14_i3d")
    assert row.comparable
    assert row.departs == ()
    other = load_experiment("thumos14_i3d", overrides=["training.lr=0.5", "data.videos=3"])
    assert other.departs == ("data.videos: None -> 3", "training.lr: 0.0001 -> 0.5")
    assert not other.comparable
    assert other.released is None


def test_a_value_that_is_the_rows_own_departs_from_nothing():
    row = load_experiment("thumos14_i3d")
    same = load_experiment("thumos14_i3d", overrides=[f"training.lr={row.training.lr}"])
    assert same.departs == ()
    assert same.comparable


@pytest.mark.parametrize(
    "what", ["training.threads=1", "training.first_eval_epoch=0", "training.cuda_graphs=true"]
)
def test_what_changes_no_meaning_departs_from_nothing(what):
    assert load_experiment("thumos14_i3d", overrides=[what]).departs == ()


def test_how_steps_reach_a_gpu_outdates_no_training():
    """As little a part of a run as which device it is."""
    launched, recorded = (
        load_experiment("thumos14_i3d", overrides=[f"training.cuda_graphs={value}"])
        for value in ("false", "true")
    )
    assert recorded.training.cuda_graphs
    made = keys.record("train", launched, {"seed": "0"})
    assert keys.changes("train", recorded, made) == []
    assert keys.values("train", recorded) == keys.values("train", launched)


def test_a_row_of_another_params_folder_says_what_departs_from_the_projects(tmp_path):
    shutil.copytree(PARAMS, tmp_path / "params")
    same = load_experiment("thumos14_i3d", params=tmp_path / "params")
    assert same.departs == ()
    path = tmp_path / "params/experiments/thumos14_i3d.yaml"
    path.write_text(path.read_text().replace("attention_window: 19", "attention_window: 9"))
    other = load_experiment("thumos14_i3d", params=tmp_path / "params")
    assert other.departs == ("model.attention_window: 19 -> 9",)
    assert not other.comparable
    assert other.name == "thumos14_i3d"


def test_rows_that_are_fused_stay_together():
    nouns = load_experiment("epic_noun_slowfast", "demo", overrides=["data.videos=4"])
    verbs = load_experiment("epic_verb_slowfast", "demo", overrides=["data.videos=4"])
    assert nouns.actions_with == verbs.name


def test_a_long_difference_is_a_digest():
    many = [f"training.lr={k}.0" for k in range(1, 9)]
    name = load_experiment("thumos14_i3d", overrides=many).name
    assert len(name) < 40
    assert name != load_experiment("thumos14_i3d", overrides=many[:-1]).name


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochz=4", "training.epochz: unknown key"),
        ("training.lr", "expected KEY=VALUE"),
        ("lr=1", "KEY one of data.*, model.*"),
        ("dataset.num_classes=3", "KEY one of data.*, model.*"),
        ("training.lr=[", "not readable as YAML"),
        ("data.videos=0", "greater than 0"),
        # which the first evaluation would find, after hours of training
        ("evaluation.tiou=[0.3,1.4]", "expected one or more numbers above 0, at most 1"),
        ("evaluation.tiou=[]", "expected one or more numbers above 0, at most 1"),
        ("evaluation.recall_top_k=[0]", "expected whole numbers from 1 on"),
    ],
)
def test_a_value_that_cannot_be_set_is_said_in_one_line(override, words):
    with pytest.raises(InputError, match=words.replace("*", r"\*")) as caught:
        load_experiment("thumos14_i3d", overrides=[override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["train", "detect"])
def test_videos_left_out_outdate_what_read_all_of_them(stage):
    row = load_experiment("thumos14_i3d", "demo")
    few = load_experiment("thumos14_i3d", "demo", overrides=["data.videos=3"])
    made = keys.record(stage, row, {})
    assert keys.changes(stage, few, made) == ["data.videos: None -> 3"]
    assert keys.changes("evaluate", few, keys.record("evaluate", row, {})) == ["videos: None -> 3"]


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_nothing_differs_from_itself(value):
    assert differences(value, value) == []


@given(VALUES, VALUES)
def test_what_differs_is_told(then, now):
    assert bool(differences({"a": then}, {"a": now})) == (
        _without_nothing(then) != _without_nothing(now)
    )


def _without_nothing(value):
    """A key that is absent, and one of None, are the same: a param that is not set."""
    if not isinstance(value, dict):
        return value
    return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}


@pytest.mark.parametrize("text", ["1:30", "2020-01-01", "012", ".inf", "1_000", "yes", "no"])
def test_what_yaml_would_take_for_another_number_stays_a_text(text):
    """To YAML 1.1 the first is 90, the third 10."""
    assert parsed_yaml(text, "here") == text


@pytest.mark.parametrize("text", ["1e-4", "-3", "0.5", "[0.5, 2]", "true", "{a: 1}"])
def test_what_json_knows_is_what_it_is(text):
    expected = {"1e-4": 1e-4, "-3": -3, "0.5": 0.5, "[0.5, 2]": [0.5, 2], "true": True}
    assert parsed_yaml(text, "here") == expected.get(text, {"a": 1})


@pytest.mark.parametrize(
    "text", ["{a: 1, a: 2}", "a: &x [*x]", "? [a]\n: b", "9" * 5000, "[" * 500]
)
def test_what_has_no_plain_meaning_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="here: not readable as YAML"):
        parsed_yaml(text, "here")
