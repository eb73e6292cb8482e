"""Files for others: export."""

from __future__ import annotations

import argparse
from pathlib import Path

from actionformer import layout
from actionformer.commands.options import (
    Command,
    chosen_row,
    row_options,
    say,
    seed_option,
)


def export_options(parser: argparse.ArgumentParser) -> None:
    forms = ["activitynet", "epic", "ego4d", "onnx", "hub", "croissant"]
    parser.add_argument("form", choices=forms, help="what to write")
    row_options(parser)
    seed_option(parser)
    default = f"{layout.SUBMISSIONS}/ROW-FORM.json; onnx: model.onnx beside model.pt"
    default += f"; hub: folder {layout.HUB}/ROW; croissant: folder {layout.CROISSANT}/DATASET"
    text = f"file to write (default: {default})"
    parser.add_argument("--out", type=Path, help=text)
    text = "JSON of `predict` to submit (default: the row's detections)"
    parser.add_argument("--detections", type=Path, help=text)
    text = "whose videos have to be there (default: the evaluated subset)"
    parser.add_argument("--subset", help=text)
    text = "validate this submission instead of writing one"
    parser.add_argument("--check", type=Path, metavar="FILE", help=text)
    text = "activitynet: external data used (default: the features)"
    parser.add_argument("--external-data", metavar="TEXT", help=text)
    text = "epic: supervision of pretraining, labels and data, 0 to 5 each (default: 2 3 3)"
    levels = ("PT", "TL", "TD")
    parser.add_argument(
        "--sls", type=int, nargs=3, choices=range(6), default=[2, 3, 3], metavar=levels, help=text
    )
    parser.add_argument("--weights", type=Path, help="onnx: a model.pt (default: the row's)")
    text = "onnx: steps of the longest video (default: the params' max_seq_len)"
    parser.add_argument("--length", type=int, help=text)


def export(args: argparse.Namespace) -> None:
    experiment = chosen_row(args)
    if args.form == "croissant":
        from actionformer.stages.croissant import export_croissant

        out = args.out or layout.CROISSANT / experiment.dataset_folder
        print("\n".join(export_croissant(experiment, args.params, out)))
        return
    from actionformer.stages import export as stage

    if args.form == "onnx":
        weights = layout.run(experiment.edition, experiment.name, args.seed) / "model.pt"
        out = args.out or weights.with_name("model.onnx")
        print(stage.export_onnx(args.weights or weights, length=args.length, out=out, say=say))
    elif args.form == "hub":
        print(stage.export_hub(experiment, args.seed, args.out or layout.HUB / experiment.name))
    elif args.check is not None:
        print(stage.check_submission(args.form, experiment, args.check, subset=args.subset))
    else:
        said = stage.export(
            args.form,
            experiment,
            args.seed,
            subset=args.subset,
            detections=args.detections,
            external_data=args.external_data,
            levels=args.sls,
            out=args.out or layout.SUBMISSIONS / f"{experiment.name}-{args.form}.json",
        )
        print(said)


COMMANDS = (
    Command(
        "export",
        "a submission to ActivityNet, EPIC-Kitchens or Ego4D Moment Queries, validated; or the "
        "network as ONNX, checked; or weights, card and params in the layout of the Hugging Face "
        "Hub; or Croissant metadata of the row's data set",
        export_options,
        export,
    ),
)
