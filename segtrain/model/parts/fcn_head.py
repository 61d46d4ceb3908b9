"""The head of FCN on a ResNet; other networks use it as an auxiliary head (Zhao et al. 2017, sec. 3.3;
torchvision)."""

from __future__ import annotations

import torch
from torch import nn

from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise


class FCNHead(nn.Module):
    """B×D×h×w -> B×C×h×w logits: a 3×3 convolution to a quarter of the channels, dropout, a 1×1
    convolution."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.1):
        super().__init__()
        width = max(1, in_channels // 4)
        self.conv = conv_norm_relu(in_channels, width)
        self.dropout = nn.Dropout(dropout)
        initialise(self.conv)
        self.logits = head_of(width, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(self.dropout(self.conv(x)))
