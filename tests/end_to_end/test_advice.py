"""What an error proposes is done, and then that error is gone."""

import ast
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import main
from segtrain.commands import train as train_command

PACKAGE = Path(__file__).parents[2] / "segtrain"
QUICK = ("device=cpu", "threads=1", "evaluate.workers=0")
PLAIN = (*QUICK, "augmentation=none", "loader.batch_size=2", "loader.workers=0")
SHAPES = ("data.size=48", "data.num_train=4", "data.num_val=2")
UNET = ("model=unet", "model.widths=[4,8]")
DRY = "dry_run=true"
SIGMOID = "task.activation=sigmoid"
TRAIN = ("train", *PLAIN, *SHAPES)
EVALUATE = ("evaluate", "run=outputs/first", *QUICK)
FOLDER = ("train", *PLAIN, *UNET, "data=folder", "data.images=same/images", "data.masks=same/masks", DRY)
OWN = ("--config-dir", "conf")


def file_of(images: Path, masks: Path, heights=(48,), times: int = 1) -> None:
    rng = np.random.default_rng(0)
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(6):
        size = (heights[index % len(heights)], 48)
        picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(images / f"{index}.png")
        Image.fromarray((picture[..., 0] % 2 * times).astype(np.uint8)).save(masks / f"{index}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with runs (outputs/first with two checkpoints; outputs/nameless, of data=folder;
    outputs/stages), three folders of pairs and conf/experiment/two.yaml."""
    place = tmp_path_factory.mktemp("advice")
    file_of(place / "same" / "images", place / "same" / "masks")
    file_of(place / "mixed" / "images", place / "mixed" / "masks", heights=(48, 64))
    file_of(place / "same" / "images", place / "gap" / "masks", times=5)
    (place / "conf" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\nstages: [[optimizer.lr=0.01], [optimizer.lr=0.001]]\n"
    (place / "conf" / "experiment" / "two.yaml").write_text(recipe)
    steps = ("trainer.steps=2", "trainer.save_every=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main([*TRAIN, *UNET, *steps, "name=first"]) == 0
        assert main([*FOLDER[:-1], "trainer.steps=1", "name=nameless"]) == 0
        staged = (*TRAIN, *OWN, *UNET, "experiment=two", "trainer.steps=1", "name=stages")
        assert main([*staged]) == 0
    return place


@pytest.fixture
def call(trained, tmp_path, monkeypatch, capsys):
    """call(words) -> (exit code, the error without `segtrain: error: `), in a copy of the directory."""
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def call(words) -> tuple[int, str]:
        code = main(list(words))
        lines = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("segtrain: error: ")
        ]
        return code, lines[0].removeprefix("segtrain: error: ") if lines else ""

    return call


WORD = re.compile(r"(?<![\w.`$])([a-z][\w.]*)=('[^']*'|\[[^\]]*\]|\{[^}]*\}|[^\s,;:()]+)")
PLACEHOLDERS = {"NAME": "fresh", "FOLDER": "outputs/first", "FOLDER,FOLDER": "outputs/first,outputs/first"}


def proposals(message: str, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What the message proposes, each as words to type: whole commands, key=value, and -KEY to leave one
    out."""
    commands = re.findall(r"`(segtrain [^`]+)`|(segtrain config [^;]+)", message)
    if commands:
        return [tuple(shlex.split(first or second)) for first, second in commands]
    # What came is said before what to do; remarks stand in brackets.
    advice = re.sub(r"\([^)]*\)", "", message.rpartition("; ")[2])
    found = []
    for key, value in WORD.findall(advice):
        value = value.strip("'")
        for name, example in PLACEHOLDERS.items():
            value = re.sub(rf"\b{name}\b", example, value)
        if f"{key}={value}" not in words:
            found.append((f"{key}={value}",))
    found += [(f"-{key}",) for key in re.findall(r"leave (\w+) out", message)]
    return found


def applied(words: tuple[str, ...], proposal: tuple[str, ...]) -> tuple[str, ...]:
    """The command line with the proposal followed."""
    if proposal[0] == "segtrain":
        return proposal[1:]
    keys = {one.removeprefix("-").partition("=")[0] for one in proposal}
    kept = [word for word in words if word.partition("=")[0] not in keys]
    return (*kept, *(one for one in proposal if not one.startswith("-")))


