"""What people look at: tables in four languages, a report that works without any network."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import random
import re
import shutil
import subprocess

import numpy as np
import pytest

from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.params.experiment import EvaluationParams
from actionformer.params.files import load_experiment
from actionformer.reporting import report, table_forms, tables
from actionformer.reporting.figures import primitives, what_happens_when, why_wrong
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure
from actionformer.reporting.figures.what_happens_when import chosen_videos
from actionformer.reporting.verdict import tolerance, verdict
from actionformer.stages.figures import report_files
from browser import DESKTOP, PHONE, draw_everything, opened, without_ink

CLASSES = ["jump", "run & <fall>", "throw"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Detections of twelve videos: often right, often early, sometimes of a wrong class."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("detector")
    database, results = {}, {}
    for v in range(12):
        annotations, found = [], []
        for start in range(2, 90, 11):
            segment, label = [float(start), start + rng.uniform(3, 8)], rng.choice(CLASSES)
            annotations.append({"segment": segment, "label": label})
            early, sure = rng.choice([0, 0, 2, 4]), rng.uniform(0.2, 0.9)
            shifted = [segment[0] - early, segment[1] - early]
            found.append(
                {
                    "segment": shifted,
                    "label": rng.choice([label, label, label, "jump"]),
                    "score": sure,
                }
            )
            found.append({"segment": [start + 6.0, start + 9.0], "label": label, "score": sure / 3})
        database[f"video_{v:02d}"] = {
            "subset": "test",
            "duration": 100.0,
            "annotations": annotations,
        }
        results[f"video_{v:02d}"] = found if v else []
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (folder / "detections.json").write_text(json.dumps({"results": results}))
    report_files(
        folder / "annotations.json",
        folder / "detections.json",
        EvaluationParams(tiou=(0.3, 0.5, 0.7), use_blocked_list=True),
        subset="test",
        label_field="label",
        out=folder / "report.html",
    )
    return folder


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([], "expected a JSON object with the key 'results'"),
        ({"results": []}, "expected a JSON object with the key 'results'"),
        ({"results": {"video_00": None}}, "video 'video_00': expected a list of detections"),
        (
            {"results": {"video_00": ["x"]}},
            "video 'video_00': expected a list of detections, each an object",
        ),
        (
            {"results": {"video_00": [{"segment": [1, 2], "label": "jump", "score": "0.5"}]}},
            "a time or score that is str",
        ),
        (
            {"results": {"video_00": [{"segment": [1, 2], "label": "jump"}]}},
            "video 'video_00': one lacks 'score'",
        ),
    ],
)
def test_malformed_detections_are_one_line(detector, tmp_path, results, words):
    (tmp_path / "d.json").write_text(json.dumps(results))
    params = EvaluationParams(tiou=(0.5,), use_blocked_list=True)
    options = {"subset": "test", "label_field": "label", "out": tmp_path / "report.html"}
    with pytest.raises(InputError, match=re.escape(words) if "'" not in words else words):
        report_files(detector / "annotations.json", tmp_path / "d.json", params, **options)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("found", [[], [{"segment": [2, 6], "label": "jump", "score": 0.0}]])
def test_nothing_detected_or_nothing_believed_still_makes_a_report(detector, tmp_path, found):
    (tmp_path / "d.json").write_text(json.dumps({"results": {"video_00": found}}))
    params = EvaluationParams(tiou=(0.5,), use_blocked_list=True)
    options = {"subset": "test", "label_field": "label", "out": tmp_path / "report.html"}
    said = report_files(detector / "annotations.json", tmp_path / "d.json", params, **options)
    assert said[0].startswith("average mAP ")
    with opened(tmp_path / "report.html") as page:
        draw_everything(page)


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_every_figure_has_ink_and_fits_the_screen(detector, size, scheme):
    with opened(detector / "report.html", size=size, scheme=scheme) as page:
        # nothing was trained: no curves of training
        assert draw_everything(page) == len(layout.FIGURES) - 2
        assert without_ink(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (shown == "rgb(255, 255, 255)") == (scheme == "light")


def test_long_names_leave_room_for_bars_on_a_phone(tmp_path):
    """They took the whole width: bars had a few pixels, and their numbers were cut off."""
    names = ["WALKING_UPSTAIRS as WALKING_DOWNSTAIRS", "SIT as STAND"]
    values = [{"pair": name, "count": 4} for name in names]
    lanes, length = primitives.lanes("pair", names), primitives.number("count", "detections")
    start = primitives.base_of_lanes(18)
    spec = primitives.chart(values, {"type": "bar"}, start=start, x=length, y=lanes)
    figure = Figure("confusions", "Confused classes", "Which for which.", spec)
    path = tmp_path / "report.html"
    section = report.Section("row", "ROW", [], [figure])
    path.write_text(report.page("One", lead="", results=[], sections=[section]))
    with opened(path, size=PHONE) as page:
        draw_everything(page)
        bar = page.locator("g.mark-rect path").first.bounding_box()
        assert bar["width"] > PHONE["width"] / 4


def test_figures_answer_to_hovering_choosing_and_zooming(detector):
    with opened(detector / "report.html") as page:
        draw_everything(page)
        page.locator("figure.class_ap g.mark-rect path").first.hover()
        assert "AP (%)" in page.locator("#vg-tooltip-element.visible").inner_text()

        timelines = page.locator("figure.timelines")
        bars = timelines.locator("g.mark-rect path")
        video, only, score = (
            timelines.locator(kind) for kind in ("select >> nth=0", "select >> nth=1", "input")
        )
        assert video.input_value() == "video_00"  # the worst: nothing was detected there
        assert bars.count() == 1 + 8  # the video and its ground truth
        video.select_option("video_05")
        everything = bars.count()
        assert everything > 1 + 8
        score.fill("0")
        assert bars.count() > everything
        only.select_option("jump")
        assert 0 < bars.count() < everything
        only.select_option("all")
        before = timelines.inner_text()  # with the labels of the axis
        timelines.locator("svg.marks").hover()
        page.mouse.wheel(0, -400)
        page.wait_for_function(
            "text => document.querySelector('.timelines').innerText !== text", arg=before
        )


def test_a_report_says_which_row_is_shown_and_can_be_linked_to(detector, tmp_path):
    bar = {
        "data": {"values": [{"x": 1}]},
        "mark": "bar",
        "encoding": {"x": {"field": "x", "type": "quantitative"}},
    }
    drawn = [Figure("map_tiou", "A bar", "It is one long.", bar)]
    sections = [
        report.Section(name, name.upper(), [("seeds", "0")], drawn) for name in ("first", "second")
    ]
    page_file = tmp_path / "two.html"
    page_file.write_text(report.page("Two", lead="", results=[], sections=sections))
    with opened(page_file) as page:
        assert page.locator("section.row:visible h3").all_inner_texts() == ["FIRST"]
        page.select_option("#row", "second")
        assert page.locator("section.row:visible h3").all_inner_texts() == ["SECOND"]
        assert page.url.endswith("#second")


def test_names_from_data_cannot_break_out_of_the_page(tmp_path):
    """A class called </script><script> is text."""
    evil = "</script><script>document.title='taken'</script>"
    section = report.Section(
        "row", evil, [(evil, evil)], [Figure("map_tiou", evil, evil, {"title": evil})]
    )
    text = report.page(evil, lead=evil, results=[], sections=[section])
    assert "<script>document" not in text
    assert text.count("<script") == 4  # two of data, the library, the page's own


# ------------------------------------------------------------------------------------------ tables

SESSION = {
    "first_epoch": 0,
    "last_epoch": 34,
    "git": {"commit": "c0ffee0123456789", "dirty": False},
    "environment": {"processor": "a processor", "torch": "2.13.0"},
    "device": "cpu",
}
LINEAGE = {
    "data_version": "0123456789abcdef.dir",
    "pinned": False,
    "identity": "fedcba9876543210",
    "trained_by": [SESSION],
}


def test_a_table_tells_the_locks_of_its_runs_and_never_that_of_who_makes_it():
    rows, _ = table([66.0, 67.0])
    told = {"first_epoch": 0, "last_epoch": 34, "git": SESSION["git"], "device": "cpu"}
    lineages = []
    for train, evaluate in (("a" * 32, "b" * 32), ("a" * 32, "c" * 32)):
        session = told | {"environment": {"lock": train, "processor": "", "torch": ""}}
        evaluated = {"git": SESSION["git"], "lock": evaluate}
        lineages.append(LINEAGE | {"trained_by": [session], "evaluated_by": evaluated})
    runs = []
    for run, lineage in zip(rows[0].runs, lineages, strict=True):
        runs.append(dataclasses.replace(run, lineage=lineage))
    row = dataclasses.replace(rows[0], runs=runs)
    assert tables.locks(runs) == ["a" * 32, "b" * 32, "c" * 32]
    made = tables.table_of("t", "T", [row], edition="paper", remark="")
    assert "`aaaaaaaa, bbbbbbbb, cccccccc`" in table_forms.as_markdown(made)
    assert provenance.lock_md5()[:8] not in table_forms.as_markdown(made)


def test_a_table_tells_which_commit_trained_which_epochs():
    """Once where the seeds have the same history, by seed where they don't."""
    again = SESSION | {
        "git": {"commit": "decade9876543210", "dirty": True},
        "first_epoch": 20,
        "device": "cuda:0",
    }
    resumed = LINEAGE | {"trained_by": [SESSION | {"last_epoch": 19}, again]}
    runs = []
    for seed, lineage in enumerate([LINEAGE, LINEAGE, resumed]):
        runs.append(tables.Run(seed, {}, 211, 3325, lineage, ""))
    assert tables.trained(runs[:2]) == "epochs 1-35: c0ffee012345, cpu"
    assert (
        tables.trained(runs[2:])
        == "epochs 1-20: c0ffee012345, cpu; epochs 21-35: decade987654 with changes, cuda:0"
    )
    assert tables.trained(runs).startswith("seed 0, epochs 1-35: c0ffee012345, cpu; seed 1, ")


