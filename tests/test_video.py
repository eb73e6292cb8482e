"""Videos: which frames are seen, which clips networks get, what features say of themselves."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from actionformer.commands import main as main_module
from actionformer.commands.main import COMMANDS, main
from actionformer.data.described import described
from actionformer.data.extracted import Description, as_text, parsed
from actionformer.errors import InputError, first_line
from actionformer.params.extractor import I3D, Decoder, Extractor
from actionformer.stages.extract import extract
from actionformer.video import clips, readers
from actionformer.video.decode import VideoFrames
from actionformer.video.label import write_labelled
from actionformer.video.networks.videomae import VideoMAE
from actionformer.video.readers import resized
from videos import brightness, growing_bar, tiny_extractor, write_video

Said = list[str]


@pytest.fixture
def said() -> Said:
    return []


def _no_torchcodec() -> str:
    """Why torchcodec doesn't decode here; nothing where it does."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return f"torchcodec doesn't decode here: {first_line(error)}"
    return ""


NO_TORCHCODEC = _no_torchcodec()
needs_torchcodec = pytest.mark.skipif(bool(NO_TORCHCODEC), reason=NO_TORCHCODEC)


@pytest.fixture(params=["pyav", pytest.param("torchcodec", marks=needs_torchcodec)])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """Whatever decodes, a video has the same frames."""
    chosen: Decoder = request.param
    return chosen


def seen(path: Path, **options: Any) -> tuple[VideoFrames, list[np.ndarray]]:
    frames = VideoFrames(path, **options)
    return frames, [frame for _, frame in frames]


# ------------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize(("fps", "count"), [(None, 50), (25, 50), (50, 100), (10, 20), (7.5, 15)])
def test_frames_come_at_the_rate_that_is_asked_for(
    tmp_path: Path, decoder: Decoder, fps: float | None, count: int
) -> None:
    """Frame k shows what the video shows at k / fps, to half a frame; all of the video is seen."""
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=50), 50)
    frames, pictures = seen(tmp_path / "a.mp4", fps=fps, decoder=decoder)
    assert frames.count == frames.promised == len(pictures) == count
    for k, picture in enumerate(pictures):
        shown = k / frames.fps * 25
        assert abs(brightness(picture) * 50 - shown) < 1.6


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("own", [24, 25, 30, Fraction(30000, 1001)])
def test_the_last_frame_that_has_begun_is_the_one_whose_number_is_rounded_down(
    tmp_path: Path, decoder: Decoder, own: int | Fraction, suffix: str
) -> None:
    """floor(k * own / fps); what a kind of file rounds times to changes nothing."""
    count = 60
    path = tmp_path / f"a{suffix}"
    write_video(path, partial(growing_bar, count=count, width=4 * count), count, fps=own)
    _, pictures = seen(path, fps=15, frame_at="before", decoder=decoder)
    numbers = [round(brightness(picture) * count) for picture in pictures]
    expected = [math.floor(k * own / 15) for k in range(math.ceil(count / own * 15))]
    assert numbers == expected


def test_every_frame_goes_to_the_nearest_time_and_the_last_of_several_is_seen(
    tmp_path: Path, decoder: Decoder
) -> None:
    """As ffmpeg's filter fps does."""
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=30, width=240), 30, fps=30)
    _, pictures = seen(tmp_path / "a.mp4", fps=10, decoder=decoder)
    assert [round(brightness(picture) * 30) for picture in pictures] == [
        1,
        4,
        7,
        10,
        13,
        16,
        19,
        22,
        25,
        28,
    ]


