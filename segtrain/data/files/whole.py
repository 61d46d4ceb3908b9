"""Images and masks that are read whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segtrain.data.files.channels import Channels
from segtrain.data.files.groups import groups_of
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairing import Files
from segtrain.data.files.pairs import Pair, PairedFiles, Targets
from segtrain.data.files.scan import Values, values_in
from segtrain.data.files.statistics import moments
from segtrain.data.parts import Split
from segtrain.sample import Normalisation


class Whole:
    """Each image of `files` is a sample."""

    kind = ""

    def __init__(self, files: Files, channels: Channels | None, max_pixels: int):
        self.files, self.channels, self.max_pixels = files, channels, max_pixels

    def groups(self, group: str | None, names: Iterable[str], root: str | None) -> dict[str, str]:
        """{name: its group} by the option data.group, see `groups_of`."""
        return groups_of(group, names, root)

    def values_of(self, path: str) -> Values:
        """The values of a mask, see `MaskReader`."""
        return values_in(path, self.max_pixels)

    def moments_of(self, path: str, channels: Channels) -> list:
        """The `moments` of a file."""
        return moments(channels.read(path, self.max_pixels))

    def splits(
        self,
        pairs: Mapping[str, Sequence[Pair]],
        labels: Labels | None,
        targets: Targets | None,
        normalisation: Normalisation | None,
    ) -> dict[str, Split]:
        """The splits of these pairs. targets: in place of masks."""
        return {
            split: PairedFiles(of_split, labels, self.max_pixels, channels=self.channels, targets=targets)
            for split, of_split in pairs.items()
        }
