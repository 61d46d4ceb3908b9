"""The networks, by name."""

from collections.abc import Mapping

from segtrain.errors import ConfigError
from segtrain.model.cascade import cascade
from segtrain.model.classical.classical import classical
from segtrain.model.deconvnet import deconvnet
from segtrain.model.deeplabv3 import deeplabv3
from segtrain.model.deeplabv3plus import deeplabv3plus
from segtrain.model.dilated import dilated
from segtrain.model.fcn import fcn
from segtrain.model.fcn_vgg import fcn8s, fcn16s, fcn32s
from segtrain.model.lraspp import lraspp
from segtrain.model.network import Network
from segtrain.model.patchwise import patchwise
from segtrain.model.unet import unet
from segtrain.model.unet_original import unet_original
from segtrain.model.unet_padded import unet_padded
from segtrain.registry import Table


class Networks(Table):
    """The table of networks. What plug-ins add has to inherit from `Network` as well."""

    def build(self, config: Mapping, **runtime) -> Network:
        net = super().build(config, **runtime)
        if not isinstance(net, Network):
            raise ConfigError(
                f"model={config['name']} makes a {type(net).__name__}, which does not inherit from "
                f"segtrain.model.network.Network; ask its author, or use another network"
            )
        return net


MODEL = Networks(
    "model",
    {
        "cascade": cascade,
        "classical": classical,
        "deconvnet": deconvnet,
        "deeplabv3": deeplabv3,
        "deeplabv3plus": deeplabv3plus,
        "dilated": dilated,
        "fcn": fcn,
        "fcn16s": fcn16s,
        "fcn32s": fcn32s,
        "fcn8s": fcn8s,
        "lraspp": lraspp,
        "patchwise": patchwise,
        "unet": unet,
        "unet_original": unet_original,
        "unet_padded": unet_padded,
    },
)