def test_a_frame_that_is_missing_moves_no_other(tmp_path: Path, decoder: Decoder) -> None:
    """Also in avi, whose times are whole frames: the one before stands for it."""
    there = [k for k in range(40) if k != 10]
    path = tmp_path / "a.avi"
    picture = partial(growing_bar, count=40, width=240)
    times = [Fraction(k, 25) for k in there]
    write_video(path, lambda k: picture(there[k]), 39, shown_at=times, ticks=25)
    _, pictures = seen(path, decoder=decoder)
    numbers = [round(brightness(one) * 40) for one in pictures]
    assert numbers == [9 if k == 10 else k for k in range(40)]


@pytest.mark.parametrize("sound", ["aac", None])
def test_pictures_that_begin_late_are_whole(
    tmp_path: Path, decoder: Decoder, sound: str | None
) -> None:
    """As of a video that was cut without being encoded again; lengths count from the beginning."""
    times = [2 + Fraction(k, 25) for k in range(200)]
    path = tmp_path / "a.mkv"
    write_video(
        path, partial(growing_bar, count=200), 200, shown_at=times, sound=sound, sound_seconds=10
    )
    frames, pictures = seen(path, decoder=decoder)
    assert len(pictures) == 200
    assert frames.promised == 200


@pytest.mark.parametrize("count", [34, 42, 74])
def test_a_short_video_is_whole_at_any_rate(tmp_path: Path, decoder: Decoder, count: int) -> None:
    """Its end is not rounded before it is compared with what the file promises."""
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=count), count, fps=30)
    frames, _ = seen(tmp_path / "a.mp4", fps=1, decoder=decoder)
    assert frames.count == round(count / 30)


@pytest.mark.parametrize("fps", [15, 24, 60])
def test_the_same_frames_are_seen_whatever_the_kind_of_file(
    tmp_path: Path, decoder: Decoder, fps: int
) -> None:
    """Matroska rounds times to thousandths of a second."""
    numbers = []
    for suffix in (".mp4", ".mkv"):
        path = tmp_path / f"a{suffix}"
        picture = partial(growing_bar, count=60, width=240)
        write_video(path, picture, 60, fps=Fraction(30000, 1001))
        _, pictures = seen(path, fps=fps, decoder=decoder)
        numbers.append([round(brightness(one) * 60) for one in pictures])
    assert numbers[0] == numbers[1]


def test_a_video_of_changing_rate_is_brought_to_a_constant_one(
    tmp_path: Path, decoder: Decoder
) -> None:
    """A second of 25 frames, then two of 5 frames: what counts is when a frame is shown."""
    times = [Fraction(k, 25) for k in range(25)] + [1 + Fraction(k, 5) for k in range(10)]
    last = float(times[-1])

    def picture(k: int) -> np.ndarray:
        return growing_bar(round(1000 * float(times[k])), count=round(1000 * last))

    write_video(tmp_path / "a.mkv", picture, len(times), shown_at=times)
    frames, pictures = seen(tmp_path / "a.mkv", fps=10, decoder=decoder)
    assert abs(frames.count - 30) <= 2
    for k, shown in enumerate(pictures):
        arrived = max(float(time) for time in times if float(time) <= k / 10 + 0.05)
        assert brightness(shown) * last == pytest.approx(arrived, abs=0.06)


