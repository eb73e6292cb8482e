"""Files for others: submissions to challenges, the Hub, ONNX.

What is checked is written only once the check has passed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from actionformer import layout
from actionformer.data.detections import Results, read_results
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json, write_text
from actionformer.model import onnx_export
from actionformer.params.experiment import Experiment
from actionformer.params.files import as_yaml
from actionformer.reporting import model_card, submissions
from actionformer.reporting.submissions import Challenge
from actionformer.stages import inputs
from actionformer.training.checkpoint import load_model
from actionformer.training.weights import save_folder

# ------------------------------------------------------------------------------------- submissions


def export(
    challenge: Challenge,
    experiment: Experiment,
    seed: int,
    *,
    subset: str | None,
    detections: Path | None,
    external_data: str | None,
    levels: Sequence[int],
    out: Path,
) -> str:
    """Write a submission from a row's detections, or from those of a file; says what it wrote.

    EPIC takes the fused actions of a row of nouns. The videos are those of `subset`, by default the
    evaluated one. Detections without extent, which nothing can match, are left out.

    Raises:
        InputError: detections that the challenge would refuse; nothing is written then.
    """
    durations, classes = _challenge_videos(challenge, experiment, subset)
    evaluated = experiment.dataset.eval_subset
    if detections is None and subset not in (None, evaluated):
        wrong = f"a run's detections are of subset '{evaluated}'"
        raise InputError(f"{wrong}; for '{subset}' give those of `predict` with --detections")
    name = layout.actions(experiment) if challenge == "epic" else experiment.name
    path = detections or layout.run(experiment.edition, name, seed) / "detections.json"
    if challenge == "epic" and experiment.actions_with is None:
        wrong = "EPIC takes actions; name the row of nouns that is fused with verbs"
        raise InputError(f"{experiment.name}: {wrong}")
    results = read_results(path)
    found: Results = {
        video: [d for d in results.get(video, []) if submissions.has_extent(d)]
        for video in {**durations, **results}
    }
    if challenge == "activitynet":
        if external_data is None:
            external_data = f"features: {experiment.row}"
            if experiment.inference.use_classifier:
                external_data += "; scores of a video classifier"
        submission = submissions.activitynet(found, external_data=external_data)
    elif challenge == "epic":
        submission = submissions.epic(found, levels=levels)
    else:
        submission = submissions.ego4d(found)
    found_wrong = submissions.problems(challenge, submission, durations=durations, classes=classes)
    _refuse_invalid(path, found_wrong)
    write_json(out, submission, indent=None)
    count = sum(len(in_video) for in_video in found.values())
    return f"{out}: {count} detections in {len(found)} videos, valid for {challenge}"


def check_submission(
    challenge: Challenge, experiment: Experiment, path: Path, *, subset: str | None
) -> str:
    """Validate a submission against the videos of a subset; says that it is valid.

    Raises:
        InputError: what is not valid in it.
    """
    durations, classes = _challenge_videos(challenge, experiment, subset)
    content = read_object(path)
    wrong = submissions.problems(challenge, content, durations=durations, classes=classes)
    _refuse_invalid(path, wrong)
    return f"{path}: valid for {challenge}"


def _challenge_videos(
    challenge: Challenge, experiment: Experiment, subset: str | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Durations of the videos of a subset, by default the evaluated one, and the classes."""
    if experiment.dataset.format not in (challenge, "database"):
        dataset = experiment.dataset.name
        raise InputError(
            f"{experiment.name}: {dataset} is not what the challenge '{challenge}' is about"
        )
    path = layout.database_of(experiment)
    database = inputs.database_of(experiment)
    videos = database.subset(subset or experiment.dataset.eval_subset)
    if not videos:
        known = ", ".join(sorted({video.subset for video in database.videos.values()}))
        raise InputError(f"{path}: no video of subset '{subset}'; there are {known}")
    return {video.name: video.duration for video in videos}, database.classes


def _refuse_invalid(path: Path, found: Sequence[str]) -> None:
    if found:
        more = f" (and {len(found) - 1} more problems)" if len(found) > 1 else ""
        raise InputError(f"{path}: {found[0]}{more}")


# --------------------------------------------------------------------------------------------- Hub


def export_hub(experiment: Experiment, seed: int, out: Path) -> str:
    """Write a run as a folder that the Hugging Face Hub takes: weights, config, card, figures.

    Nothing is uploaded.

    Raises:
        InputError: no such run, no model card, or a folder that holds something already.
    """
    weights = layout.run(experiment.edition, experiment.name, seed) / "model.pt"
    card = layout.model_card(experiment)
    if not card.exists():
        raise InputError(f"{card}: not written yet; `actionformer card {experiment.argument}` does")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; name a new folder with --out")
    network, trained, classes = load_model(weights)
    text = card.read_text(encoding="utf-8")
    for path in sorted(layout.figures(experiment).glob("*.svg")):
        if f"figures/{path.name}" in text:
            write_text(out / "figures" / path.name, path.read_text(encoding="utf-8"))
    write_text(out / "params.yaml", as_yaml(trained))
    write_text(out / "README.md", model_card.on_the_hub(text))
    save_folder(out, network, trained, classes)
    return f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}; nothing is uploaded"


# -------------------------------------------------------------------------------------------- ONNX


def export_onnx(weights: Path, *, length: int | None, out: Path, say: Callable[[str], None]) -> str:
    """Write the network of a weights file as ONNX, checked in onnxruntime; says what it wrote.

    Args:
        length: steps of the longest video; the params' max_seq_len, if None.
    """
    network, experiment, classes = load_model(weights)
    steps = experiment.model.max_seq_len if length is None else length
    facts = {
        "classes": json.dumps(classes),
        "experiment": json.dumps(experiment.model_dump(mode="json")),
    }
    worst = onnx_export.export(network, out, length=steps, facts=facts, say=say)
    told = f"{experiment.name}, for videos of up to {steps} steps"
    return f"{out}: {told}, differs from the network by at most {worst:.1e}"
