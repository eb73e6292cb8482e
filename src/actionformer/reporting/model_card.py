"""A model card per row: what it was trained on, how it scores, how to load it.

Markdown with the header that the Hugging Face Hub reads (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import yaml

from actionformer import provenance
from actionformer.reporting import tables
from actionformer.reporting.tables import Row

PAPER = "https://arxiv.org/abs/2202.07925"


def model_card(row: Row, classes: Mapping[str, Mapping[str, Any]], *, remark: str) -> str:
    """The card of a row, with all its seeds.

    Args:
        classes: label -> {"instances", "ap": mean over seeds per threshold}.
        remark: why the edition's numbers don't compare; empty where they do.
    """
    experiment, cells = row.experiment, tables.records(row)
    remark_of_data = f"; {cells[0]['remark']}" if cells[0]["remark"] else ""
    title = f"ActionFormer on {experiment.dataset.name} ({experiment.row})"
    lines = [
        "---",
        yaml.safe_dump(_header(row, remark), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {title}",
        "",
        f"Finds actions in untrimmed video: [ActionFormer]({PAPER}) (ECCV 2022), trained from scratch on features.",
        *(["", f"**{experiment.edition} edition.** {remark}"] if remark else []),
        "",
        "## Results",
        "",
        f"{cells[0]['videos']} videos, {cells[0]['instances']} instances; {cells[0]['protocol']}; "
        f"loading: {cells[0]['loading']}{remark_of_data}. In percent; "
        f"{len(row.runs)} seed{'s' if row.runs[1:] else ''}.",
        "",
        "| metric | published | here | difference | tolerance |",
        "|---|---:|---:|---:|---:|",
    ]
    for record in cells:
        spread = "" if record["std"] is None else f" ± {record['std']:.2f}"
        difference = "n/a" if record["difference"] is None else f"{record['difference']:+.2f}"
        allowed = "n/a" if record["tolerance"] is None else f"± {record['tolerance']:.2f}"
        values = [tables.cell(record["published"]), tables.cell(record["reproduced"]) + spread, difference, allowed]
        lines.append(f"| {record['metric']} | {' | '.join(values)} |")
    for key in (key for key in row.runs[0].percent if key.startswith("recall_")):
        mean = tables.cell(statistics.fmean(row.values(key)))
        lines.append(f"| {tables.recall_heading(key)} | | {mean} | | |")
    lines += ["", "### Per class", "", "| class | instances | AP, mean over tIoU |", "|---|---:|---:|"]
    lines += [
        f"| {tables.in_cell(label)} | {entry['instances']} | {100 * statistics.fmean(entry['ap']):.2f} |"
        for label, entry in sorted(classes.items(), key=lambda item: -statistics.fmean(item[1]["ap"]))
    ]
    return "\n".join([*lines, "", *_data(row), "", *_training(row), "", *_loading(row)]) + "\n"


def _header(row: Row, remark: str) -> dict[str, Any]:
    experiment, last = row.experiment, tables.records(row)[-1]
    return {
        "license": "other",
        "license_name": "that-of-the-data",
        **({"license_link": experiment.dataset.homepage} if experiment.dataset.homepage else {}),
        "library_name": "pytorch",
        "pipeline_tag": "video-classification",
        "tags": ["temporal-action-localization", "temporal-action-detection", "actionformer", experiment.edition],
        "metrics": ["mAP"],
        "model-index": [
            {
                "name": experiment.name,
                "results": [
                    {
                        "task": {"type": "temporal-action-localization"},
                        "dataset": {
                            "name": experiment.dataset.name + ("" if not remark else f", {experiment.edition} edition"),
                            "type": experiment.data.dataset,
                        },
                        "metrics": [
                            {"type": "mAP", "name": last["metric"], "value": round(last["reproduced"], 2)},
                        ],
                    }
                ],
            }
        ],
    }


def _data(row: Row) -> list[str]:
    experiment = row.experiment
    lineage = row.runs[0].lineage
    pinned = "as pinned in `data.dvc`" if lineage["pinned"] else "**not** as pinned in `data.dvc`"
    lines = [
        "## Data",
        "",
        f"- data set: {experiment.dataset.name}"
        + (f" ({experiment.dataset.homepage})" if experiment.dataset.homepage else ""),
        f"- licence: {experiment.dataset.licence}",
        f"- features: `{experiment.data.features}`, {experiment.features.dim} channels",
        f"- trained on subset `{experiment.dataset.train_subset}`, evaluated on `{experiment.dataset.eval_subset}`",
        f"- version `{lineage['data_version']}`, {pinned}; files:",
        "",
        "| file | md5 |",
        "|---|---|",
    ]
    return [*lines, *(f"| `{path}` | `{md5}` |" for path, md5 in sorted(lineage["files"].items()))]


def _training(row: Row) -> list[str]:
    """Who trained which epochs, a line per seed and session."""
    experiment = row.experiment
    lines = [
        "## Training",
        "",
        f"{experiment.training.epochs} epochs, batch size {experiment.training.batch_size}, learning rate "
        f"{experiment.training.lr:g}, {experiment.training.threads} CPU thread(s); every value in `params.yaml`.",
        "",
        "| seed | epochs | commit | hardware | torch | MLflow run |",
        "|---|---|---|---|---|---|",
    ]
    for run in row.runs:
        for session in run.lineage["trained_by"]:
            epochs = f"{session['first_epoch'] + 1}-{session['last_epoch'] + 1}"
            hardware = f"{session['device']}, {session['environment']['processor']}"
            cells = [
                str(run.seed),
                epochs,
                provenance.commit_text(session["git"]),
                hardware,
                session["environment"]["torch"],
                run.mlflow_name,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _loading(row: Row) -> list[str]:
    features, resized = row.experiment.features, row.experiment.data.loader == "resize"
    grid = {"fps": features.fps, "stride": features.stride_frames}
    # what differs from video to video stands there by name
    known = ", ".join(f"{name}={name if value is None else f'{value:g}'}" for name, value in grid.items())
    own = "duration" if resized else ", ".join(name for name, value in grid.items() if value is None)
    units = {"duration": "the video's seconds", "fps": "the video's frames per second", "stride": "frames per step"}
    return [
        "## Use",
        "",
        "```python",
        "from actionformer import predict",
        "",
        f'detections = predict("seed{row.runs[0].seed}/model.pt", "video.npy", '
        + ("duration=duration)" if resized else f"{known})"),
        "```",
        "",
        f"`video.npy` holds an array of shape (steps, {features.dim})"
        + (f"; {' and '.join(f'`{name}`: {units[name]}' for name in own.split(', '))}" if own else "")
        + ". The weights are averaged over training (EMA); the file holds tensors and plain values alone and loads "
        "with `weights_only=True`.",
    ]
