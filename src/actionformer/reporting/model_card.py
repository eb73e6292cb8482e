"""A model card per row: what it was trained on, how it scores, how to load it.

Markdown with the header that the Hugging Face Hub reads
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from actionformer import provenance
from actionformer.reporting import table_forms, tables
from actionformer.reporting.tables import Row

PAPER = "https://arxiv.org/abs/2202.07925"
# of the arguments of `predict` that differ from video to video
UNITS = {
    "duration": "the video's seconds",
    "fps": "the video's frames per second",
    "stride": "frames per step",
}

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
    lines += ["", *_results(row), "", *_per_class(classes)]
    lines += ["", *_data(row), "", *_training(row), "", *_loading(row)]
    return "\n".join(lines) + "\n"


def _header(row: Row, remark: str) -> dict[str, Any]:
    """What the Hub reads: licence, tags, and the score."""
    experiment, last = row.experiment, tables.records(row)[-1]
    header: dict[str, Any] = {"license": "other", "license_name": "that-of-the-data"}
    if experiment.dataset.homepage:
        header["license_link"] = experiment.dataset.homepage
    dataset = experiment.dataset.name
    if remark:
        dataset += f", {experiment.edition} edition"
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
        "| metric | published | here | difference | tolerance |",
        "|---|---:|---:|---:|---:|",
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
        ]
        lines.append(f"| {' | '.join(values)} |")
    for key in row.runs[0].percent:
        if key.startswith("recall_"):
            mean = tables.cell(statistics.fmean(row.values(key)))
            lines.append(f"| {tables.recall_heading(key)} | | {mean} | | |")
    return lines


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
    pinned = "as pinned in `data.dvc`"
    if not lineage["pinned"]:
        pinned = f"**not** {pinned}"
    lines = [
        "## Data",
        "",
        f"- data set: {dataset.name}{homepage}",
        f"- licence: {dataset.licence}",
        f"- features: `{experiment.data.features}`, {experiment.features.dim} channels",
        f"- trained on subset `{dataset.train_subset}`, evaluated on `{dataset.eval_subset}`",
        f"- version `{lineage['data_version']}`, {pinned}; files:",
        "",
        "| file | md5 |",
        "|---|---|",
    ]
    for path, md5 in sorted(lineage["files"].items()):
        lines.append(f"| `{path}` | `{md5}` |")
    return lines


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
    """How to use the weights: arguments that are known, and by name what every video has."""
    features = row.experiment.features
    if row.experiment.data.loader == "resize":
        arguments, own = "duration=duration", ["duration"]
    else:
        parts, own = [], []
        for name, value in {"fps": features.fps, "stride": features.stride_frames}.items():
            if value is None:
                own.append(name)
            parts.append(f"{name}={name if value is None else f'{value:g}'}")
        arguments = ", ".join(parts)
    units = " and ".join(f"`{name}`: {UNITS[name]}" for name in own)
    if units:
        units = f"; {units}"
    weights = f"seed{row.runs[0].seed}/model.pt"
    return [
        "## Use",
        "",
        "```python",
        "from actionformer import predict",
        "",
        f'detections = predict("{weights}", "video.npy", {arguments})',
        "```",
        "",
        f"`video.npy` holds an array of shape (steps, {features.dim}){units}. The weights are "
        "averaged over training (EMA); the file holds tensors and plain values alone and loads "
        "with `weights_only=True`.",
    ]
