"""Weights of whole networks of torchvision and segmentation_models_pytorch (smp), renamed for the networks
here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from segtrain.errors import CheckpointError
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.network import Network, typed
from segtrain.model.parts.aspp import rates_at

Tensors = Mapping[str, Tensor]
Rules = Mapping[str, str]
"""Regular expressions of the beginnings of their tensor names, and the beginnings of ours. The first match
counts."""

MOBILENETV3 = "mobilenetv3_large_100"
SPARE = ("aux.", "classification_head.")
"""Beginnings of tensors that a network may lack: auxiliary heads for training, and smp's classifier."""
SHOWN = ("name", "encoder", "aux")
"""Options whose value can be told from the names and shapes of the tensors."""


@dataclass(frozen=True)
class Import:
    """A file of another library, with tensors under our names.

    title: the network that the file holds.
    tensors: its tensors by our names.
    options: options of our network that computes the same.
    assumed: names of options that no tensor shows and that users of the library choose; `options` has the
        library's defaults for them.
    about_encoder: what an error message adds if the network does not fit.
    """

    title: str
    tensors: dict[str, Tensor]
    options: dict
    assumed: tuple[str, ...] = ()
    about_encoder: str = ""

    def needs(self) -> str:
        return f"it holds {self.title}, which needs {typed(self.options)}{self.about_encoder}"

    def check_spare(self, net: Network, source: str) -> list[str]:
        """Names of tensors of the file that `net` lacks; CheckpointError if one of them is not SPARE."""
        own = net.state_dict()
        left = [name for name in self.tensors if name not in own]
        missed = [name for name in left if not name.startswith(SPARE)]
        if missed:
            raise CheckpointError(
                f"init={source} does not fit the network: it has no place for {len(missed)} of the file's "
                f"{len(self.tensors)} tensors, "
                f"the first is {missed[0]}; {self.needs()}"
            )
        return left

    def about(self, net: Network, source: str) -> list[str]:
        """Lines about what was loaded, and about options that differ without changing the shape of a
        tensor."""
        left = self.check_spare(net, source)
        parts = sorted({name.partition(".")[0] for name in left})
        lines = [
            f"init: {self.title}, {len(self.tensors) - len(left)} of {len(self.tensors)} tensors under our "
            f"names" + (f"; left aside: {len(left)} of {', '.join(parts)}" if left else "")
        ]
        unlike = {
            key: value
            for key, value in self.options.items()
            if key not in SHOWN and _option(net, key, value) != value
        }
        assumed = {key: unlike.pop(key) for key in self.assumed if key in unlike}
        if unlike:
            lines.append(f"init: this network is built otherwise than that one, which has {typed(unlike)}")
        if assumed:
            lines.append(
                f"init: this network is built otherwise than that library's default, {typed(assumed)}; the "
                f"file does not say"
            )
        return lines


def recognised(tensors: Tensors, source: str = "the file") -> Import | None:
    """The network that a file of torchvision or smp holds, recognised by the names of its tensors; None for
    other files.

    source: the file's name in error messages. CheckpointError for a network of smp without a counterpart
    here.
    """
    if _any(tensors, r"backbone\.") and _any(tensors, r"classifier\."):
        return from_torchvision(tensors)
    if _any(tensors, r"segmentation_head\."):
        return from_smp(tensors, source)
    return None


def from_torchvision(tensors: Tensors) -> Import:
    """The state_dict of one of `torchvision.models.segmentation`."""
    mobile = _any(tensors, r"backbone\.0\.0\.")
    encoder = MOBILENETV3 if mobile else _resnet(tensors, "backbone.")
    trunk = _mobilenetv3(tensors) if mobile else {r"backbone\.": "encoder."}
    aux = {"aux": _any(tensors, r"aux_classifier\.")}
    dilation = (
        {"output_stride": 16, "contract_dilation": False, "norm_eps": 0.001}
        if mobile
        else {"output_stride": 8}
    )
    if _any(tensors, r"classifier\.cbr\."):
        heads = {
            r"classifier\.cbr\.": "reduce.",
            r"classifier\.scale\.1\.": "gate.",
            r"classifier\.(low|high)_classifier\.": r"\1_head.",
        }
        name, options = "lraspp", dilation
    elif _any(tensors, r"classifier\.0\.convs\."):
        heads = {
            **_pyramid(tensors, r"classifier\.0\."),
            r"classifier\.1\.": "extra.0.",
            r"classifier\.2\.": "extra.1.",
            r"classifier\.4\.": "head.",
            **_fcn_head(r"aux_classifier\.", "aux."),
        }
        name, options = (
            "deeplabv3",
            {**dilation, "rates": (12, 24, 36), "head": "torchvision", **aux, "dropout": 0.5},
        )
    else:
        heads = {**_fcn_head(r"classifier\.", "head."), **_fcn_head(r"aux_classifier\.", "aux.")}
        name, options = "fcn", {**dilation, **aux}
    encoder_title = "mobilenet_v3_large" if mobile else encoder or "resnet"
    return Import(
        f"torchvision's {name}_{encoder_title}",
        _renamed(tensors, {**trunk, **heads}),
        {"name": name, **({"encoder": encoder} if encoder else {}), "contract_dilation": True, **options},
    )