@pytest.mark.parametrize(
    ("row", "loading", "words"),
    [
        ("ego4d_slowfast", "published", "published, windows of overlap 0, a tail can go unseen"),
        ("ego4d_slowfast", "corrected", "corrected, windows cover the whole video"),
        ("thumos14_i3d", "published", "published"),
        ("thumos14_i3d", "corrected", "corrected"),
    ],
)
def test_every_form_of_a_table_tells_how_videos_were_loaded(row, loading, words):
    """What was loaded, not what the data set's file says of it; the remark stands beside it."""
    experiment = load_experiment(row, "paper")
    data = experiment.data.model_copy(update={"loading": loading})
    experiment = experiment.model_copy(update={"data": data})
    percent = {key: 50.0 for _, key in tables.Row(experiment, []).metrics()}
    rows = [tables.Row(experiment, [tables.Run(0, percent, 10, 20, LINEAGE, "name")])]
    made = tables.table_of("t", experiment.dataset.name, rows, edition="paper", remark="")
    forms = [
        table_forms.as_markdown(made),
        table_forms.as_html(made),
        table_forms.as_latex(made),
        table_forms.as_csv(rows),
    ]
    assert all(words in form for form in forms)
    assert all("primary labels" in form for form in forms) == (row == "ego4d_slowfast")
    other = "corrected" if loading == "published" else "a tail"
    assert not any(other in form for form in forms)


