"""Freezing the encoder, for a whole training or for its first steps."""

from __future__ import annotations

from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.model.parts.norm import freeze_batch_norm, has_running_statistics, unfreeze_batch_norm
from segtrain.settings import Trainer
from segtrain.text import notice


class Freezing:
    """Called before each step with its number: freezes the encoder before step `until`, and lets it train
    from that step on. While it is frozen, its parameters have no gradient and its batch-norm statistics do
    not change.

    encoder: None if nothing is frozen for a part of the run.
    """

    def __init__(self, encoder: nn.Module | None = None, until: int = 0):
        self.encoder, self.until = encoder, until
        self._frozen: tuple[list[nn.Parameter], list[nn.Module]] | None = None

    def __call__(self, step: int) -> None:
        if self.encoder is None:
            return
        if step < self.until and self._frozen is None:
            self._frozen = freeze(self.encoder)
        elif step >= self.until and self._frozen is not None:
            parameters, norms = self._frozen
            for norm in norms:
                unfreeze_batch_norm(norm)
            for parameter in parameters:
                parameter.requires_grad_(True)
            self._frozen = None


def freeze(encoder: nn.Module) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """Freezes an encoder; returns the parameters and the batch normalisations that were not frozen before."""
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    norms = [module for module in encoder.modules() if has_running_statistics(module)]
    freeze_batch_norm(encoder.requires_grad_(False))
    return parameters, norms


def freeze_parts(settings: Trainer, network: Network, model: str, restored: bool) -> None:
    """Freezes what is frozen for the whole run: batch-norm and the encoder, so that the optimizer holds none
    of their parameters. ConfigError for a freezing that cannot be.

    model: the name of the network. restored: whether weights of a checkpoint follow; else a notice says where
    random weights are frozen.
    """
    if settings.freeze_batch_norm:
        freeze_batch_norm(network)
    if settings.freeze is None:
        if settings.freeze_steps is not None:
            raise ConfigError(
                f"trainer.freeze_steps={settings.freeze_steps} freezes nothing: trainer.freeze is null; "
                f"set trainer.freeze=encoder"
            )
        return
    if network.encoder is None or network.fits_itself:
        raise ConfigError(
            f"trainer.freeze=encoder: model={model} has no encoder to freeze; use a network with the option "
            f"model.encoder, or trainer.freeze=null"
        )
    report = network.weights_report
    if not restored and (report == Network.weights_report or ": starts from scratch" in report):
        notice("trainer.freeze=encoder freezes random weights: the encoder has no pretrained ones")
    if settings.freeze_steps is None:
        freeze(network.encoder)


def freezing_of(network: Network, settings: Trainer) -> Freezing:
    """The freezing of the encoder for the first trainer.freeze_steps steps."""
    if settings.freeze is None or settings.freeze_steps is None:
        return Freezing()
    return Freezing(network.encoder, settings.freeze_steps)