@pytest.mark.parametrize(("rotation", "edge"), [(90, "below"), (-90, "above"), (180, "right")])
def test_a_video_is_seen_as_players_show_it(
    tmp_path: Path, decoder: Decoder, rotation: int, edge: str
) -> None:
    """A bar at the left that the file turns counterclockwise is below, and so on."""
    write_video(
        tmp_path / "a.mp4", lambda k: growing_bar(1, count=4, width=64), 5, rotation=rotation
    )
    _, pictures = seen(tmp_path / "a.mp4", decoder=decoder)
    picture = pictures[0].astype(float)
    assert picture.shape == ((64, 48, 3) if abs(rotation) == 90 else (48, 64, 3))
    halves = {
        "above": picture[: len(picture) // 2],
        "below": picture[len(picture) // 2 :],
        "right": picture[:, picture.shape[1] // 2 :],
    }
    assert halves[edge].mean() > 100
    assert halves[edge].mean() > 1.9 * picture.mean()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 512))
def test_the_shorter_side_gets_the_pixels_that_are_asked_for(
    height: int, width: int, short: int
) -> None:
    """The other one keeps the shape, and is never shorter."""
    new_height, new_width = resized(height, width, short)
    assert min(new_height, new_width) == short
    assert max(new_height, new_width) * min(height, width) == pytest.approx(
        max(height, width) * short, abs=0.5 * min(height, width) + 1e-9
    )


def test_odd_sides_and_a_cut_from_the_middle(tmp_path: Path, decoder: Decoder) -> None:
    write_video(
        tmp_path / "a.mp4", partial(growing_bar, count=2, height=41, width=51), 2, codec="libx264"
    )
    _, pictures = seen(tmp_path / "a.mp4", resize=36, crop=32, decoder=decoder)
    assert pictures[0].shape == (32, 32, 3)
    # half of it is white
    assert brightness(pictures[1]) == pytest.approx(0.5, abs=0.03)


@needs_torchcodec
@pytest.mark.parametrize("antialias", [True, False])
def test_decoders_differ_by_rounding_alone(tmp_path: Path, antialias: bool) -> None:
    """Of 255: colours are rounded when they are decoded, and again when pictures get smaller."""
    path = tmp_path / "a.mp4"
    write_video(path, partial(growing_bar, count=20, height=240, width=320), 20, codec="libx264")
    pictures = []
    for decoder in ("pyav", "torchcodec"):
        _, one = seen(path, resize=112, crop=96, antialias=antialias, decoder=decoder)
        pictures.append(np.stack(one).astype(int))
    difference = np.abs(pictures[0] - pictures[1])
    assert difference.mean() < 1
    assert np.quantile(difference, 0.98) <= 12


def test_a_decoder_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=2), 2)
    with pytest.raises(InputError, match=r"decoder torchcodec isn't there .*; docs/video\.md says"):
        VideoFrames(tmp_path / "a.mp4", decoder="torchcodec")


def truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("a.mp4", lambda path: truncated(path, 0.5), "not a video that can be decoded"),
        ("a.avi", lambda path: truncated(path, 0.5), "is it truncated?"),
        ("a.mkv", lambda path: truncated(path, 0.5), "is it truncated?"),
        ("a.mp4", lambda path: path.write_bytes(b""), "not a video that can be decoded"),
        ("a.mp4", lambda path: path.write_text("a video"), "not a video that can be decoded"),
        ("a.mp4", lambda path: path.unlink(), "no such video"),
    ],
)
def test_what_is_no_whole_video_is_one_line(
    tmp_path: Path, decoder: Decoder, name: str, damage: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / name
    write_video(path, partial(growing_bar, count=200), 200)
    damage(path)
    with pytest.raises(InputError, match=words) as error:
        seen(path, decoder=decoder)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_video_whose_sound_goes_on_is_whole_and_half_of_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_so: bool
) -> None:
    """Matroska says how long the longer of the two is, and in a tag how long the pictures are."""
    path = tmp_path / "a.mkv"
    write_video(path, partial(growing_bar, count=200), 200, sound="aac", sound_seconds=10)
    if not says_so:
        monkeypatch.setattr(readers, "_seconds_of", lambda stream, start: None)
    frames, pictures = seen(path)
    assert frames.count == len(pictures) == 200
    truncated(path, 0.5)
    with pytest.raises(InputError, match="is it truncated"):
        seen(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="has no pictures"):
        seen(tmp_path / "a.mp4")


# ------------------------------------------------------------------------------------------- clips


def an_extractor(clip_frames: int, frame_step: int, stride_frames: int) -> Extractor:
    return Extractor.model_validate(
        {
            "network": I3D().model_dump(),
            "weights": "w.pt",
            "file": {},
            "dim": 1024,
            "clip_frames": clip_frames,
            "frame_step": frame_step,
            "stride_frames": stride_frames,
            "resize": 8,
            "crop": 8,
            "mean": [0, 0, 0],
            "deviation": [1, 1, 1],
        }
    )


