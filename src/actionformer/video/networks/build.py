"""The network of an extractor, with its published weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from actionformer.errors import InputError, first_line
from actionformer.params import extractor as params
from actionformer.params.extractor import Extractor
from actionformer.training import checkpoint
from actionformer.video.networks import i3d, r2plus1d, slowfast

# what networks count beside their weights, and files may lack
COUNTERS = "num_batches_tracked"


class Built(NamedTuple):
    """A network without its weights."""

    network: nn.Module
    # names in a file of weights begin with, of what the network does without
    head: tuple[str, ...]
    # of a file of weights -> the network's own names
    renamed: Any = dict


def network_with_weights(extractor: Extractor, weights: Path) -> nn.Module:
    """The network with the weights of a file, ready to look at clips (B, 3, T, H, W).

    Raises:
        InputError: no such file, one that holds something else than tensors, weights of another
            network, or a package that isn't there.
    """
    built = built_for(extractor)
    found = built.renamed(_read(extractor, weights))
    found = {name: tensor for name, tensor in found.items() if not name.startswith(built.head)}
    _refuse_others(built.network, found, weights)
    for name, tensor in found.items():
        if not torch.isfinite(tensor.float()).all():
            wrong = f"the weight {name} holds what is no finite number"
            raise InputError(f"{weights}: {wrong}; get the file again")
    built.network.load_state_dict(found, strict=False)
    return built.network.float().eval().requires_grad_(False)


def built_for(extractor: Extractor) -> Built:
    """The network of an extractor as it is drawn."""
    chosen = extractor.network
    with torch.random.fork_rng(devices=[]):
        match chosen:
            case params.I3D():
                return Built(i3d.I3D(), i3d.HEAD)
            case params.R2Plus1D():
                return Built(r2plus1d.R2Plus1D(), r2plus1d.HEAD)
            case params.SlowFast():
                rename = slowfast.from_pytorchvideo if chosen.layout == "pytorchvideo" else dict
                return Built(slowfast.SlowFast(chosen), slowfast.HEAD, rename)
            case params.VideoMAE():
                return _videomae(chosen, extractor)
            case params.Torchvision():
                return _torchvision(chosen)


def _videomae(chosen: params.VideoMAE, extractor: Extractor) -> Built:
    # transformers takes seconds to import
    from actionformer.video.networks import videomae

    network = videomae.VideoMAE(chosen, frames=extractor.clip_frames, crop=extractor.crop)
    is_original = chosen.layout == "original"
    rename = videomae.from_original if is_original else videomae.from_hugging_face
    return Built(network, videomae.HEAD, rename)


def _torchvision(chosen: params.Torchvision) -> Built:
    try:
        from torchvision.models import video as models
    # RuntimeError: a wheel that was built for another torch
    except (ImportError, RuntimeError) as error:
        wrong = f"{chosen.model} is a network of torchvision's, which isn't there"
        raise InputError(
            f"{wrong} ({first_line(error)}); docs/video.md says how to install it"
        ) from None
    network = getattr(models, chosen.model)(weights=None)
    head = "classifier" if chosen.model == "s3d" else "head"
    setattr(network, head, nn.Identity())
    return Built(network, (f"{head}.",))


def _read(extractor: Extractor, path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by their names, without what stands before these."""
    if _is_safetensors(path):
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: not complete ({error}); fetch it again") from None
    else:
        content = checkpoint.load(path, maker="fetch")
    for key in extractor.state:
        if not isinstance(content, Mapping) or key not in content:
            held = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no mapping"
            raise InputError(f"{path}: holds no '{key}' (there are {held[:200]})")
        content = content[key]
    is_named = isinstance(content, Mapping) and all(map(torch.is_tensor, content.values()))
    if not is_named or not content:
        held = ", ".join(list(map(str, content))[:5]) if isinstance(content, Mapping) else "others"
        wanted = "expected tensors by their names"
        raise InputError(f"{path}: {wanted}, found {held}; `state` in the extractor names the key")
    return {str(name).removeprefix(extractor.prefix): one for name, one in content.items()}


def _is_safetensors(path: Path) -> bool:
    """By its first bytes: what a publisher has may be one or the other, whatever it is called.

    Eight bytes say how long the JSON text is that follows them.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _refuse_others(network: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    """One line where names or shapes are not the network's."""
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in found and not name.endswith(COUNTERS)]
    others = [name for name in found if name not in wanted]
    if missing or others:
        parts = []
        if missing:
            parts.append(f"lacks {missing[0]}{_more(missing)}")
        if others:
            parts.append(f"holds {others[0]}{_more(others)}")
        raise InputError(f"{path}: weights of another network: it {' and '.join(parts)}")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            raise InputError(f"{path}: weights of another network: {name} is {shapes}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
