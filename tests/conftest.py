"""What tests of the command line share: the program called in this process, and a training that takes no
time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.commands import train as train_command
from segtrain.run.saved import write_config


@dataclass
class Result:
    """How a command line ended."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str, code: int = 2) -> None:
        """One line on stderr that holds `parts`, no traceback, that exit code."""
        assert self.code == code, self.err or self.out
        lines = [line for line in self.err.splitlines() if line.startswith("segtrain: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        for part in parts:
            assert part in lines[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """What is remembered of files is remembered for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write_pair() -> Callable:
    """write_pair(root, name, image, mask): ROOT/images/NAME.png and ROOT/masks/NAME.png."""

    def write(root: Path, name: object, image: np.ndarray, mask: np.ndarray) -> None:
        for kind, array in (("images", image), ("masks", mask)):
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)

    return write


@pytest.fixture
def segtrain(capsys, tmp_path, monkeypatch) -> Callable[..., Result]:
    """`segtrain("train", "model=unet")` in an empty working directory."""
    from segtrain.cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        code = main(list(words))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@dataclass
class FakeTraining:
    """Stands in for train_command.train. It keeps the configs that came, and does what `act` says."""

    configs: list[dict] = field(default_factory=list)
    folders: list[Path | None] = field(default_factory=list)
    act: Callable | None = None

    def __call__(self, config: dict, folder: Path | None, stop) -> dict:
        self.configs.append(config)
        self.folders.append(folder)
        if folder is not None:
            write_config(folder, config)
            (folder / "checkpoints" / "2").mkdir(parents=True, exist_ok=True)
        if self.act is not None:
            self.act(config, folder, stop)
        return {
            "step": 2,
            "val/miou": config["optimizer"]["lr"] / 2,
            "score": "val/miou",
            "lower_is_better": False,
        }


@pytest.fixture
def training(monkeypatch) -> FakeTraining:

    fake = FakeTraining()
    monkeypatch.setattr(train_command, "train", fake)
    return fake