@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(1, 20), st.integers(1, 5)
)
def test_clip_s_holds_the_frames_from_s_strides_on(
    count: int, clip_frames: int, frame_step: int, stride: int, batch_size: int
) -> None:
    """Every clip that fits into the video, in order, and in one that is too short one clip."""
    extractor = an_extractor(clip_frames, frame_step, stride)
    frames = [
        (k, np.full((1, 1, 3), k, np.uint8)) for k in range(count) if clips.is_needed(k, extractor)
    ]
    found = list(clips.batches(frames, extractor, batch_size))
    assert all(len(batch) == batch_size for batch in found[:-1])
    numbers = np.concatenate(found)[..., 0, 0, 0].tolist()
    expected = []
    for first in range(0, max(1, count - extractor.span_frames + 1), stride):
        expected.append([first + i * frame_step for i in range(clip_frames)])
    if count < extractor.span_frames:
        last = frames[-1][0]
        expected = [[min(k, last) for k in expected[0]]]
    assert numbers == expected


# ---------------------------------------------------------------------------------------- features


def test_features_are_what_the_network_makes_of_the_clips(tmp_path: Path, said: Said) -> None:
    """Pixels count from 0 to 1, mean and deviation are taken off, axes are (B, C, T, H, W)."""
    name, extractor, weights = tiny_extractor(tmp_path)
    video = tmp_path / "a.mp4"
    write_video(video, partial(growing_bar, count=30), 30)
    files = extract(
        name,
        extractor,
        weights,
        [video],
        tmp_path / "out",
        device="cpu",
        batch_size=4,
        say=said.append,
    )
    with np.load(files[0]) as content:
        features_TC = content["features"]
    from actionformer.video.networks.build import network_with_weights

    network = network_with_weights(extractor, weights)
    _, pictures = seen(video, resize=32, crop=32)
    for t in range(len(features_TC)):
        clip = np.stack(pictures[4 * t : 4 * t + 8]).astype(np.float32) / 255
        clip_CTHW = torch.from_numpy((clip - 0.5) / 0.25).permute(3, 0, 1, 2)
        with torch.inference_mode():
            expected_C = network(clip_CTHW[None])[0]
        np.testing.assert_allclose(features_TC[t], expected_C, atol=1e-5)
    assert len(features_TC) == (30 - 8) // 4 + 1
    told = described(files[0])
    assert told is not None
    assert (told.fps, told.stride_frames, told.offset_frames) == (25, 4, 4)
    assert (told.frames, told.duration) == (30, 1.2)


def test_what_is_there_and_made_alike_stays(tmp_path: Path, said: Said) -> None:
    """Made anew: features of another video, of other params, of other weights, and damaged ones."""
    name, extractor, weights = tiny_extractor(tmp_path)
    video = tmp_path / "a.mp4"
    write_video(video, partial(growing_bar, count=20), 20)

    def made(extractor: Extractor = extractor) -> bool:
        said.clear()
        extract(name, extractor, weights, [video], tmp_path / "out", device="cpu", say=said.append)
        return not any("is there already" in line for line in said)

    assert made()
    assert not made()
    target = tmp_path / "out/a.npz"
    before = target.read_bytes()
    target.write_bytes(before[:-20])
    assert made()
    assert target.read_bytes() == before
    assert made(extractor.model_copy(update={"stride_frames": 2}))
    assert made()
    write_video(video, partial(growing_bar, count=24), 24)
    assert made()
    state = torch.load(weights, weights_only=True)
    torch.save({key: 2 * value for key, value in state.items()}, weights)
    assert made()


