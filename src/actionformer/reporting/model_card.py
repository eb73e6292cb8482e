"""A model card per row: what it was trained on, how it scores, how to load it.

Markdown with the header that the Hugging Face Hub reads
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from actionformer import provenance
from actionformer.params.dataset import Dataset
from actionformer.reporting import table_forms, tables
from actionformer.reporting.tables import Row

PAPER = "https://arxiv.org/abs/2202.07925"
# of the arguments of `predict` that differ from video to video: an example, and what it is
EXAMPLES = {
    "duration": ("60.0", "the video's seconds"),
    "fps": ("30.0", "the video's frames per second"),
    "stride": ("16.0", "frames per step"),
}
# licences that the Hub has a name for
LICENCES = {"Apache-2.0": "apache-2.0", "CC BY-NC 4.0": "cc-by-nc-4.0"}
# of those that it has none for
NO_NAME = "that-of-the-data"
# figures that the card shows: file -> what it is
PICTURES = {
    "map_tiou": "mAP at every threshold",
    "false_positives": "what the best detections are, right or wrong",
    "class_ap": "AP of every class",
}
CITATION = """\
@inproceedings{zhang2022actionformer,
  title = {ActionFormer: Localizing Moments of Actions with Transformers},
  author = {Zhang, Chen-Lin and Wu, Jianxin and Li, Yin},
  booktitle = {European Conference on Computer Vision},
  year = {2022},
}"""

# label -> {"instances", "ap": per threshold}, as metrics.json has it
Classes = Mapping[str, Mapping[str, Any]]


def model_card(row: Row, classes: Sequence[Classes], *, remark: str) -> str:
    """The card of a row, with all its seeds.

    Args:
        classes: those of every seed.
        remark: why the edition's numbers don't compare; empty where they do.
    """
    experiment = row.experiment
    header = yaml.safe_dump(_header(row, remark), sort_keys=False, allow_unicode=True)
    lines = [
        "---",
        header.rstrip(),
        "---",
        "",
        f"# ActionFormer on {experiment.dataset.name} ({experiment.row})",
        "",
        f"Finds actions in untrimmed video: [ActionFormer]({PAPER}) (ECCV 2022), trained from "
        "scratch on features.",
    ]
    if remark:
        lines += ["", f"**{experiment.edition} edition.** {remark}"]
    for departure in experiment.departs:
        lines += ["", f"**Departs from the row's params:** {departure}."]
    lines += ["", *_results(row), "", *_pictures(), "", *_per_class(classes)]
    lines += ["", *_loading(row), "", *_intended_use(row), "", *_limitations(row)]
    lines += ["", *_data(row), "", *_training(row), "", *_citation()]
    return "\n".join(lines) + "\n"


def on_the_hub(card: str) -> str:
    """A card whose program loads the weights from the folder that it lies in."""
    start = card.index("```python\n")
    end = card.index("```\n", start + 1) + len("```\n")
    program = card[start:end]
    (call,) = re.findall(r'predict\("[^"]*", "video.npy", (.*)\)', program)
    told = [
        "```python",
        "import numpy as np",
        "from actionformer import ActionFormer",
        "",
        'model = ActionFormer.from_pretrained(".")  # the folder of this card',
        f'detections = model.predict(np.load("video.npy"), {call})',
        "```",
        "",
    ]
    return card[:start] + "\n".join(told) + card[end:]


def _header(row: Row, remark: str) -> dict[str, Any]:
    """What the Hub reads: licence, tags, and the score."""
    experiment, last = row.experiment, tables.records(row)[-1]
    header: dict[str, Any] = {"license": _hub_licence(experiment.dataset)}
    if header["license"] == "other":
        header["license_name"] = NO_NAME
        if experiment.dataset.homepage:
            header["license_link"] = experiment.dataset.homepage
    dataset = experiment.dataset.name
    if remark:
        dataset += f", {experiment.edition} edition"
    if experiment.departs:
        dataset += f" (with {'; '.join(experiment.departs)})"
    score = {"type": "mAP", "name": last["metric"], "value": round(last["reproduced"], 2)}
    result = {
        "task": {"type": "temporal-action-localization"},
        "dataset": {"name": dataset, "type": experiment.data.dataset},
        "metrics": [score],
    }
    return header | {
        "library_name": "pytorch",
        "pipeline_tag": "video-classification",
        "tags": [
            "temporal-action-localization",
            "temporal-action-detection",
            "actionformer",
            experiment.edition,
        ],
        "metrics": ["mAP"],
        "model-index": [{"name": experiment.name, "results": [result]}],
    }


def _hub_licence(dataset: Dataset) -> str:
    """The Hub's name of the licence of a data set, and so of what was trained on it."""
    for licence, name in LICENCES.items():
        if dataset.licence.startswith(licence):
            return name
    return "other"