@dataclass
class Case:
    """words: a command line that fails. message: of its error, as the source has it.

    follow: in place of what the error's `key=value` words are, what it proposes in prose. together: its words
    go together. then: the error that may come next, where the command cannot end well in a test. first: done
    in the working directory beforehand.
    """

    words: tuple[str, ...]
    message: str
    follow: list[tuple[str, ...]] | None = None
    together: bool = False
    then: str = ""
    first: object = None


def damage_best(place: Path) -> None:
    (place / "outputs" / "first" / "checkpoints" / "best" / "description.json").write_text("{}")


def lossy_masks(place: Path) -> None:
    for path in (place / "same" / "masks").glob("*.png"):
        Image.open(path).point(lambda value: 255 * value).save(path.with_suffix(".jpg"), quality=100)
        path.unlink()


def pages_for_images(place: Path) -> None:
    for path in (place / "same" / "images").glob("*.png"):
        first, *others = Image.open(path).split()
        first.save(path.with_suffix(".tif"), save_all=True, append_images=others)
        path.unlink()


NOT_THERE = "is not a folder"
CASES = {
    # --- data sets
    "masks of lossy compression": Case(
        (*FOLDER, "data.classes=[a,b]", "data.label_map={0: 0, 255: 1}"),
        ", whose compression changes the class numbers; ",
        first=lossy_masks,
    ),
    "the nearest of no classes": Case(
        (*FOLDER, "data.lossy_masks=true"), "data.lossy_masks takes the nearest of given values or colours, and without",
        [("data.classes=[background,foreground]", "data.label_map={0: 0, 255: 1}")], first=lossy_masks,
    ),
    "the nearest of no values": Case(
        (*FOLDER, "data.lossy_masks=true", "data.classes=[a,b]"), "data.lossy_masks takes the nearest of given values or colours, and none",
        [("data.label_map={0: 0, 255: 1}",)], first=lossy_masks,
    ),
    "images of several pages": Case((*FOLDER,), " pages, and one image is expected; ", first=pages_for_images),
    "classes of an annotation with its own": Case(
        ("train", *PLAIN, *UNET, "data=coco", "data.labels=stuff", "data.classes=voc", "data.root=nowhere"),
        "; choose classes with data.labels=instances",
        then=NOT_THERE,
    ),
    "the memory of what is no GPU": Case(
        ("train", *PLAIN, *UNET, "loader.batch_size=auto", "device=cpu", DRY), "loader.batch_size=auto measures the memory of a CUDA",
    ),
    "batch-norm over several GPUs without one": Case(
        ("train", *PLAIN, *UNET, "trainer.sync_batch_norm=true", "device=cpu", DRY), "trainer.sync_batch_norm=true needs GPUs",
    ),
    "a report of views in training": Case(
        ("train", *PLAIN, *UNET, "evaluate.tta_report=true", DRY), "evaluate.tta_report=true is for segtrain evaluate alone; ",
    ),
    "no data sets": Case(
        ("train", *PLAIN, *UNET, "data=concat", "data.sets={}"), "data.sets is empty; give data sets, ", [("data.sets={voc:{root:VOC}}",)],
        then=NOT_THERE
    ),
    "scores of another benchmark": Case(
        (*EVALUATE, "metric=[confusion,cityscapes]"),
        "metric.cityscapes scores the 19 classes of Cityscapes and nothing else; ",
        [("metric=confusion",)],
    ),
    "labels of a set without masks": Case(
        ("score", "predictions=same/masks", "data=shapes", *SHAPES, "ids=labels"),
        "has none; use ids=classes",
        then="have no prediction",
    ),
    # --- runs and checkpoints
    "another checkpoint": Case(EVALUATE, ", use checkpoint=", first=damage_best),
    "a checkpoint's folder": Case(
        ("evaluate", "run=outputs/first/checkpoints/1", *QUICK),
        "is a checkpoint; give the run's folder, ",
        [("run=outputs/first", "checkpoint=1")],
    ),
    "a checkpoint's folder to compare": Case(
        ("compare", "runs=[outputs/first/checkpoints/1]", *QUICK),
        "is a checkpoint; give the run's folder, ",
        [("runs=[outputs/first]", "checkpoint=1")],
    ),
    "a checkpoint's folder to start from": Case(
        (*TRAIN, *UNET, "init=outputs/first/checkpoints/1", DRY),
        "is a checkpoint; give the run's folder, ",
        [("init=outputs/first",)],
    ),
    "a second network's checkpoint": Case(
        (*EVALUATE, "predictor.ensemble=outputs/first/checkpoints/1"),
        "is a checkpoint; give the run's folder, ",
        [("predictor.ensemble=outputs/first",)],
    ),
    "stages to evaluate": Case(
        ("evaluate", "run=outputs/stages", *QUICK), " holds stages; give one of them: ", [("run=outputs/stages/stage2",)]
    ),
    "stages to start from": Case(
        (*TRAIN, *UNET, "init=outputs/stages", DRY),
        " holds stages; give one of them: ",
        [("init=outputs/stages/stage1",), ("init=outputs/stages/stage2",)],
    ),
    "stages as a second network": Case(
        (*EVALUATE, "predictor.ensemble=outputs/stages"),
        " holds stages; give one of them: ",
        [("predictor.ensemble=outputs/stages/stage2",)],
    ),
    "stages without their recipe": Case(
        ("train", "resume=outputs/stages", *QUICK),
        " To go on with all of them, repeat the command with resume=auto and name=NAME or ",
        [
            (*TRAIN, *OWN, *UNET, "experiment=two", "trainer.steps=1", "resume=auto", "name=stages"),
            (*TRAIN, *OWN, *UNET, "experiment=two", "trainer.steps=1", "resume=auto", "hydra.run.dir=outputs/stages"),
        ],
    ),
    "stages that resume a single run": Case(
        (*TRAIN, *UNET, "trainer.steps=1", "stages=[[optimizer.lr=0.1]]", "resume=outputs/first"),
        " resumes a single run, not stages; use name=NAME resume=auto to resume all of them",
        together=True,
    ),
    "an experiment for a resumed run": Case(
        ("train", "resume=outputs/first", "experiment=demo", DRY), "; leave experiment out, or leave resume out"
    ),
    "a name that is taken": Case(
        (*TRAIN, *UNET, "trainer.steps=2", "trainer.save_every=1", "name=first"), ", or resume that run by resume="
    ),
    "resume without a name": Case((*TRAIN, *UNET, "trainer.steps=1", "resume=auto"), "; add name=NAME, or give resume=FOLDER", [("name=fresh",)]),
    "no run": Case(("evaluate", *QUICK), " needs the folder of a run; add "),
    "no runs": Case(("compare", *QUICK), "runs=[FOLDER,FOLDER]"),
    "no runs in the list": Case(("compare", "runs=[]", *QUICK), " needs the folder of a run; add "),
    "another value for a resumed run": Case(
        ("train", "resume=outputs/first", "optimizer.lr=0.5", "trainer.steps=1", *QUICK),
        ", with init=outputs/first to start from its weights",
        [(*TRAIN, *UNET, "optimizer.lr=0.5", "trainer.steps=1", "name=other", "init=outputs/first")],
    ),
    "another name and hydra's folder": Case(
        (*TRAIN, *UNET, "trainer.steps=1", "name=a", "hydra.run.dir=outputs/b"),
        " both say where the run goes; give one of them",
        [("-name",), ("-hydra.run.dir",)],
    ),
    # --- options of a network with weights
    "options that need other weights": Case(
        (*EVALUATE, "model.widths=[4,16]"),
        "; for others train a new run with ",
        [(*TRAIN, *UNET, "model.widths=[4,16]", DRY)],
    ),
    "another network": Case(
        (*EVALUATE, "model=fcn"), "train a new run with model=", [(*TRAIN, "model=fcn", "model.encoder=test_resnet", "model.weights=none", DRY)]
    ),
    "init of other options": Case((*TRAIN, "model=unet", "model.widths=[4,16]", "init=outputs/first", DRY), "use the network of that run: ", together=True),
    "init of a network that is fitted": Case(
        (*TRAIN, "model=classical", "init=outputs/first", DRY), " is fitted to the data alone; leave init out"
    ),
    # --- the command line
    "list encoders": Case(("list", "encoders", "zzzz"), "; try `segtrain list encoders resnet`"),
    "config name": Case((*TRAIN, *UNET, DRY, "--config-name", "demo"), "each command has one; choose by experiment=NAME", [(*TRAIN, *UNET, "experiment=demo", DRY)]),
    "no key": Case((*TRAIN, *UNET, DRY, "1a=3"), " cannot be a key; keys are words joined by dots, such as ", [(*TRAIN, *UNET, DRY, "trainer.steps=100")]),
    "an unknown key": Case((*TRAIN, "modle=unet", DRY), "` lists all keys"),
    "several names for one choice": Case(
        (*TRAIN, "model=[unet,unet_padded]", DRY), " gives several names; a run has one ", [("model=unet", *UNET[1:])]
    ),
    "describe a network without layers": Case(("describe", "model=classical"), " has no layers with weights to describe; its options: "),
    # --- sweeps
    "a sweep that resumes a run": Case(
        (*TRAIN, *UNET, "-m", "trainer.steps=1", "optimizer.lr=0.1,0.2", "resume=outputs/first"),
        "; to resume a sweep, repeat its command with the same name=NAME",
        [("-resume", "name=fresh")],
    ),
    "a sweep in the folder of a run": Case(
        (*TRAIN, *UNET, "-m", "trainer.steps=1", "optimizer.lr=0.1,0.2", "hydra.run.dir=x"),
        "hydra.run.dir is for a single run; a sweep takes name=NAME or hydra.sweep.dir=FOLDER",
        [("-hydra.run.dir", "name=fresh"), ("-hydra.run.dir", "hydra.sweep.dir=outputs/swept")],
    ),
    "a sweep with two places": Case(
        (*TRAIN, *UNET, "-m", "trainer.steps=1", "optimizer.lr=0.1,0.2", "name=a", "hydra.sweep.dir=outputs/b"),
        " both say where the sweep goes; give one of them",
        [("-name",), ("-hydra.sweep.dir",)],
    ),
    "a sweep of stages": Case(
        (*TRAIN, *OWN, *UNET, "-m", "trainer.steps=1", "experiment=two", "optimizer.lr=0.1,0.2"),
        "; add stages=null to run the experiment without them",
    ),
    # --- training
    "images of several sizes": Case(
        ("train", *PLAIN, *UNET, "data=folder", "data.images=mixed/images", "data.masks=mixed/masks", DRY),
        " and cannot share a batch; set augmentation.warp.size=",
    ),
    "batch-norm of one value": Case(
        (*TRAIN, "model=deeplabv3", "model.encoder=test_resnet", "model.weights=none", "loader.batch_size=1", DRY),
        ", set trainer.freeze_batch_norm=true",
        [("trainer.freeze_batch_norm=true",), ("model.image_pooling=false",), ("loader.batch_size=2",)],
    ),
    "another metric than the score's": Case((*TRAIN, *UNET, "metric=[boundary]", DRY), "lacks confusion, which gives the score"),
    "a GPU that is not there": Case((*TRAIN, *UNET, "device=cuda:9", DRY), " of them; use device=auto"),
    "a compiler that is not there": Case(
        (*TRAIN, *UNET, "trainer.compile=inducto", DRY), ", aot_eager, null", [("trainer.compile=aot_eager",), ("trainer.compile=null",)]
    ),
    # --- data
    "gaps between classes": Case((*FOLDER, "data.masks=gap/masks"), "set data.label_map='"),
    "no label among the classes": Case(
        (*FOLDER, "data.classes=[sky]", "data.ignore_value=0"), "; where the masks number the classes around it, set "
    ),
    "no label among the classes, without names": Case((*FOLDER, "data.ignore_value=0"), "set data.label_map='"),
    "other names": Case(
        ("evaluate", "run=outputs/nameless", *QUICK, "data.classes=[sky,road]"), "if they are the same under other names, use data.classes="
    ),
    # --- networks
    "context of another depth": Case(
        (*TRAIN, "model=dilated", "model.weights=none", "model.width=0.1", "model.context=large", "model.context_dilations=[1,2]", DRY),
        ": give as many, or use model.context=basic",
        then="model.context_dilations has 2 entries",
    ),
    "weights of the small encoder": Case(
        (*TRAIN, *UNET, "model.weights=imagenet", DRY), "the small encoder has no published weights; use ",
        [("model.weights=null",), ("model.encoder=resnet18", "-model.widths", "model.weights=none")],
    ),
    "published weights of another width": Case(
        (*TRAIN, "model=fcn32s", "model.weights=imagenet", "model.width=0.1", DRY), ": published weights have width 1; set model.weights=none"
    ),
    "weights that are out of reach": Case(
        (*TRAIN, "model=fcn", "model.encoder=resnet18", DRY), "use model.weights=none to start from scratch, or pip install ",
        [("model.weights=none",)],
    ),
    "weights of VGG that are out of reach": Case(
        (*TRAIN, "model=fcn8s", DRY), "use model.weights=none to start from scratch, or the path of torchvision's", [("model.weights=none", "model.width=0.1")]
    ),
    "an encoder of certain sides": Case(
        (*TRAIN, "model=fcn", "model.encoder=efficientformerv2_s0", "model.weights=none", "model.output_stride=32", DRY),
        "; use model=unet or model.encoder=resnet50",
        [("model.encoder=resnet50",)],
    ),
    "a grid of dilations": Case(
        (*TRAIN, "model=deeplabv3", "model.encoder=mobilenetv2_100", "model.weights=none", "model.multi_grid=[1,2]", DRY),
        "not have; use model.multi_grid=null or model.encoder=resnet50",
        [("model.multi_grid=null",)],
    ),
    "an encoder without features": Case(
        (*TRAIN, "model=deeplabv3", "model.encoder=vit_tiny_patch16_224", "model.weights=none", DRY), "such as model.encoder=resnet50"
    ),
    "windows too small for the encoder": Case(
        (*TRAIN, "model=patchwise", "model.encoder=vgg16", "model.patch=16", "model.weights=none", DRY), "larger model.patch, or model.encoder=resnet18",
        [("model.patch=33",), ("model.encoder=resnet18",)],
    ),
    "an encoder that takes no windows": Case(
        (*TRAIN, "model=patchwise", "model.encoder=vit_tiny_patch16_224", "model.weights=none", DRY), "larger model.patch, or model.encoder=resnet18",
        [("model.encoder=resnet18",)],
    ),
    # --- prediction
    "disagreement without views": Case(
        ("predict", "run=outputs/first", "input=same/images", "output=out", "device=cpu", "disagreement=true"),
        "disagreement=true compares views, and tta names none; add ",
    ),
    "a report without views": Case(
        (*EVALUATE, "evaluate.tta_report=true"), "evaluate.tta_report=true compares views, and tta names none; add "
    ),
    "a solver that is not installed": Case(
        (*EVALUATE, "predictor.crf=deeplab", "predictor.crf_solver=pydensecrf"), "or use predictor.crf_solver=torch"
    ),
    "boxes for log-probabilities": Case(
        (*TRAIN, "model=classical", "predictor.boxes=grid", DRY), "; use predictor.boxes=null"
    ),
    "boxes for the inner part": Case(
        (*TRAIN, "model=unet_original", "augmentation.warp.size=188", "predictor.boxes=grid", DRY), "only; use predictor.",
    ),
    "a product of log-probabilities": Case(
        (*TRAIN, "model=classical", "predictor.ensemble=outputs/first", DRY), "use predictor.ensemble_merge=mean"
    ),
    "log-probabilities for a sigmoid": Case(
        (*TRAIN, "model=classical", SIGMOID, DRY), "; use task.activation=softmax"
    ),
    "boxes for a sigmoid": Case(
        (*TRAIN, *UNET, SIGMOID, "loss=dice", "predictor.boxes=grid", "predictor.box_sides=[112]", DRY),
        "merges scores from 0 on, each",
    ),
    # --- tasks
    "five classes for a binary task": Case(
        (*TRAIN, *UNET, "task=binary", "loss=dice", DRY), "task=binary tells one class from background", [("task=semantic",)],
    ),
    # --- losses
    "a ramp to nowhere": Case(
        (*TRAIN, *UNET, "loss=ohem", "loss.ramp_steps=9", DRY), "set it, or use loss.ramp_steps=0",
        [("loss.ramp_steps=0",), ("loss.top_k=0.5",)],
    ),
    "absent classes without a gradient": Case(
        (*TRAIN, *UNET, "loss=dice", "loss.classes=all", "loss.smooth=0", DRY), "or absent classes have no gradient"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_an_error_proposes_helps(call, case, tmp_path):
    if case.first:
        case.first(tmp_path)
    code, message = call(case.words)
    assert code != 0 and case.message in message, message
    found = case.follow or proposals(message, case.words)
    assert found, message
    for proposal in [sum(found, ())] if case.together else found:
        again = proposal if proposal[0] == "train" else applied(case.words, proposal)
        code, other = call(again)
        allowed = case.then and case.then in other and case.message not in other
        assert code == 0 or allowed, f"{message}\n{' '.join(again)}\n{other}"


@pytest.mark.parametrize("word", ["trainer.accumulate=2", "trainer.amp=bf16"])
def test_what_helps_against_too_little_memory(call, monkeypatch, word):
    learn = train_command.training.train

    def small(state, learning, *rest, **more):
        if learning.settings.accumulate == 1 and learning.settings.amp == "none":
            raise MemoryError
        return learn(state, learning, *rest, **more)

    monkeypatch.setattr(train_command.training, "train", small)
    words = (*TRAIN, *UNET, DRY)
    code, message = call(words)
    assert code == 6 and "use trainer.accumulate=" in message and (word,) in proposals(message, words)
    assert call((*words, word)) == (0, "")


def test_a_link_that_points_elsewhere_is_removed(call, tmp_path):
    best = tmp_path / "outputs" / "first" / "checkpoints" / "best"
    best.unlink()
    best.symlink_to("../elsewhere")
    code, message = call(EVALUATE)
    assert code == 4 and "remove it: the newest" in message
    best.unlink()
    assert call(EVALUATE) == (0, "")


# --- every error that proposes something is among the cases, or cannot be met in a test

NOT_RUN = {
    "starts the trials of a sweep; add --multirun or sweep=NAME": "sweeps: tests of Optuna's sweeps",
    "is an option of a sweep; add --multirun or sweep=NAME": "sweeps: tests of Optuna's sweeps",
    "sweep=optuna has nothing to choose; give at least one key": "sweeps: tests of Optuna's sweeps",
    "needs launcher=joblib or launcher=submitit; add one of them": "sweeps: tests of sweeps",
    "stages run one after another in one process; under torchrun": "several processes: tests of ranks",
    "torchrun --max-restarts restarts a run that has failed": "several processes: tests of ranks",
    "needs a Slurm job, and": "Slurm: tests of requeueing",
    "which is no number of a Slurm job": "Slurm: tests of requeueing",
    "starts the same command again, which would begin another run": "Slurm: tests of requeueing",
    "which take one each; use device=cuda": "several processes: tests of ranks",
    "unreadable samples replaced by others: ": "a count, no error",
    "trainer.strategy=fsdp does not go with": "several processes: tests of ranks",
    "Written by segtrain plan for": "the head of a file",
    "with stray values, as smoothed edges have: make each": "tests of data=folder",
    "too little for the training step of one image; use smaller": "needs a small GPU",
    "exists; give another name, or overwrite=true": "plan takes a minute: its own tests",
    "exists; give another output, or overwrite=true": "plan takes a minute: its own tests",
    "training goes on without them with loader.on_bad=skip": "a part of a list",
    "{ARCHIVE}.zip holds; found: ": "needs the archive",
    "{TRAINVAL[self.year]} holds; found: ": "needs the archive",
    "of SBD with segtrain data prepare": "needs the archive",
    "; lead it to a common class or to null in data.class_map": "tests of data=concat",
    "the annotations hold labels that are no class": "tests of annotations",
    "alpha aside, and grey or RGB is expected; ": "tests of layouts",
    "] for three of them": "tests of layouts",
    "are read by data=coco data.labels=panoptic": "needs COCO",
    "if these are the values of the data set's own masks, set ids=labels": "tests of scores",
    "with the images of a benchmark; choose data=cityscapes or data=voc": "needs a benchmark",
    "loader.cache=disk needs to know the files of each sample": "needs a data set of a plug-in",
    "set loader.cache_dir to a folder on another disk": "needs a full disk",
    "the front end alone, from whose run": "an option's meaning, no error",
    "set augmentation.warp.size, or loader.batch_size=1": "the training has refused such images before",
    "model.patch=224 or more); use model.dense=false": "an encoder whose windows overlap otherwise",
    "is not convolutional to its end; use ": "needs an encoder of another kind that takes any window",
    " or use model.smoothing=icm": "needs a machine without PyMaxflow",
    "strides are not ": "no encoder that timm builds at such a stride is known to",
    "the decoder needs; use model.encoder=resnet50": "no encoder with such features and without that stride is known",
    "give torchvision's or timm's vgg16": "a file of weights of another network: tests of the reader",
    "choose the encoder that the weights were made ": "a file of weights of another network: tests of the reader",
    "timm publishes no ImageNet weights for": "needs an encoder without weights and the hub",
    "images.shape[1]} channels; use ": "needs images of another number of channels",
    "needs the probabilities of two classes or more": "needs a task of one class",
    "a view of tta has another size than the image": "tests of the views",
    "cannot compile this network": "needs a network that a compiler refuses",
    "fp16 loss scale fell": "needs a scale that falls below 1",
    "use augmentation=cutmix": "tests of augmentation",
    "the predictions seem to hold": "a warning: nothing fails",
    "or set data.window=null": "tests of windows",
    ", or with data=folder set data.window=512": "needs a TIFF of more than 64 million pixels",
    "not annotations; set data.window=null": "tests of windows",
    "has no encoder to freeze": "tests of freezing",
    "freezes nothing: trainer.freeze is null": "tests of freezing",
    "for another split, whose validation images may": "tests of what is scored",
    "or a loss for a {activation}": "tests of the losses' heads",
    "the state of the run does not fit": "a forged state: tests of the state",
    "runs is empty; name the folders": "the command line refuses an empty list before",
    "set data.label_map='{0: 0, 255: 1}'": "a warning: nothing fails",
    "integers from 1, one for each unit": "says which encoder it is",
    "each with masks of its own; use data=folder with data.labels": "tests of the tasks of labels",
    "scores one class a pixel, and a pixel of task=": "tests of the tasks of labels",
    "is fitted only by the evaluation itself": "tests of the tasks of labels",
    "compares classes that exclude each other": "tests of the losses of labels",
    "the run for task={task}; use a run of the same": "tests of sigmoids",
    "the names of their folders of masks": "tests of the tasks of labels",
    "an option of segtrain train, data check and data show": "tests of the tasks of labels",
    "predictor.crf works on classes that exclude each other": "tests of sigmoids",
    "takes class 0 for the background": "tests of the background",
}  # fmt: skip


def text_of(node: ast.AST) -> str | None:
    """The text of a literal, with {source} where an f-string has a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (
            text_of(one) if isinstance(one, ast.Constant) else f"{{{ast.unparse(one.value)}}}"
            for one in node.values
        )
        return "".join(parts)
    return None


ADVICE = re.compile(
    r"\b(use|set|add|take|try|by|with|choose|give|repeat|its options:|or|run|the runs:) "
    r"([^;]*? )?[`'(]?((segtrain [a-z]+ [a-z{])|[a-z_]+(\.[a-z_]+)*=[\w\[{'])"
)


def texts_with_advice() -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        help_texts = path.parent.name == "settings" or path == PACKAGE / "commands" / "__init__.py"
        if help_texts or path.name == "help.py" or path.parent.name == "report":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node) if part is not node
        }  # fmt: skip
        texts = (text_of(node) for node in ast.walk(tree) if id(node) not in docs | inner)
        found += [text for text in texts if text and ADVICE.search(text)]
    return found


def test_every_error_that_proposes_something_is_followed_here():
    texts = texts_with_advice()
    assert len(texts) > 30
    known = [
        *(case.message for case in CASES.values()),
        *NOT_RUN,
        "trainer.accumulate=",
        "lacks {missing[0]}",
        ", with init={folder}",
    ]
    assert [text for text in texts if not any(one in text for one in known)] == []
    assert [one for one in NOT_RUN if not any(one in text for text in texts)] == []