def from_smp(tensors: Tensors, source: str = "the file") -> Import:
    """The state_dict of smp's Unet, DeepLabV3 or DeepLabV3Plus. Output stride, rates and dropout, which no
    tensor shows, are smp's defaults."""
    # Encoders of timm ("tu-resnet50") are dilated by timm, with the contracted rule.
    prefix = "encoder.model." if _any(tensors, r"encoder\.model\.") else "encoder."
    encoder = _resnet(tensors, prefix)
    trunk = {
        re.escape(prefix) + r"features\.": "encoder.features_",
        re.escape(prefix): "encoder.",
        r"segmentation_head\.0\.": "head.",
    }
    dilation = {
        "contract_dilation": prefix != "encoder.",
        "rates": (12, 24, 36),
        "dropout": 0.5,
        "align_corners": True,
    }
    if _any(tensors, r"decoder\.blocks\.\d+\.conv1\.0\."):
        title, name = "Unet", "unet"
        rules = {
            r"decoder\.blocks\.(\d+)\.conv1\.": r"decoder.\1.0.",
            r"decoder\.blocks\.(\d+)\.conv2\.": r"decoder.\1.1.",
        }
        rules[r"decoder\.center\."] = "centre."
        options = {"decoder_widths": _unet_widths(tensors)}
    elif _any(tensors, r"decoder\.block2\."):
        title, name = "DeepLabV3Plus", "deeplabv3plus"
        rules = {
            **_pyramid(tensors, r"decoder\.aspp\.0\."),
            r"decoder\.aspp\.1\.([01])\.": r"aspp_conv.\1.",
            r"decoder\.aspp\.2\.": "aspp_conv.2.",
            r"decoder\.block1\.": "low_level.",
            r"decoder\.block2\.0\.([01])\.": r"decoder.0.\1.",
            r"decoder\.block2\.1\.": "decoder.0.2.",
        }
        options = {
            "output_stride": 16,
            **dilation,
            "aspp_conv": True,
            "decoder_convs": 1,
            "separable": True,
            "separable_form": "plain",
        }
    elif _any(tensors, r"decoder\.aspp\.convs\."):
        title, name = "DeepLabV3", "deeplabv3"
        rules = {
            **_pyramid(tensors, r"decoder\.aspp\."),
            r"decoder\.conv\.": "extra.0.",
            r"decoder\.bn\.": "extra.1.",
        }
        options = {"output_stride": 8, **dilation, "head": "torchvision"}
    else:
        raise CheckpointError(
            f"{source} holds a network of segmentation_models_pytorch without a counterpart here; allowed: "
            f"Unet, DeepLabV3, DeepLabV3Plus"
        )
    return Import(
        f"segmentation_models_pytorch's {title}",
        _renamed(tensors, {**trunk, **rules}),
        {"name": name, **({"encoder": encoder} if encoder else {}), **options},
        assumed=("output_stride", "rates", "dropout"),
        about_encoder="" if encoder else _about_encoder(tensors),
    )


def _about_encoder(tensors: Tensors) -> str:
    """What an error message says about an encoder of smp whose name its tensors do not show."""
    resnet = {"encoder.conv1.weight", "encoder.layer1.0.conv1.weight"} <= tensors.keys()
    if resnet or _any(tensors, r"encoder\.model\.") or _any(tensors, r"encoder\.features\.0\.weight"):
        return " and, as model.encoder, the encoder that it was trained with"
    return (
        "; the tensors of its encoder cannot be renamed: "
        "of segmentation_models_pytorch's encoders only those of resnet*, resnext*, vgg* and tu-* can"
    )