def table(values, *, edition="paper", row="thumos14_i3d"):
    experiment = load_experiment(row, edition)
    keys = [f"mAP/{key}" for key in experiment.expect.published]
    runs = []
    for seed, value in enumerate(values):
        percent, name = dict.fromkeys(keys, value), f"seed{seed}-fedcba98"
        runs.append(tables.Run(seed, percent, 211, 3325, LINEAGE, name))
    checkpoint = tables.Released(dict.fromkeys(keys, 66.6), "", "released-fedcba98")
    rows = [tables.Row(experiment, runs, checkpoint)]
    remark = "" if experiment.comparable else "These are demo numbers."
    name, title = experiment.table, experiment.dataset.name
    return rows, tables.table_of(name, title, rows, edition=edition, remark=remark)


def test_a_table_says_the_same_in_every_language():
    rows, content = table([66.0, 67.0, 68.0])
    published = [f"{v:.2f}" for v in rows[0].experiment.expect.published.values()]
    said = {
        "md": table_forms.as_markdown(content),
        "html": re.sub(r"<[^>]+>", " ", table_forms.as_html(content)),
        "tex": table_forms.as_latex(content).replace(r"$\pm$", "±").replace(r"\_", "_"),
    }
    for language, text in said.items():
        for word in [
            *published,
            "67.00 ± 1.00",
            "66.60",
            "tolerance",
            "verdict",
            "undecided",
            "without video_test_0000270",
            "01234567",
        ]:
            assert word in text, (language, word)
    records = list(csv.DictReader(io.StringIO(table_forms.as_csv(rows))))
    assert [f"{float(r['published']):.2f}" for r in records] == published
    assert {r["mlflow_runs"] for r in records} == {"seed0-fedcba98 seed1-fedcba98 seed2-fedcba98"}
    assert float(records[-1]["difference"]) == pytest.approx(67 - float(published[-1]))