def test_what_is_there_is_lost_by_no_mistake(tmp_path: Path, said: Said) -> None:
    """Another extractor that cannot begin, or not end, costs no features of hours before."""
    name, extractor, weights = tiny_extractor(tmp_path / "tiny")
    video = tmp_path / "a.mp4"
    write_video(video, partial(growing_bar, count=20), 20)
    out = tmp_path / "out"

    def extracted(extractor: Extractor) -> None:
        extract(name, extractor, weights, [video], out, device="cpu", say=said.append)

    extracted(extractor)
    before = (out / "a.npz").read_bytes()
    with pytest.raises(InputError, match="weights of another network"):
        extracted(extractor.model_copy(update={"network": I3D()}))
    assert (out / "a.npz").read_bytes() == before
    with pytest.raises(InputError, match="1 of 1 videos could not be extracted"):
        extracted(extractor.model_copy(update={"dim": 47}))
    assert (out / "a.npz").read_bytes() == before
    # of a video that is another now, nothing that was made of the one before
    video.write_bytes(b"")
    with pytest.raises(InputError, match="1 of 1 videos could not be extracted"):
        extracted(extractor)
    assert not (out / "a.npz").exists()


def test_a_video_that_cannot_be_decoded_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several processes give the same features as one; the exit code tells of the damaged video."""
    tiny_extractor(tmp_path)
    for name, count in (("a", 20), ("b", 40), ("c", 12)):
        write_video(tmp_path / f"videos/{name}.mp4", partial(growing_bar, count=count), count)
    truncated(tmp_path / "videos/b.mp4", 0.5)
    common = ["extract", str(tmp_path / "videos"), "--extractor", str(tmp_path / "tiny.yaml")]
    common += ["--device", "cpu"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*common, "--out", str(one)]) == 1
    assert main([*common, "--out", str(two), "--jobs", "2"]) == 1
    for folder in (one, two):
        assert sorted(path.name for path in folder.iterdir()) == ["a.npz", "c.npz"]
    assert (one / "a.npz").read_bytes() == (two / "a.npz").read_bytes()
    output = capsys.readouterr()
    assert output.err.count("1 of 3 videos could not be extracted: b.mp4") == 2
    assert output.out.count("b.mp4: not a video that can be decoded") == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "absent.pt"}, "no such file"),
        ({"dim": 47}, "gives 48 channels, its params say 47"),
        ({"state": ["model"]}, "holds no 'model'"),
        ({"network": {"name": "r2plus1d"}}, "weights of another network"),
        ({"crop": 40, "resize": 32}, "crop"),
        ({"clip_frames": 0}, "clip_frames"),
        ({"network": {"name": "c3d"}}, "network"),
        ({"network": {"name": "slowfast", "fusion_kernel": 4}}, "fusion_kernel is odd"),
        ({"network": {"name": "slowfast", "beta_inverse": 7}}, "beta_inverse divides 64"),
        ({"network": {"name": "torchvision", "model": "mvit_v2_s"}}, "16 frames of 224 pixels"),
    ],
)
def test_an_extractor_that_cannot_be_is_one_line(
    tmp_path: Path, change: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_extractor(tmp_path)
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(path.read_text()) | change
    path.write_text(yaml.safe_dump(content))
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=10), 10)
    arguments = ["extract", str(tmp_path / "a.mp4"), "--extractor", str(path)]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    output = capsys.readouterr()
    assert words in output.err + output.out
    assert len(output.err.strip().splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: error code 12"),
    ],
)
def test_too_little_memory_is_one_line_and_leaves_nothing(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What torch raises, on a GPU and on a CPU."""
    name, extractor, weights = tiny_extractor(tmp_path)
    write_video(tmp_path / "a.mp4", partial(growing_bar, count=20), 20)

    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(VideoMAE, "forward", failing)
    with pytest.raises(InputError, match="1 of 1 videos could not be extracted"):
        extract(
            name,
            extractor,
            weights,
            [tmp_path / "a.mp4"],
            tmp_path / "out",
            device="cpu",
            say=said.append,
        )
    wanted = "extractor tiny: too little memory on cpu for 4 clips at once; a smaller --batch-size"
    assert said[-1] == wanted
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "--gpu-slots 1",
        ),
        (RuntimeError("CUDA error: out of memory"), "--gpu-slots 1"),
        (MemoryError(), "too little memory (MemoryError)"),
    ],
)
def test_too_little_memory_for_any_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    words: str,
) -> None:
    def failing(args: object) -> None:
        raise error

    chosen = {found.name: found for found in COMMANDS}["detect"]
    monkeypatch.setattr(main_module, "COMMANDS", [replace(chosen, run=failing)])
    assert main(["detect", "thumos14_i3d"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1


MEMORY = """
import re, sys
from pathlib import Path
from functools import partial
sys.path.insert(0, sys.argv[2])
from videos import tiny_extractor
from actionformer.stages.extract import extract
folder = Path(sys.argv[1])
extract(*tiny_extractor(folder, stride_frames=32), [folder / "a.mp4"], folder / "out",
        device="cpu", say=print)
# not getrusage's: that is at first the one of the process that started this one
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    """Two hours, as a frame a second and brought to 4, take what a minute takes."""
    peaks = []
    for name, seconds in (("short", 60), ("long", 7200)):
        folder = tmp_path / name
        write_video(folder / "a.mp4", partial(growing_bar, count=seconds), seconds, fps=1)
        command = [sys.executable, "-c", MEMORY, str(folder), str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 40


# -------------------------------------------------------------------------- what features say


descriptions = st.builds(
    Description,
    extractor=st.text(max_size=8),
    identity=st.text(max_size=8),
    weights_md5=st.text(max_size=8),
    fps=st.floats(0.1, 1000),
    stride_frames=st.floats(1, 64),
    offset_frames=st.floats(0.5, 64),
    duration=st.floats(0.01, 1e6),
    frames=st.integers(1, 10**9),
    video_md5=st.text(max_size=8),
)


@given(descriptions)
def test_a_description_is_read_as_it_was_written(description: Description) -> None:
    assert parsed(as_text(description), "a.npz") == description


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "NaN", '{"extractor": 1}', "[" * 5000, None, 3],
)
def test_what_is_no_description_is_one_line(text: object) -> None:
    with pytest.raises(InputError, match=r"a\.npz: its description is not one"):
        parsed(text, "a.npz")


@pytest.mark.parametrize(
    ("key", "value"),
    [("fps", 0), ("fps", "25"), ("frames", 1.5), ("duration", float("inf")), ("fps", 10**400)],
)
def test_a_description_of_what_cannot_be_is_one_line(key: str, value: object) -> None:
    good = Description("i3d", "a", "b", 25.0, 4.0, 8.0, 10.0, 250, "c")
    content = json.loads(as_text(good)) | {key: value}
    with pytest.raises(InputError, match=key):
        parsed(json.dumps(content), "a.npz")


# ----------------------------------------------------------------------------------- labelled copy


@pytest.mark.parametrize(
    ("name", "size", "sound", "rotation"),
    [
        ("a.mp4", (48, 64), "aac", None),
        ("a.mp4", (41, 51), None, None),
        ("a.avi", (48, 64), "pcm_s16le", None),
        ("a.mp4", (48, 64), None, 90),
    ],
)
def test_a_labelled_copy_has_all_frames_and_the_sound(
    tmp_path: Path, name: str, size: tuple[int, int], sound: str | None, rotation: int | None
) -> None:
    """Upright, its sides even; what is drawn stands where and when it was found."""
    height, width = size
    source, target = tmp_path / name, tmp_path / "out/labelled.mp4"
    write_video(
        source,
        lambda k: np.zeros((height, width, 3), np.uint8),
        50,
        codec="libx264" if height % 2 else "mpeg4",
        sound=sound,
        rotation=rotation,
    )
    found = [{"segment": [0.8, 1.6], "label": "Slide", "score": 0.9}]
    write_labelled(source, target, found)
    with av.open(str(target)) as container:
        sounds = [stream.codec_context.name for stream in container.streams.audio]
        assert sounds == ([] if sound is None else ["aac"])
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        sides = (height // 2 * 2, width // 2 * 2)
        assert (stream.height, stream.width) == (sides if rotation is None else sides[::-1])
    frames, pictures = seen(target)
    assert (frames.count, frames.fps) == (50, 25)
    # the upper half, where labels stand
    drawn = [picture[: len(picture) // 2].mean() > 1 for picture in pictures]
    assert drawn == [0.8 <= k / 25 <= 1.6 for k in range(50)]
    # the lower edge is the time line, with the action's colour where it lasts
    line = pictures[0][-2].astype(int)
    bright = np.flatnonzero(line.max(1) > 120) / len(line)
    assert 0.36 <= bright[bright > 0.1].min() <= 0.44
    assert 0.76 <= bright.max() <= 0.84


@pytest.mark.parametrize(("rotation", "shape"), [(None, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_a_labelled_copy_keeps_the_shape_of_the_pixels(
    tmp_path: Path, rotation: int | None, shape: Fraction
) -> None:
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    picture = partial(growing_bar, count=10)
    write_video(source, picture, 10, rotation=rotation, pixel=Fraction(4, 3), sound="aac")
    write_labelled(source, target, [])
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == shape


def test_sound_that_mp4_files_do_not_hold_is_encoded_again(tmp_path: Path) -> None:
    """FFmpeg puts mp3 into them from 16,000 samples a second on."""
    source, target = tmp_path / "a.avi", tmp_path / "b.mp4"
    picture = partial(growing_bar, count=25)
    write_video(source, picture, 25, sound="libmp3lame", sound_rate=8000)
    write_labelled(source, target, [])
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_sound_that_mp4_files_hold_is_not_encoded_again(tmp_path: Path) -> None:
    """Its packets are the same bytes, also where the decoder is called otherwise (mp3float)."""
    source, target = tmp_path / "a.mkv", tmp_path / "b.mp4"
    write_video(source, partial(growing_bar, count=25), 25, sound="libmp3lame")
    write_labelled(source, target, [])
    contents = []
    for path in (source, target):
        with av.open(str(path)) as container:
            contents.append([bytes(packet) for packet in container.demux(audio=0)])
    assert contents[0] == contents[1]


def test_a_labelled_copy_of_a_changing_rate_shows_frames_when_they_were_shown(
    tmp_path: Path,
) -> None:
    """Ten frames in a second, then five in five: what is drawn goes by the clock."""
    times = [Fraction(k, 10) for k in range(10)] + [Fraction(1 + k) for k in range(5)]
    source, target = tmp_path / "a.mkv", tmp_path / "b.mp4"
    black = np.zeros((48, 64, 3), np.uint8)
    write_video(source, lambda k: black, len(times), shown_at=times)
    write_labelled(source, target, [{"segment": [2.5, 3.5], "label": "Slide", "score": 0.9}])
    with av.open(str(target)) as container:
        frames = [
            (float(frame.time), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]
    first = frames[0][0]
    assert [round(time - first, 1) for time, _ in frames] == [float(time) for time in times]
    drawn = [round(time - first, 1) for time, picture in frames if picture[:24].mean() > 1]
    assert drawn == [3.0]


def test_a_labelled_copy_never_takes_the_place_of_its_video(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    write_video(video, partial(growing_bar, count=10), 10)
    before = video.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for target in (video, tmp_path / "link/a.mp4"):
        with pytest.raises(InputError, match="would take its place"):
            write_labelled(video, target, [])
    assert video.read_bytes() == before