def _any(tensors: Tensors, pattern: str) -> bool:
    return any(re.match(pattern, name) for name in tensors)


def _renamed(tensors: Tensors, rules: Rules) -> dict[str, Tensor]:
    return {_rename(name, rules): tensor for name, tensor in tensors.items()}


def _rename(name: str, rules: Rules) -> str:
    for pattern, start in rules.items():
        found = re.match(pattern, name)
        if found:
            return found.expand(start) + name[found.end() :]
    return name


def _pyramid(tensors: Tensors, start: str) -> Rules:
    """Rules for the ASPP. Both libraries have its branches in our order; the last one is image pooling, whose
    pooling layer has no tensors."""
    branches = [int(found[1]) for name in tensors if (found := re.match(start + r"convs\.(\d+)\.", name))]
    last = max(branches, default=0)
    return {
        rf"{start}convs\.{last}\.1\.": f"aspp.branches.{last}.project.0.",
        rf"{start}convs\.{last}\.2\.": f"aspp.branches.{last}.project.1.",
        # smp's separable branches: depthwise and pointwise, then batch normalisation.
        rf"{start}convs\.(\d+)\.0\.([01])\.": r"aspp.branches.\1.\2.",
        **{
            rf"{start}convs\.{i}\.1\.": f"aspp.branches.{i}.2."
            for i in branches
            if _any(tensors, rf"{start}convs\.{i}\.0\.1\.")
        },
        rf"{start}convs\.": "aspp.branches.",
        rf"{start}project\.": "aspp.project.",
    }


def _fcn_head(start: str, ours: str) -> Rules:
    return {rf"{start}([01])\.": rf"{ours}conv.\1.", rf"{start}4\.": f"{ours}logits."}


def _mobilenetv3(tensors: Tensors) -> Rules:
    """Rules for MobileNetV3, whose modules torchvision numbers and timm names. Their order is the same;
    shapes are compared when tensors are copied."""
    theirs = sorted({_module(name) for name in tensors if name.startswith("backbone.")}, key=_numerically)
    with torch.device("meta"):
        ours = dict.fromkeys(_module(name) for name in encoder_of(MOBILENETV3, 3, 32).state_dict())
    return {re.escape(f"{module}."): f"encoder.{name}." for module, name in zip(theirs, ours, strict=False)}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _numerically(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in name.split(".")]


RESNETS = {
    (2, 2, 2, 2): ("resnet18", None),
    (3, 4, 6, 3): ("resnet34", "resnet50"),
    (3, 4, 23, 3): (None, "resnet101"),
    (3, 8, 36, 3): (None, "resnet152"),
}
"""By the units of the four stages: the ResNet with two and the one with three convolutions a unit."""


def _resnet(tensors: Tensors, prefix: str) -> str | None:
    """The name of a plain ResNet; None for other encoders."""
    start = re.escape(prefix)
    units = tuple(
        len({m[1] for name in tensors if (m := re.match(rf"{start}layer{i}\.(\d+)\.", name))})
        for i in (1, 2, 3, 4)
    )
    middle = tensors.get(f"{prefix}layer1.0.conv2.weight")
    parts = {m[1] for name in tensors if (m := re.match(rf"{start}layer1\.0\.(\w+)\.", name))}
    plain = f"{prefix}conv1.weight" in tensors and not parts - {
        "conv1",
        "bn1",
        "conv2",
        "bn2",
        "conv3",
        "bn3",
        "downsample",
    }
    if (
        not plain or middle is None or tuple(middle.shape[:2]) != (64, 64)
    ):  # grouped and wide ones have other numbers
        return None
    return RESNETS.get(units, (None, None))["conv3" in parts]


def _unet_widths(tensors: Tensors) -> tuple[int, ...]:
    found = {
        int(m[1]): tensor.shape[0]
        for name, tensor in tensors.items()
        if (m := re.match(r"decoder\.blocks\.(\d+)\.conv1\.0\.", name))
    }
    return tuple(found[i] for i in sorted(found))


def _option(net: Network, key: str, default):
    """The value of an option of `net`; `default` if `net` does not say. Rates that follow the output stride
    are returned as numbers."""
    options = net.built_with()
    if key == "rates" and options.get("rates", ()) is None:
        return rates_at(net.output_stride)
    return options.get(key, default)
