"""What a wheel holds is what a user gets: it composes every config and trains."""

import configparser
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed():
    """A sub-package that setup.cfg does not list works in an editable install and is missing from the
    wheel."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "segtrain").rglob("__init__.py")
    }
    assert listed == found | {"segtrain.conf"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Python of an empty environment with the wheel in it; the other packages are those of this one."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    purelib = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    # Lines of a .pth are added to the path, but the editable segtrain over there is found by a .pth of its
    # own, which is not read.
    (purelib / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def in_empty_folder(python, tmp_path, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [python, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )


COMPOSE = """
import segtrain, sys
from pathlib import Path
from segtrain.cli.main import main
conf = Path(segtrain.__file__).parent / "conf"
for group in ("data", "model", "loss", "optimizer", "schedule", "augmentation", "tta", "task", "experiment"):
    for file in sorted((conf / group).glob("*.yaml")):
        # Options without a default, as a user would give them.
        of_published = group != "augmentation" and file.stem.startswith(("ade20k", "camvid", "cityscapes", "coco", "deck", "sweep", "voc"))
        needed = {"folder": ["data.images=x", "data.masks=x"], "concat": ["data.sets={camvid:{root:x}}"],
                  "weighted_sum": ["loss.terms={jaccard: {}}"]}.get(file.stem, ["data.root=x"] * of_published)
        code = main(["train", f"{group}={file.stem}", *needed, "--cfg", "job"])
        assert code == 0, (file, code)
print("composed from", segtrain.__file__)
"""


@pytest.mark.slow
def test_the_wheel_composes_every_config(installed, tmp_path):
    ended = in_empty_folder(installed, tmp_path, "-c", COMPOSE)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert str(installed.parent.parent) in ended.stdout.splitlines()[-1]


def test_the_wheel_trains(installed, tmp_path):
    tiny = (
        "data.size=48",
        "data.num_train=8",
        "data.num_val=2",
        "loader.batch_size=4",
        "loader.workers=0",
        "evaluate.workers=0",
    )
    ended = in_empty_folder(
        installed, tmp_path, "-m", "segtrain", "train", *tiny, "trainer.steps=2", "device=cpu"
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert list(tmp_path.glob("outputs/*/*/checkpoints/2/model.safetensors"))