def test_cells_keep_what_their_language_reads_for_itself():
    _, content = table([66.0, 67.0])
    grid = dataclasses.replace(content.results, rows=[["RGB|Flow", "a < b & c_d", *["1.00"] * 6]])
    odd = dataclasses.replace(content, results=grid)
    assert "| RGB\\|Flow | a < b & c_d |" in table_forms.as_markdown(odd)
    assert "<td>a &lt; b &amp; c_d</td>" in table_forms.as_html(odd)
    assert r"RGB\textbar{}Flow & a \textless{} b \& c\_d" in table_forms.as_latex(odd)


def test_the_tolerance_is_students_prediction_interval():
    """Three seeds with a standard deviation of 1: t(0.975, 2) = 4.303, times sqrt(1 + 1 / 3)."""
    assert tolerance([66.0, 67.0, 68.0]) == pytest.approx(4.3027 * (4 / 3) ** 0.5, rel=1e-4)
    assert tolerance([66.0]) is None


@pytest.mark.parametrize(
    ("published", "values", "said"),
    [
        (66.8, [66.9, 67.0, 67.1], "reproduced"),  # 67.00 ± 0.50
        (66.0, [66.9, 67.0, 67.1], "not reproduced"),
        (66.0, [65.0, 67.0, 69.0], "undecided"),  # within ± 9.94, which would take anything
        (50.0, [65.0, 67.0, 69.0], "not reproduced"),
        (67.0, [67.0], "undecided"),
        (67.0, [67.0, 67.0, 67.0], "reproduced"),
    ],
)
def test_a_verdict_is_given_where_the_seeds_agree_and_withheld_where_noise_would_take_anything(
    published, values, said
):
    assert verdict(published, values) == said


def test_noisy_seeds_never_reproduce_a_number_and_good_ones_rarely_miss_their_own():
    """Of runs that are all drawn alike, the published one too, 95 % lie within the tolerance."""
    rng = np.random.default_rng(0)
    given = {spread: [] for spread in (0.05, 3.0)}
    for spread, said in given.items():
        for _ in range(2000):
            published, *seeds = rng.normal(60.0, spread, 4)
            said.append(verdict(published, seeds))
    assert given[0.05].count("not reproduced") / 2000 == pytest.approx(0.05, abs=0.02)
    assert given[0.05].count("undecided") == 0
    assert given[3.0].count("reproduced") / 2000 < 0.02


def test_a_table_tells_the_best_epoch_beside_the_last_and_calls_it_an_oracle():
    rows, _ = table([66.0, 67.0, 68.0])
    keys = [key for _, key in rows[0].metrics()]
    runs = []
    for run in rows[0].runs:
        best = dict.fromkeys(keys, run.percent[keys[0]] + 1)
        runs.append(dataclasses.replace(run, best=best))
    row = dataclasses.replace(rows[0], runs=runs)
    text = table_forms.as_markdown(tables.table_of("t", "T", [row], edition="paper", remark=""))
    assert "| best epoch (oracle) | 68.00 |" in text
    without = dataclasses.replace(row, runs=[*runs[:2], dataclasses.replace(runs[2], best=None)])
    assert all(record["best_epoch_oracle"] is None for record in tables.records(without))


