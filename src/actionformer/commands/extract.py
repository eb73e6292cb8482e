"""Videos, and what is found in them: extract, predict."""

from __future__ import annotations

import argparse
from pathlib import Path

from actionformer import layout
from actionformer.commands.options import (
    Command,
    chosen_dataset,
    device_option,
    edition_options,
    say,
    use_threads,
    whole_number,
)
from actionformer.detection.timing import Timing, timed_as
from actionformer.errors import InputError
from actionformer.params.files import PARAMS, load_extractor
from actionformer.params.stored import stored_experiment
from actionformer.params.yaml_files import read_yaml


def extract_options(parser: argparse.ArgumentParser) -> None:
    text = "video files, and folders of them"
    parser.add_argument("videos", metavar="VIDEO", type=Path, nargs="*", help=text)
    text = "an extractor of params/extractors, or the path of a YAML file"
    parser.add_argument("--extractor", metavar="NAME", help=text)
    text = "instead of videos those of a data set (params/datasets, or the path of a YAML file)"
    parser.add_argument("--dataset", metavar="DATASET", help=text)
    text = "of the data set, the feature set that names its videos and extractor"
    parser.add_argument("--features", metavar="NAME", help=text)
    text = f"folder to write, a file per video (default: {layout.EXTRACTED}/EXTRACTOR)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    text = "processes, each with a video and the network (default: 1)"
    parser.add_argument("--jobs", type=whole_number, default=1, metavar="N", help=text)
    text = "clips that the network sees at once (default: 8)"
    parser.add_argument("--batch-size", type=whole_number, default=8, metavar="N", help=text)
    text = "extract also what is there already"
    parser.add_argument("--anew", action="store_true", help=text)
    edition_options(parser)
    device_option(parser)


def extract(args: argparse.Namespace) -> None:
    if args.dataset is not None:
        _extract_dataset(args)
        return
    if args.features is not None:
        raise InputError("--features goes with --dataset, whose feature set it names")
    if not args.videos or args.extractor is None:
        raise InputError("name videos and --extractor, or --dataset and --features")
    name, extractor, weights = load_extractor(args.extractor, args.params)
    # torch, which takes seconds, after what is refused at once
    from actionformer.stages.extract import extract as stage

    out = args.out or layout.EXTRACTED / name
    stage(
        name,
        extractor,
        weights,
        args.videos,
        out,
        device=args.device,
        gpu_slots=args.gpu_slots,
        jobs=args.jobs,
        batch_size=args.batch_size,
        anew=args.anew,
        say=say,
    )
    say(f"features of videos are in {out}")


def _extract_dataset(args: argparse.Namespace) -> None:
    """All videos of a feature set of a data set, as the workflow does."""
    if args.videos or args.extractor is not None or args.out is not None or args.features is None:
        raise InputError(
            "--dataset goes with --features, and without videos, --extractor and --out"
        )
    dataset, name, edition = chosen_dataset(args)
    from actionformer.stages.extract import extract_dataset

    extract_dataset(
        dataset,
        name,
        edition,
        args.features,
        params=args.params,
        device=args.device,
        gpu_slots=args.gpu_slots,
        jobs=args.jobs,
        batch_size=args.batch_size,
        anew=args.anew,
        say=say,
    )


def predict_options(parser: argparse.ArgumentParser) -> None:
    text = "a model.pt; it says the classes and the params"
    parser.add_argument("--weights", type=Path, required=True, help=text)
    text = (
        "video files, and folders of them: extracted into OUT/features first, and written with the "
        "labels drawn in"
    )
    parser.add_argument("videos", metavar="VIDEO", type=Path, nargs="*", help=text)
    text = "instead of videos npy, npz, pt or h5 files, folders, archives, stores of features"
    parser.add_argument("--features", type=Path, nargs="+", help=text)
    text = "of videos: name or YAML file of the extractor (default: that of the weights)"
    parser.add_argument("--extractor", metavar="NAME", help=text)
    text = "of videos: clips that the network sees at once (default: 8)"
    parser.add_argument("--batch-size", type=whole_number, default=8, metavar="N", help=text)
    text = (
        "of features that don't say it of themselves, as the next three: frames per second of the "
        "videos (default: as trained, if all alike)"
    )
    parser.add_argument("--fps", type=float, help=text)
    text = "frames between two steps (default: as trained)"
    parser.add_argument("--stride", type=float, help=text)
    text = "frame at the centre of step 0 (default: as trained, or stride / 2)"
    parser.add_argument("--offset", type=float, help=text)
    text = "seconds, of a single video (default: as far as its features go)"
    parser.add_argument("--duration", type=float, help=text)
    text = "a database file: only its videos; features that don't say so last as long as it says"
    parser.add_argument("--annotations", type=Path, help=text)
    text = "with --annotations: only the videos of this subset"
    parser.add_argument("--subset", help=text)
    text = "scores of whole videos, for class-agnostic weights"
    parser.add_argument("--classifier", type=Path, help=text)
    text = "subtitles without pictures and labelled videos"
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help=text)
    text = "of subtitles, pictures and labelled videos (default: 0.2)"
    parser.add_argument("--min-score", type=float, default=0.2, help=text)
    text = f"folder to write (default: {layout.PREDICTIONS})"
    parser.add_argument("--out", type=Path, default=layout.PREDICTIONS, help=text)
    text = "folder of params (default: the checkout's)"
    parser.add_argument("--params", type=Path, default=PARAMS, help=text)
    device_option(parser)


def predict(args: argparse.Namespace) -> None:
    timing = Timing(
        fps=args.fps,
        stride=args.stride,
        offset=args.offset,
        duration=args.duration,
        annotations=args.annotations,
        subset=args.subset,
    )
    # what is refused is refused at once: torch, which the stage imports, takes seconds
    if args.weights.is_dir():
        raise InputError(f"{args.weights}: a folder; expected the model.pt of a run in it")
    if bool(args.videos) == bool(args.features):
        raise InputError("name videos, or files of features with --features, and not both")
    if args.features and args.extractor is not None:
        raise InputError("--extractor goes with videos; features are made already")
    for path in [*args.videos, *(args.features or [])]:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    from actionformer.data.described import description_in

    beside = args.weights.with_name("params.yaml")
    if beside.exists() and args.features and description_in(args.features[0]) is None:
        timed_as(stored_experiment(read_yaml(beside), str(beside)), timing)
    from actionformer.stages import predict as stage

    # everything but the features first: to extract a video can take hours
    detector = stage.load_detector(args.weights, timing, args.classifier)
    use_threads(detector.trained)
    machine = stage.Machine(args.device, args.gpu_slots, args.batch_size)
    seen = stage.Extracted({}, args.features or [])
    if args.videos:
        seen = stage.extracted(
            detector,
            args.videos,
            args.out / "features",
            extractor=args.extractor,
            params=args.params,
            machine=machine,
            say=say,
        )
    said = stage.predict(
        detector,
        seen.features,
        videos=seen.videos,
        machine=machine,
        wanted=stage.Wanted(args.min_score, args.pictures),
        out=args.out,
    )
    print("\n".join(said))


COMMANDS = (
    Command(
        "extract",
        "make features of video files, with a published network",
        extract_options,
        extract,
        resumes=True,
    ),
    Command(
        "predict",
        "detect actions in videos or feature files with trained weights",
        predict_options,
        predict,
    ),
)
