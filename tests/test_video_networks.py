"""Networks of extractors: as large as published, their weights called as in published files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from actionformer.errors import InputError
from actionformer.params.extractor import Extractor, SlowFast
from actionformer.params.files import load_extractor, names
from actionformer.video.networks import i3d, r2plus1d, slowfast
from actionformer.video.networks.build import built_for, network_with_weights

# extractor -> millions of weights, as published with the layer of classes, and the weights of that
# layer. SlowFast: PyTorchVideo's model zoo; VideoMAE: Hugging Face's model cards
PUBLISHED = {
    "slowfast_epic": (34.57, 2304 * 400 + 400),
    "slowfast_r101_kinetics": (62.83, 2304 * 400 + 400),
    "videomae_l": (304.3, 1024 * 400 + 400),
    "videomae_h": (632.1, 1280 * 400 + 400),
}


def weights_on_meta(name: str) -> dict[str, torch.Tensor]:
    _, extractor, _ = load_extractor(name)
    with torch.device("meta"):
        return built_for(extractor).network.state_dict()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_as_many_weights_as_published(name: str) -> None:
    millions, head = PUBLISHED[name]
    _, extractor, _ = load_extractor(name)
    with torch.device("meta"):
        network = built_for(extractor).network
    count = sum(parameter.numel() for parameter in network.parameters()) + head
    assert count / 1e6 == pytest.approx(millions, abs=0.01 if millions < 100 else 0.1)


# extractor -> names and shapes that the published file has
NAMES = {
    "i3d_kinetics": {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_2c_3x3.bn.running_mean": (192,),
        "Mixed_3b.b1a.conv3d.weight": (96, 192, 1, 1, 1),
        "Mixed_4f.b2b.conv3d.weight": (128, 32, 3, 3, 3),
        "Mixed_5c.b3b.bn.bias": (128,),
    },
    "r2plus1d_tsp": {
        "stem.0.weight": (45, 3, 1, 7, 7),
        "layer1.0.conv1.0.0.weight": (144, 64, 1, 3, 3),
        "layer2.0.conv1.0.0.weight": (230, 64, 1, 3, 3),
        "layer2.0.conv2.0.0.weight": (288, 128, 1, 3, 3),
        "layer3.0.conv2.0.3.weight": (256, 576, 3, 1, 1),
        "layer4.0.downsample.0.weight": (512, 256, 1, 1, 1),
        "layer4.2.conv2.1.running_var": (512,),
    },
    "slowfast_epic": {
        "s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7),
        "s1.pathway1_stem.conv.weight": (8, 3, 5, 7, 7),
        "s1_fuse.conv_f2s.weight": (16, 8, 7, 1, 1),
        "s2.pathway0_res0.branch1.weight": (256, 80, 1, 1, 1),
        "s2.pathway1_res0.branch2.a.weight": (8, 8, 3, 1, 1),
        "s4.pathway0_res0.branch2.a.weight": (256, 640, 3, 1, 1),
        "s5.pathway1_res2.branch2.c_bn.weight": (256,),
    },
    "videomae_l": {
        "videomae.embeddings.patch_embeddings.projection.weight": (1024, 3, 2, 16, 16),
        "videomae.encoder.layer.23.attention.attention.query.weight": (1024, 1024),
        "videomae.encoder.layer.0.intermediate.dense.bias": (4096,),
        "fc_norm.weight": (1024,),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_called_as_the_published_file_calls_them(name: str) -> None:
    state = weights_on_meta(name)
    for key, shape in NAMES[name].items():
        assert tuple(state[key].shape) == shape


def test_every_extractor_says_where_its_weights_come_from() -> None:
    for name in names("extractors"):
        _, extractor, weights = load_extractor(name)
        assert weights.parts[:2] == ("data", "extractors")
        assert extractor.file.sources
        assert extractor.rebuilds
        assert extractor.homepage


# ---------------------------------------------------------------------------------- arithmetic


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_gives_size_over_stride_rounded_up(
    size: int, kernel: int, stride: int
) -> None:
    """TensorFlow's definition: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding."""
    x = torch.zeros(1, 1, size, 1, 1)
    padded = i3d.same_padded(x, (kernel, 1, 1), (stride, 1, 1))
    outputs = (padded.shape[2] - kernel) // stride + 1
    assert outputs == -(-size // stride)


def test_a_factorised_convolution_has_about_the_weights_of_the_one_it_stands_for() -> None:
    """Section 3.5 of the paper: the channels between are chosen for that."""
    block = r2plus1d.Block(128, 128, 1)
    first = block.conv1[0]
    count = sum(layer.weight.numel() for layer in (first[0], first[3]))
    assert count == pytest.approx(27 * 128 * 128, rel=0.01)


@pytest.mark.parametrize(
    ("name", "frames", "side"),
    [("i3d_kinetics", 16, 64), ("r2plus1d_tsp", 16, 32), ("slowfast_epic", 32, 64)],
)
def test_features_of_a_clip_do_not_depend_on_its_batch(name: str, frames: int, side: int) -> None:
    """In evaluation mode, where published statistics normalise."""
    _, extractor, _ = load_extractor(name)
    torch.manual_seed(0)
    network = built_for(extractor).network.eval()
    clips_BCTHW = torch.rand(2, 3, frames, side, side)
    with torch.inference_mode():
        both = network(clips_BCTHW)
        alone = network(clips_BCTHW[1:])
    assert both.shape == (2, extractor.dim)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_the_slow_pathway_sees_the_frames_that_are_published() -> None:
    """Of 32 frames 0, 4, 8, 13, 17, 22, 26, 31: evenly from the first to the last, rounded down."""
    network = slowfast.SlowFast(SlowFast()).eval()
    seen = []
    network.s1["pathway0_stem"].register_forward_pre_hook(
        lambda module, given: seen.append(given[0])
    )
    clips_BCTHW = torch.arange(32.0).reshape(1, 1, 32, 1, 1).expand(1, 3, 32, 32, 32)
    with torch.inference_mode():
        network(clips_BCTHW)
    assert seen[0][0, 0, :, 0, 0].tolist() == [0, 4, 8, 13, 17, 22, 26, 31]


def published_videomae(weights: dict[str, torch.Tensor], clip_CTHW: torch.Tensor) -> torch.Tensor:
    """The authors' forward pass, written from the paper, on weights under their names: 2 heads."""
    patches = F.conv3d(
        clip_CTHW[None],
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=(2, 8, 8),
    )
    x = patches.flatten(2)[0].T
    count, width = x.shape
    places = np.arange(count)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    places[:, 0::2], places[:, 1::2] = np.sin(places[:, 0::2]), np.cos(places[:, 1::2])
    x = x + torch.from_numpy(places).float()
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for i in range(depth):
        block = {
            name.removeprefix(f"blocks.{i}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"blocks.{i}.")
        }
        y = F.layer_norm(x, (width,), block["norm1.weight"], block["norm1.bias"], 1e-6)
        # keys have no bias
        bias = torch.cat(
            [block["attn.q_bias"], torch.zeros_like(block["attn.q_bias"]), block["attn.v_bias"]]
        )
        q, k, v = (
            F.linear(y, block["attn.qkv.weight"], bias).reshape(count, 3, 2, -1).permute(1, 2, 0, 3)
        )
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        y = (attention @ v).permute(1, 0, 2).reshape(count, width)
        x = x + F.linear(y, block["attn.proj.weight"], block["attn.proj.bias"])
        y = F.layer_norm(x, (width,), block["norm2.weight"], block["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + F.linear(y, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return F.layer_norm(
        x.mean(0), (width,), weights["fc_norm.weight"], weights["fc_norm.bias"], 1e-6
    )


def original_weights(width: int, depth: int) -> dict[str, torch.Tensor]:
    """Drawn weights of a small VideoMAE under the authors' names."""
    shapes = {
        "patch_embed.proj.weight": (width, 3, 2, 8, 8),
        "patch_embed.proj.bias": (width,),
        "fc_norm.weight": (width,),
        "fc_norm.bias": (width,),
        "head.weight": (5, width),
        "head.bias": (5,),
    }
    for i in range(depth):
        shapes |= {
            f"blocks.{i}.{name}": shape
            for name, shape in {
                "norm1.weight": (width,),
                "norm1.bias": (width,),
                "attn.qkv.weight": (3 * width, width),
                "attn.q_bias": (width,),
                "attn.v_bias": (width,),
                "attn.proj.weight": (width, width),
                "attn.proj.bias": (width,),
                "norm2.weight": (width,),
                "norm2.bias": (width,),
                "mlp.fc1.weight": (2 * width, width),
                "mlp.fc1.bias": (2 * width,),
                "mlp.fc2.weight": (width, 2 * width),
                "mlp.fc2.bias": (width,),
            }.items()
        }
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def small_videomae(**changes: object) -> Extractor:
    network = {"name": "videomae", "width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "patch": 8}
    content = {
        "network": network,
        "weights": "w.pth",
        "file": {},
        "state": ["module"],
        "dim": 16,
        "clip_frames": 4,
        "stride_frames": 4,
        "resize": 16,
        "crop": 16,
        "mean": [0, 0, 0],
        "deviation": [1, 1, 1],
        **changes,
    }
    return Extractor.model_validate(content)


def test_weights_under_the_authors_names_compute_what_the_paper_says(tmp_path: Path) -> None:
    """VideoMAEv2-g and InternVideo publish those; transformers calls and cuts them otherwise."""
    weights = original_weights(16, 2)
    torch.save({"module": weights}, tmp_path / "w.pth")
    network = network_with_weights(small_videomae(), tmp_path / "w.pth")
    clip_CTHW = torch.rand(3, 4, 16, 16)
    with torch.inference_mode():
        found = network(clip_CTHW[None])[0]
    torch.testing.assert_close(found, published_videomae(weights, clip_CTHW), atol=1e-5, rtol=1e-4)


def test_biases_of_hugging_faces_files_have_their_place() -> None:
    """The files were written when transformers kept the biases of queries and values beside."""
    _, extractor, _ = load_extractor("videomae_l")
    with torch.device("meta"):
        built = built_for(extractor)
    in_files = {}
    for name in built.network.state_dict():
        in_file = name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
        in_files[in_file] = torch.zeros(())
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in in_files
    assert list(built.renamed(in_files)) == list(built.network.state_dict())


def test_pytorchvideo_names_are_those_of_pyslowfast() -> None:
    """Every name has its place, and none is left over."""
    _, extractor, _ = load_extractor("slowfast_r101_kinetics")
    with torch.device("meta"):
        network = built_for(extractor).network
    to_pytorchvideo = {}
    for name in network.state_dict():
        to_pytorchvideo[_in_pytorchvideo(name)] = name
    assert len(to_pytorchvideo) == len(network.state_dict())
    renamed = slowfast.from_pytorchvideo({name: torch.zeros(()) for name in to_pytorchvideo})
    assert list(renamed) == list(to_pytorchvideo.values())
    assert "blocks.3.multipathway_blocks.0.res_blocks.22.branch2.conv_a.weight" in to_pytorchvideo
    assert "blocks.0.multipathway_fusion.conv_fast_to_slow.weight" in to_pytorchvideo
    head = {"blocks.6.proj.weight": torch.zeros(())}
    assert all(name.startswith(slowfast.HEAD) for name in slowfast.from_pytorchvideo(head))


def _in_pytorchvideo(name: str) -> str:
    stage, _, rest = name.partition(".")
    number = int(stage[1]) - 1
    if stage.endswith("_fuse"):
        rest = rest.replace("conv_f2s", "conv_fast_to_slow").replace("bn.", "norm.")
        return f"blocks.{number}.multipathway_fusion.{rest}"
    pathway = rest[len("pathway")]
    if number == 0:
        rest = rest.split(".", 1)[1].replace("bn.", "norm.")
        return f"blocks.0.multipathway_blocks.{pathway}.{rest}"
    block, rest = rest.split("_res", 1)[1].split(".", 1)
    for letter in "abc":
        rest = rest.replace(f"branch2.{letter}_bn.", f"branch2.norm_{letter}.")
        rest = rest.replace(f"branch2.{letter}.", f"branch2.conv_{letter}.")
    rest = rest.replace("branch1_bn.", "branch1_norm.").replace("branch1.", "branch1_conv.")
    return f"blocks.{number}.multipathway_blocks.{pathway}.res_blocks.{block}.{rest}"


# ------------------------------------------------------------------------------- files of weights


def test_weights_are_read_from_every_form_that_is_published(tmp_path: Path) -> None:
    """Under a key, with a prefix, as safetensors, whatever the file is called: the same network."""
    weights = original_weights(16, 2)
    torch.save(weights, tmp_path / "plain.pth")
    torch.save({"module": weights, "epoch": 3}, tmp_path / "keyed.pth")
    prefixed = {f"features.{name}": tensor for name, tensor in weights.items()}
    torch.save({"model": {"inner": prefixed}}, tmp_path / "prefixed.pth")
    save_file(weights, tmp_path / "w.weights")
    forms = {
        "plain.pth": small_videomae(state=[]),
        "keyed.pth": small_videomae(),
        "prefixed.pth": small_videomae(state=["model", "inner"], prefix="features."),
        "w.weights": small_videomae(state=[]),
    }
    clip = torch.rand(1, 3, 4, 16, 16)
    found = [network_with_weights(form, tmp_path / name)(clip) for name, form in forms.items()]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=0, rtol=0)


def damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"module": {}}, "expected tensors by their names"),
        ({"module": [1, 2]}, "expected tensors by their names"),
        ({"model": {"a": torch.zeros(1)}}, "holds no 'module'"),
        ({"module": {"a": torch.zeros(1)}}, "weights of another network: it lacks"),
    ],
)
def test_other_weights_are_one_line(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=words) as error:
        network_with_weights(small_videomae(), tmp_path / "w.pth")
    assert "w.pth" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fc_norm.bias", torch.full((16,), float("nan")), "no finite number"),
        ("fc_norm.bias", torch.zeros(8), r"\(8,\), expected \(16,\)"),
        ("more", torch.zeros(8), "holds more"),
    ],
)
def test_weights_that_would_give_nonsense_are_one_line(
    tmp_path: Path, key: str, value: torch.Tensor, words: str
) -> None:
    torch.save({"module": original_weights(16, 2) | {key: value}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=words):
        network_with_weights(small_videomae(), tmp_path / "w.pth")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("touched"),)


def test_no_code_of_a_file_of_weights_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"module": Evil()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth"):
        network_with_weights(small_videomae(), tmp_path / "w.pth")
    assert not (tmp_path / "touched").exists()


def test_a_network_of_torchvision_computes_or_says_what_is_missing(tmp_path: Path) -> None:
    """Its wheel does not import beside every torch: one clear line then."""
    _, extractor, _ = load_extractor("s3d")
    try:
        built = built_for(extractor)
    except InputError as error:
        assert "docs/video.md" in str(error)  # noqa: PT017
        return
    clip = torch.rand(1, 3, 16, 224, 224)
    assert built.network.eval()(clip).shape == (1, extractor.dim)
