"""timm's networks with their ImageNet weights, from timm's cache or hub, or from a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from torch import Tensor, nn

from .._suggest import unknown

#: What ``pretrained`` may be: whether to fetch timm's weights, or a file of a state dict.
Pretrained = bool | str | os.PathLike[str]

PATIENCE = 5.0  # seconds for the hub's first answer; its own client would try for a minute
CACHED = ("model.safetensors", "pytorch_model.bin")  # the hub's names of weights
GIVE_A_FILE = (
    "give a file of them (`--model timm:NAME@FILE`; in training --model.options.pretrained FILE), or "
    "pretrained=False for a network without"
)


def check_timm_name(name: str) -> None:
    """Raises ``ValueError``, which suggests the nearest, unless timm has a network of that name."""
    if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        raise unknown("backbone", name, timm.list_models())


def create_timm(
    name: str, pretrained: Pretrained, *, owner: str, features_only: bool = False, **options: Any
) -> nn.Module:
    """A timm network without its classifier.

    Args:
        name: timm's name, with or without the tag of its weights.
        pretrained: True: timm's weights, from its cache or the hub; False: random ones; or a file in timm's
            keys, ``.safetensors`` or what ``torch.save`` wrote, from which no code is read. The file's
            classifier, of any number of classes, is left behind.
        owner: the caller, for errors.
        features_only: timm's feature extractor in place of the network.
        **options: others of ``timm.create_model``.

    Raises:
        TypeError: ``pretrained`` is something else.
        ValueError: timm has no such network, an option does not fit it, or the file is damaged or of another
            network.
        FileNotFoundError: no such file.
        RuntimeError: weights asked for do not exist or can't be fetched; known within seconds.

    Example:
        >>> create_timm("resnet18", "resnet18.safetensors", owner="example")(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 512])
    """
    check_timm_name(name)
    kind: dict[str, Any] = {"features_only": True} if features_only else {"num_classes": 0}
    if isinstance(pretrained, bool):
        if pretrained:
            _check_fetchable(name, owner)
        return _made(name, owner, pretrained, **kind, **options)
    state = _read_state(pretrained, owner)
    whole = _filled(name, state, Path(pretrained), owner, options)
    if not features_only:
        return whole
    # timm fills its extractors leniently; this state is known to fit.
    overlay = {"state_dict": whole.state_dict()}
    return _without_state(_made(name, owner, True, pretrained_cfg_overlay=overlay, **kind, **options))


def _made(name: str, owner: str, fetched: bool, **options: Any) -> nn.Module:
    from_hub = fetched and "pretrained_cfg_overlay" not in options
    try:
        return timm.create_model(name, pretrained=fetched, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if from_hub:
            # It may fail in any library on the way (hub, HTTP, TLS, disk): all are the same to the user.
            raise RuntimeError(_unfetched(name, owner, reason)) from error
        wrong = "does not give its stages' features" if options.get("features_only") else "can't be made so"
        raise ValueError(f"{owner}: {name} {wrong} ({reason})") from error


def _read_state(file: str | os.PathLike[str], owner: str) -> dict[str, Tensor]:
    """The state dict in a file, without unpickling code."""
    if not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"{owner}: pretrained must be True, False or a file, got {type(file).__name__}")
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{owner}: pretrained must be True, False or a file of weights, got {path}")
    try:
        state = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything, depending on the place
        reason = " ".join(str(error).split())[:200]
        kind = "safetensors" if isinstance(error, SafetensorError) else "a state dict without code"
        raise ValueError(f"{owner}: {path} is damaged or not {kind} ({reason})") from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{owner}: {path} must hold a state dict, names and tensors, in timm's keys")
    return dict(state)


def _filled(name: str, state: dict[str, Tensor], path: Path, owner: str, options: Any) -> nn.Module:
    """The network with every weight from the file, or ValueError; its classifier is gone."""
    # With as many classes as the file has: timm is strict then, and converts what older files have.
    known = timm.get_pretrained_cfg(name)
    classifier = (known.classifier if known is not None else None) or "head"
    first = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f"{first}.weight")
    classes = 0 if weight is None else len(weight)
    overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
    try:
        network = timm.create_model(
            name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay, **options
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{owner}: {path} does not hold the weights of {name} in timm's keys ({reason})"
        ) from error
    network.reset_classifier(0)  # type: ignore[operator]  # every network of timm has it
    return _without_state(network)


def _without_state(network: nn.Module) -> nn.Module:
    """Lets the weights go that timm keeps in the network's description."""
    for attribute in ("pretrained_cfg", "default_cfg"):
        described = getattr(network, attribute, None)
        if isinstance(described, dict):
            described.pop("state_dict", None)
    return network


def _check_fetchable(name: str, owner: str) -> None:
    """Raises ``RuntimeError`` at once where timm has no weights or the hub does not answer."""
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise RuntimeError(f"{owner}: timm has no weights for {name}: {GIVE_A_FILE}")
    if not known.hf_hub_id:
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = known.hf_hub_id.partition("@")
    files = [known.hf_hub_filename] if known.hf_hub_filename else list(CACHED)
    at = {"revision": revision} if revision else {}
    if any(isinstance(try_to_load_from_cache(repository, file, **at), str) for file in files):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repository, files[0], **at), timeout=PATIENCE)
    except EntryNotFoundError:
        return  # it answers: timm knows the other names
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RuntimeError(_unfetched(name, owner, reason)) from error


def _unfetched(name: str, owner: str, reason: str) -> str:
    return f"{owner}: the ImageNet weights of {name} could not be fetched ({reason}): {GIVE_A_FILE}"


def data_configuration(body: nn.Module) -> dict[str, Any]:
    """Timm's own for images of a network: ``input_size`` (C, H, W), ``mean``, ``std``, ``interpolation``."""
    configuration: dict[str, Any] = timm.data.config.resolve_model_data_config(body)
    return configuration