def test_demo_tables_say_so_and_compare_nothing():
    _, content = table([90.0, 91.0], edition="demo")
    for text in (
        table_forms.as_markdown(content),
        table_forms.as_html(content),
        table_forms.as_latex(content),
    ):
        assert "These are demo numbers." in text
        assert "n/a" in text
        assert "tolerance" not in text
        assert "verdict" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path):
    parts = [
        table_forms.as_latex(table([66.0, 67.0, 68.0], row=row)[1])
        for row in ("thumos14_i3d", "epic_noun_slowfast")
    ]
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (tmp_path / "all.tex").write_text(head + "\n".join(parts) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined" not in done.stdout


# -------------------------------------------------------------------------------- figures in files


def test_every_figure_can_be_drawn_into_a_file(detector):
    """The report's specifications are the pictures'."""
    text = (detector / "report.html").read_text()
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', text)[1])
    for spec in specs.values():
        assert primitives.svg(spec).startswith("<svg")
    assert primitives.png(spec).startswith(b"\x89PNG")
    assert primitives.pdf(spec).startswith(b"%PDF")


def test_the_worst_videos_come_first_then_the_best(detector):
    from actionformer.data.annotations import load_database

    database = load_database(detector / "annotations.json")
    results = json.loads((detector / "detections.json").read_text())["results"]
    scored = {name: {"ap": v / 100} for v, name in enumerate(database.videos)}
    shown = chosen_videos(database, results, scored, first=["video_11"])
    assert [t.video.name for t in shown[:3]] == ["video_11", "video_00", "video_01"]
    assert shown[1].remark == "worst 1, nothing detected"
    assert shown[2].remark == "worst 2, AP 1 %"
    assert len(shown) == 12
    without = {name: found for name, found in results.items() if name != "video_03"}
    worst = chosen_videos(database, without, scored)[0]
    assert (worst.video.name, worst.remark) == ("video_03", "absent from the detections")
    with pytest.raises(InputError, match="no video 'other'; there are video_00, video_01"):
        chosen_videos(database, results, scored, first=["other"])


# ------------------------------------------------------------------------------ what everybody sees


def lab(color, seen):
    """A colour as CIELAB, seen through a 3 x 3 matrix of linear RGB."""
    srgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = (seen @ linear).clip(0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    relative = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira, Fernandes 2009: severity 1; and the luminance that a grey print keeps
SEEN = {
    "everything": np.eye(3),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "grey": np.tile([0.2126, 0.7152, 0.0722], (3, 1)),
}
PALETTES = {
    "kinds of error": why_wrong.KIND_COLORS,
    "timelines": (what_happens_when.COLORS["ground truth"], what_happens_when.COLORS["detected"]),
    "curves": (primitives.BLUE, primitives.ORANGE, primitives.PURPLE),
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_are_told_apart_by_everybody_and_in_grey(palette, seen):
    for one, other in itertools.combinations(PALETTES[palette], 2):
        distance = np.linalg.norm(lab(one, SEEN[seen]) - lab(other, SEEN[seen]))
        assert distance > 9, (one, other)


def test_every_chart_has_a_description_and_every_table_a_caption_and_scopes(detector):
    text = (detector / "report.html").read_text()
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', text)[1])
    for name, spec in specs.items():
        assert len(spec["description"]) > 40, name
    page = report.table_page(table([60.0, 61.0])[1])
    assert page.count("<caption") == page.count("<table>") > 0
    assert len(re.findall(r"<th[ >]", page)) == page.count('scope="col"') > 0


def test_a_bin_without_ground_truth_is_not_a_bin_of_zero():
    def entry(name, instances, score):
        edges = {"low": 0.0, "high": 1.0}
        scores = {"normalized_map": score, "missed": score}
        return {"name": name, "instances": instances, **edges, **scores}

    bins = [entry("XS", 0, None), entry("S", 3, 0.0)]
    known = {"normalized_map": 0.5, "bins": dict.fromkeys(why_wrong.CHARACTERISTICS, bins)}
    spec = why_wrong.sensitivity([EvaluatedRun(0, [], {}, known)]).spec
    said = {value["lane"]: value["said"] for value in spec["data"]["values"]}
    assert said["length XS: 0 to 1 s"] == "none (0)"
    assert said["length S: 0 to 1 s"] == "0.0 (3)"


def test_what_is_printed_is_drawn_without_being_scrolled_to(detector):
    with opened(detector / "report.html") as page:
        page.wait_for_function(
            "[...document.querySelectorAll('section.row:not([hidden]) .plot')]"
            ".every(plot => plot.dataset.ready)"
        )
        assert without_ink(page) == []


def test_a_bar_of_confused_classes_leads_to_its_video(detector):
    with opened(detector / "report.html") as page:
        draw_everything(page)
        bars = page.locator("figure.confusions g.mark-rect path")
        assert bars.count() > 0
        chooser = page.locator("figure.timelines select >> nth=0")
        before = chooser.input_value()
        for i in range(bars.count()):
            bars.nth(i).click()
            if chooser.input_value() != before:
                return
        raise AssertionError("no bar changed the video")
