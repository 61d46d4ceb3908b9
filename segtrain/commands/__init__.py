"""The commands, one row each, and the check of a command's fixed sections. Importing this module imports no
command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segtrain.errors import ConfigError, unknown_key
from segtrain.options import check_options, options_of
from segtrain.settings import (
    Compare,
    DataCheck,
    DataPrepare,
    DataShow,
    DataStats,
    Describe,
    Evaluate,
    EvaluateSettings,
    Explain,
    Launcher,
    Loader,
    Plan,
    Predict,
    PredictorSettings,
    Run,
    Sampler,
    Score,
    Submit,
    Sweep,
    SweepShow,
    Trainer,
)


@dataclass(frozen=True)
class Command:
    """One command: its name, the config that it takes, and its help.

    words: of its name, one or two. example, about: its line in the general help. sections: the fixed sections
    of its config, {name: dataclass}, with "" for the top level; empty for commands without a config.
    of_sweep: those of them that say how a sweep is run, and that its trials do not have. groups: names of the
    tables that its config chooses from. reads: key of the run, or list of runs, from whose saved config the
    command starts. needs_run: whether that key is required. takes_experiment: whether experiment=NAME may
    change its defaults. function: "module:name"; None: segtrain/commands/NAME.py, function NAME. on_ranks:
    whether torchrun may start it in several processes.
    """

    words: tuple[str, ...]
    example: str
    about: str
    help: str
    sections: Mapping[str, type] = field(default_factory=dict)
    of_sweep: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    reads: str | None = None
    needs_run: bool = False
    takes_experiment: bool = False
    function: str | None = None
    on_ranks: bool = False

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def file_name(self) -> str:
        """Name of the command's YAML in conf/ and of its module in segtrain/commands/."""
        return "_".join(self.words)

    def asks_for_sweep(self, word: str) -> bool:
        """Whether an override chooses a sweep (sweep=optuna)."""
        key, _, value = word.partition("=")
        return "sweep" in self.of_sweep and key in ("sweep", "sweep.name") and value != "null"