def _results(row: Row) -> list[str]:
    """Every cell of the results table."""
    cells = tables.records(row)
    first = cells[0]
    seeds = f"{len(row.runs)} seed{'s' if len(row.runs) > 1 else ''}"
    counted = f"{first['videos']} videos, {first['instances']} instances; {first['protocol']}"
    remark = f"; {first['remark']}" if first["remark"] else ""
    lines = [
        "## Results",
        "",
        f"{counted}; loading: {first['loading']}{remark}. In percent; {seeds}.",
        "",
        "| metric | published | here | difference | tolerance | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for record in cells:
        here = tables.cell(record["reproduced"])
        if record["std"] is not None:
            here += f" ± {record['std']:.2f}"
        difference, tolerance = record["difference"], record["tolerance"]
        values = [
            record["metric"],
            tables.cell(record["published"]),
            here,
            "n/a" if difference is None else f"{difference:+.2f}",
            "n/a" if tolerance is None else f"± {tolerance:.2f}",
            record["verdict"] or "n/a",
        ]
        lines.append(f"| {' | '.join(values)} |")
    for key in row.runs[0].percent:
        if key.startswith("recall_"):
            mean = tables.cell(statistics.fmean(row.values(key)))
            lines.append(f"| {tables.recall_heading(key)} | | {mean} | | | |")
    return lines


def _pictures() -> list[str]:
    """Links to the figures that lie beside the card."""
    return [f"![{text}](figures/{name}.svg)" for name, text in PICTURES.items()]


def _per_class(classes: Sequence[Classes]) -> list[str]:
    """AP of every class, mean over seeds and thresholds, best first."""
    scores = {}
    for label in classes[0]:
        ap_U = np.mean([of_seed[label]["ap"] for of_seed in classes], axis=0)
        scores[label] = statistics.fmean(ap_U.tolist())
    lines = [
        "### Per class",
        "",
        "| class | instances | AP, mean over tIoU |",
        "|---|---:|---:|",
    ]
    for label in sorted(scores, key=lambda label: -scores[label]):
        instances = classes[0][label]["instances"]
        lines.append(f"| {table_forms.in_cell(label)} | {instances} | {100 * scores[label]:.2f} |")
    return lines


def _data(row: Row) -> list[str]:
    experiment, dataset = row.experiment, row.experiment.dataset
    lineage = row.runs[0].lineage
    homepage = f" ({dataset.homepage})" if dataset.homepage else ""
    version = tables.data_version(experiment, row.runs)
    if version != tables.OWN_FILES:
        negation = "" if lineage["pinned"] else "**not** "
        version = f"version `{version}`, {negation}as pinned in `data.dvc`"
    lines = [
        "## Data",
        "",
        f"- data set: {dataset.name}{homepage}",
        f"- licence, of the data and so of the weights: {_licence_text(dataset)}",
        *([f"- to cite: {dataset.citation}"] if dataset.citation else []),
        f"- features: `{experiment.data.features}`, {experiment.features.dim} channels",
        f"- trained on subset `{dataset.train_subset}`, evaluated on `{dataset.eval_subset}`",
        f"- {version}; files:",
        "",
        "| file | md5 |",
        "|---|---|",
    ]
    for path, md5 in sorted(lineage["files"].items()):
        lines.append(f"| `{path}` | `{md5}` |")
    return lines


def _licence_text(dataset: Dataset) -> str:
    """A data set's licence in its publisher's words, and as the header of the card names it."""
    name = _hub_licence(dataset)
    return f"{dataset.licence} (`{NO_NAME if name == 'other' else name}`)"


def _training(row: Row) -> list[str]:
    """Who trained which epochs, a line per seed and session."""
    training = row.experiment.training
    lines = [
        "## Training",
        "",
        f"{training.epochs} epochs, batch size {training.batch_size}, learning rate "
        f"{training.lr:g}, {training.threads} CPU thread(s); every value in `params.yaml`.",
        "",
        "| seed | epochs | commit | hardware | torch | MLflow run |",
        "|---|---|---|---|---|---|",
    ]
    for run in row.runs:
        for session in run.lineage["trained_by"]:
            environment = session["environment"]
            cells = [
                str(run.seed),
                f"{session['first_epoch'] + 1}-{session['last_epoch'] + 1}",
                provenance.commit_text(session["git"]),
                f"{session['device']}, {environment['processor']}",
                environment["torch"],
                run.mlflow_name,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _loading(row: Row) -> list[str]:
    """How to use the weights: a program that runs, with examples of what every video has."""
    features = row.experiment.features
    known: dict[str, float | None] = {"fps": features.fps, "stride": features.stride_frames}
    if row.experiment.data.loader == "resize":
        known = {"duration": None}
    arguments, own = [], []
    for name, value in known.items():
        example, what = EXAMPLES[name]
        arguments.append(f"{name}={example if value is None else f'{value:g}'}")
        if value is None:
            own.append(f"`{name}` is {what}")
    units = f"; {' and '.join(own)}" if own else ""
    weights = f"seed{row.runs[0].seed}/model.pt"
    shape = f"({features.dim}, steps)" if features.transposed else f"(steps, {features.dim})"
    return [
        "## Use",
        "",
        "```python",
        "from actionformer import predict",
        "",
        f'detections = predict("{weights}", "video.npy", {", ".join(arguments)})',
        "```",
        "",
        f"`video.npy` holds an array of shape {shape}{units}. The weights are "
        "averaged over training (EMA); the file holds tensors and plain values alone and loads "
        "with `weights_only=True`.",
    ]


def _intended_use(row: Row) -> list[str]:
    """What the weights are for."""
    experiment = row.experiment
    return [
        "## Intended use",
        "",
        "Research on temporal action localization: to hold other methods against this one, and to "
        f"find the actions of {experiment.dataset.name} in other videos, by features of the same "
        f"extractor (`{experiment.data.features}`) at the same stride.",
    ]


def _limitations(row: Row) -> list[str]:
    """What the weights cannot do."""
    experiment = row.experiment
    lines = [
        "## Limitations",
        "",
        f"- It finds the classes in the table above and nothing else, in videos like those of "
        f"{experiment.dataset.name}.",
        "- It reads features, not frames: those of another extractor, or at another stride, mean "
        "nothing to it, and it does not notice.",
        "- A score ranks detections; it is no probability (`figures/calibration.svg`).",
        "- A seed is one draw: the deviation over seeds, where there are several, stands in the "
        "table of results.",
        "- It was not tested for the recognition of persons or for decisions about them.",
    ]
    if experiment.inference.use_classifier:
        lines.append(
            "- It is class-agnostic: labels come from a classifier of whole videos "
            "(`predict(..., classifier=...)`), without which every detection is called `action`."
        )
    return lines


def _citation() -> list[str]:
    return ["## Citation", "", "```bibtex", CITATION, "```"]
