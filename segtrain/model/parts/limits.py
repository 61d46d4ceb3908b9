"""Limits of options that several networks have."""

from __future__ import annotations

from segtrain.options import between

CHANNELS = between(1, 4096)
"""Channels of one layer; fully connected layers of VGG16 have 4096."""
RATE = between(1, 4096)
"""Atrous rates: larger ones reach beyond any image."""
EPS = between(1e-10, 1)
"""eps of batch normalisation: with less, a constant channel is divided by almost nothing."""
