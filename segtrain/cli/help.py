"""What `--help` and `segtrain config` print, from the catalogue."""

from __future__ import annotations

import textwrap

from segtrain.cli.catalogue import Keys, load
from segtrain.errors import ConfigError, nearest
from segtrain.text import show

GENERAL = """\
segtrain trains, evaluates and runs networks that label every pixel.

  segtrain train model=unet data=folder data.images=photos data.masks=labels
  segtrain evaluate run=outputs/… split=val           scores of a run
  segtrain compare runs=[outputs/…,outputs/…]         runs side by side: a table and a picture
  segtrain predict run=outputs/… input=photos output=out
  segtrain list [models|losses|data|…]                what there is to choose
  segtrain describe model=unet [KEY=VALUE …]          a network's layers, shapes, parameters and multiply-adds
  segtrain config train [KEY=VALUE …]                 every key: value, default, meaning, who set it

`segtrain COMMAND --help` shows the keys of a command. Under every command:
  --cfg job          print the config that would be run, and stop
  --multirun, -m     one run for each combination of KEY=A,B values
  --config-dir DIR   your own YAMLs beside segtrain's (DIR/experiment/mine.yaml: experiment=mine)
  --help, -h         --version

Exit codes: 0 done, 1 a fault of segtrain or a sweep with failed runs, 2 config, 3 data,
4 checkpoint or storage, 5 diverged, 6 memory or processes, 130 and 143 stopped by a signal."""

ABOUT = {
    "train": """\
segtrain train trains a network. Its run folder is outputs/DATE/TIME-RANDOM, or outputs/NAME with name=NAME.

  segtrain train                                              a small U-Net on drawn shapes
  segtrain train experiment=camvid_lite0 data.root=CAMVID name=first resume=auto     starts, or goes on
  segtrain train model=deeplabv3plus model.encoder=resnet50 optimizer.lr=0.001 trainer.epochs=20
  segtrain train tta=[flip] augmentation=[warp,colour]        several at once; null removes one
  segtrain train experiment=fcn_paper data=camvid data.root=CAMVID name=fcn     stage1, stage2, stage3
  segtrain train --multirun optimizer.lr=0.01,0.02 model=unet,deeplabv3plus     a sweep, with a ranked table
  segtrain train resume=outputs/…                             goes on with a stopped run""",
    "evaluate": """\
segtrain evaluate scores a run with the config that it was trained with.

  segtrain evaluate run=outputs/first
  segtrain evaluate run=outputs/first split=test data.root=/new/place checkpoint=last
  segtrain evaluate run=outputs/first tta=flip predictor.tile=512 model.output_stride=8""",
    "compare": """\
segtrain compare scores several runs on the same images, and draws their masks side by side.

  segtrain compare runs=[outputs/first,outputs/second]
  segtrain compare runs=[outputs/first,outputs/second] split=test evaluate.pictures=8 output=figure""",
    "predict": """\
segtrain predict labels images with a trained network. It needs nothing but the run's folder.

  segtrain predict run=outputs/first input=photos output=out
  segtrain predict run=outputs/first input=street.jpg output=out tta=flip probabilities=true""",
    "list": """\
segtrain list shows what there is to choose.

  segtrain list                        all kinds
  segtrain list models                 the networks, with their papers, parameters and multiply-adds
  segtrain list loss cross_entropy     the options of one entry
  segtrain list encoders resnet        names for model.encoder that hold a word
  segtrain list experiments            ready-made recipes: segtrain train experiment=NAME""",
    "describe": """\
segtrain describe shows a network's layers with their shapes, parameters and multiply-adds.
Nothing is computed or downloaded.

  segtrain describe model=deeplabv3plus
  segtrain describe model=deeplabv3plus model.output_stride=8 size=[512,1024] classes=19 depth=1""",
    "config": """\
segtrain config prints every key of a command: its value, its default, what it means and who set it.

  segtrain config train
  segtrain config train experiment=demo trainer.steps=200
  segtrain config evaluate run=outputs/first""",
}

FOOTER = (
    "Options of a choice: segtrain list GROUP NAME. All keys with their values: segtrain config "
    "{command}. All flags: segtrain --help."
)


def text(command: str | None) -> str:
    """The help of a command, or of the program."""
    if command is None:
        return GENERAL
    if command not in load()["commands"]:
        return ABOUT[command]
    keys = Keys(command)
    return "\n\n".join([ABOUT[command], _choices(keys), *_sections(keys), FOOTER.format(command=command)])


def _choices(keys: Keys) -> str:
    rows = {group: ", ".join(keys.entries(group)) for group in keys.groups}
    if "experiment" in keys.choices:
        rows["experiment"] = ", ".join(load()["experiments"])
    return "Choices, KEY=NAME:\n" + "\n".join(f"  {group:<14}{names}" for group, names in rows.items())


def _sections(keys: Keys) -> list[str]:
    texts = []
    for section, content in keys.sections.items():
        prefix = f"{section}." if section else ""
        rows = []
        for name, option in content["keys"].items():
            given = (
                f"{prefix}{name}={show(option['default'])}"
                if "default" in option
                else f"{prefix}{name}=(needed)"
            )
            rows.append(
                textwrap.fill(
                    option["meaning"], 120, initial_indent=f"  {given:<36}", subsequent_indent=" " * 38
                )
            )
        texts.append(f"{section or 'Keys'}: {content['about']}\n" + "\n".join(rows))
    return texts


def config_table(keys: Keys, config: dict, setters: dict[str, str], typed: list[str]) -> str:
    """Every key of a composed config, a line each: key, value, default, who set it, meaning."""
    rows = [("KEY", "VALUE", "DEFAULT", "SET BY", "MEANING")]
    for key, value, option in _walk(keys, config):
        default = show(option["default"]) if "default" in option else "(needed)" if "type" in option else ""
        rows.append((key, show(value), default, _setter(key, setters, typed), option.get("meaning", "")))
    widths = [min(40, max(len(row[column]) for row in rows)) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def _walk(keys: Keys, config: dict):
    """(key, value, what the catalogue says of it) of all keys, those that the config leaves to their default
    too."""
    for section, content in keys.sections.items():
        values = config if section == "" else config[section]
        for name, option in content["keys"].items():
            yield f"{section}.{name}" if section else name, values.get(name, option.get("default")), option
    for group in keys.groups:
        if group in keys.composites:
            for entry, options in config[group].items():
                if options is not None:
                    yield from _walk_entry(keys, group, entry, options, f"{group}.{entry}")
        else:
            name = config[group].get("name")
            yield group, name, {"meaning": keys.entries(group).get(name, {}).get("about", "")}
            yield from _walk_entry(
                keys, group, name, {k: v for k, v in config[group].items() if k != "name"}, group
            )


def _walk_entry(keys: Keys, group: str, entry: str, values: dict, prefix: str):
    options = keys.entries(group).get(entry, {"options": {}})["options"]
    for name in values if entry in keys.entries(group) else []:
        if name not in options:
            allowed = ", ".join(sorted(options)) or "none"
            raise ConfigError(
                f"{prefix}.{name} is not an option of {group} {entry!r}{nearest(name, options)}; options "
                f"are {allowed}"
            )
    for name in dict.fromkeys([*options, *values]):
        option = options.get(name, {})
        yield f"{prefix}.{name}", values.get(name, option.get("default")), option


def _setter(key: str, setters: dict[str, str], typed: list[str]) -> str:
    if key in typed or any(key.startswith(one + ".") for one in typed if "." in one):
        return "command line"
    # A choice is set by the YAML that holds its name.
    origin = setters.get(key) or setters.get(f"{key}.name")
    return origin or "default"