_COMMANDS = (
    Command(
        words=("train",),
        on_ranks=True,
        example="segtrain train model=unet data=folder data.images=…",
        about="trains a network",
        help="""\
segtrain train trains a network. Its run folder is outputs/DATE/TIME-RANDOM, or outputs/NAME with name=NAME.

  segtrain train                                              a small U-Net on drawn shapes
  segtrain train experiment=camvid_lite0 data.root=CAMVID name=first resume=auto     starts, or resumes
  segtrain train model=deeplabv3plus model.encoder=resnet50 optimizer.lr=0.001 trainer.epochs=20
  segtrain train tta=[flip] augmentation=[warp,colour]        several at once; null removes one
  segtrain train experiment=fcn_paper data=camvid data.root=CAMVID name=fcn     stage1, stage2, stage3
  segtrain train --multirun optimizer.lr=0.01,0.02 model=unet,deeplabv3plus     a sweep, with a ranked table
  segtrain train --multirun sweep=optuna sweep.trials=30 'optimizer.lr=tag(log,interval(1e-4,1e-1))' name=lr
  segtrain train resume=outputs/…                             resumes a stopped run""",
        sections={
            "": Run,
            "trainer": Trainer,
            "loader": Loader,
            "sampler": Sampler,
            "predictor": PredictorSettings,
            "evaluate": EvaluateSettings,
            "sweep": Sweep,
            "launcher": Launcher,
        },
        of_sweep=("sweep", "launcher"),
        groups=("task", "data", "model", "loss", "optimizer", "schedule", "augmentation", "metric", "tta"),
        reads="resume",
        takes_experiment=True,
    ),
    Command(
        words=("evaluate",),
        on_ranks=True,
        example="segtrain evaluate run=outputs/… split=val",
        about="scores of a run",
        help="""\
segtrain evaluate scores a run on a split, with the run's saved config.

  segtrain evaluate run=outputs/first
  segtrain evaluate run=outputs/first split=test data.root=/new/place checkpoint=last
  segtrain evaluate run=outputs/first tta=flip predictor.tile=512 model.output_stride=8""",
        sections={"": Evaluate, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
        groups=("data", "model", "metric", "tta"),
        reads="run",
        needs_run=True,
    ),
    Command(
        words=("compare",),
        on_ranks=True,
        example="segtrain compare runs=[outputs/…,outputs/…]",
        about="runs side by side: a table and a picture",
        help="""\
segtrain compare scores several runs on the same images, and draws their masks side by side.

  segtrain compare runs=[outputs/first,outputs/second]
  segtrain compare runs=[outputs/first,outputs/second] split=test evaluate.pictures=8 output=figure
  segtrain compare runs=[outputs/first,outputs/second] splits=[val,test]""",
        sections={"": Compare, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
        groups=("data", "metric", "tta"),
        reads="runs",
        needs_run=True,
    ),
    Command(
        words=("explain",),
        example="segtrain explain run=outputs/… split=val",
        about="what the mIoU of a run is lost to",
        help="""\
segtrain explain splits the wrong pixels of a run into missed objects, invented objects, boundaries and
confused areas, with the mIoU that each kind costs, and draws the worst images.

  segtrain explain run=outputs/first
  segtrain explain run=outputs/first split=test num=12 band_px=5 output=why""",
        sections={"": Explain, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
        groups=("data", "model", "tta"),
        reads="run",
        needs_run=True,
    ),
    Command(
        words=("predict",),
        on_ranks=True,
        example="segtrain predict run=outputs/… input=photos output=out",
        about="masks of images",
        help="""\
segtrain predict labels images with a trained network. It reads nothing but the run folder.

  segtrain predict run=outputs/first input=photos output=out
  segtrain predict run=outputs/first input=street.jpg output=out tta=flip probabilities=true""",
        sections={"": Predict, "predictor": PredictorSettings},
        groups=("model", "tta"),
        reads="run",
        needs_run=True,
    ),
    Command(
        words=("submit",),
        example="segtrain submit run=outputs/… format=cityscapes output=DIR",
        about="the archive of masks that a benchmark's server takes",
        help="""\
segtrain submit predicts the test images of a benchmark and packs their masks as its server takes them: names,
label ids, sizes and the number of files are verified in the archive.

  segtrain submit run=outputs/first output=out
  segtrain submit run=outputs/first format=voc data.root=VOC output=out tta=flip
  segtrain submit run=outputs/first output=out split=val    for segtrain score … ids=labels""",
        sections={"": Submit, "predictor": PredictorSettings},
        groups=("data", "model", "tta"),
        reads="run",
        needs_run=True,
    ),
    Command(
        words=("score",),
        example="segtrain score predictions=DIR data=… split=val",
        about="scores of masks that any program wrote",
        help="""\
segtrain score scores predicted masks (PNG) against a data set, whatever program made them.

  segtrain score predictions=out/classes data=camvid data.root=CAMVID
  segtrain score predictions=results data=cityscapes data.root=CITYSCAPES ids=labels protocol=cityscapes
  segtrain score predictions=out/classes data=camvid data.root=CAMVID protocol=all     why numbers differ""",
        sections={"": Score},
        groups=("data", "metric"),
    ),
    Command(
        words=("data", "check"),
        example="segtrain data check data=folder data.root=…",
        about="what is wrong in a data set",
        help="""\
segtrain data check reads every image and mask of a data set and lists all that is wrong: files that cannot
be read, other sizes, values that are no class, coloured masks, masks that count from 1, image and mask
interchanged, images in two splits; and what is worth a look: groups in several splits, samples without
labels, classes without pixels. Exit code 3 if something is wrong, 0 if nothing is.

  segtrain data check data=camvid data.root=CAMVID
  segtrain data check data=folder data.root=mine data.classes=classes.txt similar=true
  segtrain data check data=folder data.root=mine json=true > found.json""",
        sections={"": DataCheck},
        groups=("task", "data"),
    ),
    Command(
        words=("data", "stats"),
        example="segtrain data stats data=folder data.root=…",
        about="pixels of each class, mean and std, sizes, objects",
        help="""\
segtrain data stats counts what a split holds: pixels and images of each class, class weights by each rule of
loss.class_weights, mean and standard deviation of each channel, sizes of images and of objects.

  segtrain data stats data=camvid data.root=CAMVID
  segtrain data stats data=folder data.root=mine split=all output=stats     stats/stats.json, stats/stats.png
  segtrain data stats data=folder data.root=mine json=true""",
        sections={"": DataStats},
        groups=("data",),
    ),
    Command(
        words=("data", "show"),
        example="segtrain data show data=folder data.root=…",
        about="a picture of samples, before and after augmentation",
        help="""\
segtrain data show draws samples with their masks over them, as they are stored and as a training with this
augmentation, sampler, seed and split sees them, position by position.

  segtrain data show data=camvid data.root=CAMVID
  segtrain data show data=folder data.root=mine augmentation=[warp,colour] augmentation.warp.size=256 num=8
  segtrain data show data=folder data.root=mine augmentation=none split=val output=val.png""",
        sections={"": DataShow, "sampler": Sampler},
        groups=("task", "data", "augmentation"),
    ),
    Command(
        words=("data", "prepare"),
        example="segtrain data prepare data=voc data.root=… archives=…",
        about="unpacks the official archives of a data set",
        help="""\
segtrain data prepare unpacks the official archives of a data set where data=NAME looks for them, and
converts what is not read as it is. It downloads nothing. What is there is kept: the same command resumes an
interrupted one. Archives are foreign files: links, absolute paths and '..' in them are refused.

  segtrain data prepare data=voc data.root=VOC archives=downloads      VOCtrainval_11-May-2012.tar
  segtrain data prepare data=voc_aug data.root=VOC archives=downloads  and SBD's benchmark.tgz, converted
  segtrain data prepare data=cityscapes data.root=CITY archives=downloads dry_run=true
  segtrain data prepare data=ade20k data.root=ADE archives=downloads   ADEChallengeData2016.zip""",
        sections={"": DataPrepare},
        groups=("data",),
    ),
    Command(
        words=("sweep", "show"),
        example="segtrain sweep show sweep=outputs/…",
        about="the trials of a sweep: ranks, importance, a picture",
        help="""\
segtrain sweep show prints the trials of a sweep, best first, with the 95 % interval of each score, the
importance of each swept key, and the commands that train and score the best trial; and draws the sweep's
history and parallel coordinates. It also works while the sweep runs.

  segtrain sweep show sweep=outputs/lr
  segtrain sweep show sweep=outputs/lr json=true > trials.json""",
        sections={"": SweepShow},
    ),
    Command(
        words=("list",),
        example="segtrain list [models|losses|data|…]",
        about="what there is to choose",
        help="""\
segtrain list shows what there is to choose.

  segtrain list                        all kinds
  segtrain list models                 the networks, with their papers, parameters and multiply-adds
  segtrain list loss cross_entropy     the options of one entry
  segtrain list encoders resnet        names for model.encoder that hold a word
  segtrain list experiments            ready-made configs: segtrain train experiment=NAME""",
    ),
    Command(
        words=("plan",),
        example="segtrain plan data=… minutes=30",
        about="an experiment for your data, machine and time",
        help="""\
segtrain plan chooses encoder, crop, batch, length, class weights and sampler from what the data set holds and
from a trial of 20 steps on this machine. It writes them as one experiment with the reason beside each key,
and trains nothing.

  segtrain plan data=folder data.root=mine minutes=30 output=my.yaml
  segtrain train experiment=my --config-dir . name=first resume=auto""",
        sections={"": Plan},
        groups=("data",),
    ),
    Command(
        words=("describe",),
        example="segtrain describe model=unet [KEY=VALUE …]",
        about="a network's layers, shapes, parameters",
        help="""\
segtrain describe shows a network's layers with their shapes, parameters and multiply-adds.
Nothing is computed or downloaded.

  segtrain describe model=deeplabv3plus
  segtrain describe model=deeplabv3plus model.output_stride=8 size=[512,1024] classes=19 depth=1""",
        sections={"": Describe},
        groups=("model",),
    ),
    Command(
        words=("config",),
        example="segtrain config train [KEY=VALUE …]",
        about="every key: value, default, origin, meaning",
        help="""\
segtrain config prints every key of a command: its value, its default, what set it and what it means.

  segtrain config train
  segtrain config train experiment=demo trainer.steps=200
  segtrain config evaluate run=outputs/first""",
    ),
)

COMMANDS = {command.name: command for command in _COMMANDS}
"""All commands by name."""


def check_sections(config: Mapping, command: str) -> dict:
    """The config of a command with its top-level keys and its sections checked and their defaults filled in;
    its groups are returned as they are, and sections of a sweep that are not there stay out. ConfigError
    names the key as typed."""
    row = COMMANDS[command]
    top = {key: value for key, value in config.items() if key not in row.sections and key not in row.groups}
    known = [*options_of(row.sections[""]), *filter(None, row.sections), *row.groups]
    for name in top:
        if name not in known:
            raise unknown_key(name, f"segtrain {command}", known)
    checked = _filled(top, row.sections[""], "", f"segtrain {command}")
    for name, option in options_of(row.sections[""]).items():
        if checked[name] == "":  # an empty path would be taken for the current folder
            raise ConfigError(f"{name} is empty (an unset variable of the shell?); give {option.meaning}")
    for name in filter(None, row.sections):
        if name in row.of_sweep and name not in config:
            continue
        values = {} if config.get(name) is None else config[name]
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{name} is {values!r}; it is a section, set its keys one by one: {name}.KEY=VALUE"
            )
        checked[name] = _filled(values, row.sections[name], name, f"section {name}")
    return {**checked, **{group: config.get(group) for group in row.groups}}


def of_one_run(config: Mapping) -> dict:
    """The composed config of `segtrain train` without its sections of a sweep."""
    return {key: value for key, value in config.items() if key not in COMMANDS["train"].of_sweep}


def _filled(values: Mapping, settings, where: str, what: str) -> dict:
    """The checked options of a settings dataclass, with its defaults."""
    defaults = {name: option.default for name, option in options_of(settings).items()}
    return {**defaults, **check_options(values, settings, where, what)}
