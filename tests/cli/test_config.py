"""From words on a command line to one checked dict: what composes, and what is refused with which words."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
import yaml

from segtrain.cli.catalogue import Keys
from segtrain.cli.compose import Composer
from segtrain.cli.overrides import parse_overrides
from segtrain.errors import CheckpointError, ConfigError
from segtrain.run.saved import check_overrides_of_saved, check_unchanged, saved_config, with_settled_values


def composed(*words: str, command: str = "train", config_dir=None, saved=None) -> dict:
    composer = Composer(command, config_dir and str(config_dir), saved)
    typed, _ = parse_overrides(words, Keys(command))
    with composer.ready():
        return composer.compose(typed)


def refused(*words: str, **more) -> str:
    with pytest.raises(ConfigError) as error:
        composed(*words, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_sources_that_are_not_installed_say_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install" in refused()


# --- what composes


def test_defaults():
    config = composed()
    assert config["model"]["name"] == "unet"
    assert config["data"]["name"] == "shapes"
    assert config["tta"] == {}
    assert config["trainer"]["evaluate_every"] == "auto"
    assert config["name"] is None
    assert "hydra" not in config
    assert "experiment" not in config


def test_option_of_a_choice_and_of_a_section():
    config = composed(
        "model=deeplabv3plus",
        "model.output_stride=8",
        "trainer.steps=7",
        "optimizer.lr=1",
        "trainer.amp=bf16",
    )
    assert config["model"]["output_stride"] == 8
    assert config["trainer"]["steps"] == 7
    assert config["trainer"]["amp"] == "bf16"


def test_several_at_once():
    config = composed(
        "tta=[flip]", "tta.flip.axes=[both]", "augmentation=[warp,colour]", "augmentation.warp.size=64"
    )
    assert config["tta"] == {"flip": {"axes": ["both"]}}
    assert list(config["augmentation"]) == ["warp", "colour"]
    assert config["augmentation"]["warp"]["size"] == 64


@pytest.mark.parametrize("word", ["augmentation.warp=null", "~augmentation.warp"])
def test_null_removes_one_of_several(word):
    config = composed("augmentation=light", word)
    assert {name for name, options in config["augmentation"].items() if options is not None} == {"colour"}


@pytest.mark.parametrize("word", ["augmentation=none", "augmentation=null", "augmentation=[]"])
def test_none_of_several(word):
    assert composed(word)["augmentation"] == {}


def test_list_without_brackets():
    assert composed("augmentation=warp,colour")["augmentation"].keys() == {"warp", "colour"}
    assert composed("loss.class_weights=1,2,3")["loss"]["class_weights"] == [1, 2, 3]
    assert composed("model.widths=8,16")["model"]["widths"] == [8, 16]


ODD = [
    "ü/ß",
    "a b",
    "a&b",
    "a(b",
    "a)b(c)",
    "a[b",
    "a]b",
    "a=b=c",
    "it's",
    'say "x"',
    "a'b\"c",
    "a{b",
    "tab\tx",
    "a#b",
    "a$b",
    "back\\slash",
    "end\\",
]
ODD += ["-x", "*.png", "a;b", "'", "@x", "%d", "写真", "a:b", "+1", "!x", "a|b", "<x>", "?", "x\\'y"]


@pytest.mark.parametrize("path", ODD)
def test_odd_characters_in_a_path_arrive_as_typed(path):
    assert composed("data=folder", f"data.root={path}")["data"]["root"] == path


def test_comma_in_a_quoted_path():
    assert composed("data=folder", 'data.root="a,b"')["data"]["root"] == "a,b"


def test_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert composed("data=folder", "data.root=~/photos [1]")["data"]["root"] == "/home/me/photos [1]"
    assert composed("init=~/run")["init"] == "/home/me/run"
    assert composed("data=folder", "data.root=a~b")["data"]["root"] == "a~b"


LISTS = {
    "[Straße,Gebäude]": ["Straße", "Gebäude"],
    "Straße,Gebäude": ["Straße", "Gebäude"],
    "[a b, ü]": ["a b", "ü"],
    "['a,b',~/c, d&e]": ["a,b", "/home/me/c", "d&e"],
    '["a,b",ü]': ["a,b", "ü"],
    "[~/a,b]": ["/home/me/a", "b"],
    "~/a,b": ["/home/me/a", "b"],
    "['~/a','it\\'s, ~']": ["/home/me/a", "it's, ~"],
    "[it's,o'er]": ["it's", "o'er"],
    "[a(b,c)d]": ["a(b,c)d"],
    "[~]": ["/home/me"],
    "[写真]": ["写真"],
}


@pytest.mark.parametrize("text", LISTS)
def test_list_with_elements_of_odd_characters(monkeypatch, text):
    monkeypatch.setenv("HOME", "/home/me")
    assert composed("data=folder", f"data.classes={text}")["data"]["classes"] == LISTS[text]
    config = composed(f"runs={text}", command="compare", saved={"data": {"name": "shapes"}})
    assert config["runs"] == LISTS[text]


def test_text_that_is_no_list_stays_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for text in ("~/ü.txt", "[ü", "ü]", "/a/[ü]/b.txt"):
        classes = composed("data=folder", f"data.classes={text}")["data"]["classes"]
        assert classes == text.replace("~", "/home/me")
    assert composed("data=folder", "data.root=[ü,ö]")["data"]["root"] == "[ü,ö]"


def test_text_that_looks_like_a_number():
    assert composed("name=2024")["name"] == "2024"
    assert composed("name=1e5")["name"] == "1e5"
    assert composed("name=true")["name"] == "true"
    assert composed("trainer.evaluate_every=50")["trainer"]["evaluate_every"] == 50
    assert composed("trainer.evaluate_every=2ep")["trainer"]["evaluate_every"] == "2ep"


def test_last_one_typed_counts():
    config = composed("model=deeplabv3plus", "seed=1", "model=unet", "seed=2")
    assert config["model"]["name"] == "unet"
    assert config["seed"] == 2


def test_typed_length_replaces_the_other_one():
    config = composed("experiment=demo", "trainer.epochs=3")
    assert (config["trainer"]["steps"], config["trainer"]["epochs"]) == (None, 3.0)
    assert composed("experiment=demo")["trainer"]["epochs"] is None
    assert composed("trainer.steps=7")["trainer"]["epochs"] is None
    assert (composed()["trainer"]["steps"], composed()["trainer"]["epochs"]) == (None, None)
    both = composed("trainer.epochs=3", "trainer.steps=4")["trainer"]
    assert (both["steps"], both["epochs"]) == (4, 3.0)


def test_length_of_the_later_yaml_counts(own):
    def lengths(*words: str) -> tuple:
        trainer = composed(*words, config_dir=own.folder)["trainer"]
        return trainer["steps"], trainer["epochs"]

    own("experiment/epochs.yaml", GLOBAL + "defaults: [demo]\ntrainer: {epochs: 2}\n")
    own("experiment/steps.yaml", GLOBAL + "defaults: [epochs]\ntrainer: {steps: 7}\n")
    own("experiment/before.yaml", GLOBAL + "defaults: [_self_, demo]\ntrainer: {epochs: 2}\n")
    own("experiment/both.yaml", GLOBAL + "trainer: {epochs: 2, steps: 9}\n")
    assert lengths("experiment=epochs") == (None, 2.0)
    assert lengths("experiment=steps") == (7, None)
    assert lengths("experiment=before") == (1100, None)
    assert lengths("experiment=both") == (9, 2.0)
    assert lengths("experiment=both", "trainer.steps=5") == (5, None)
    assert lengths("experiment=epochs", "trainer.steps=5") == (5, None)


def test_experiment_gives_way_to_a_typed_choice():
    config = composed("experiment=camvid_lite0", "model=unet")
    assert config["model"]["name"] == "unet"
    assert config["model"]["encoder"] != "tf_efficientnet_lite0"
    assert config["trainer"]["steps"] == composed("experiment=camvid_lite0")["trainer"]["steps"]
    same = composed("experiment=camvid_lite0", "model=deeplabv3plus")
    assert same["model"]["encoder"] == "tf_efficientnet_lite0"


@pytest.mark.parametrize("group", Keys("train").composites)
@pytest.mark.parametrize("chosen", ["{}", "[{}]", "none"])
def test_one_of_several_means_the_same_with_and_without_brackets(own, group, chosen):
    entry, option, value = {
        "augmentation": ("warp", "size", 513),
        "metric": ("boundary", "tolerance_px", 3.0),
        "tta": ("flip", "axes", ["both"]),
    }[group]
    chosen = chosen.format(entry)
    own(
        "experiment/x.yaml",
        f"{GLOBAL}defaults:\n  - override /{group}: {chosen}\n{group}:\n  {entry}:\n    {option}: {value}\n",
    )
    results = [
        composed("experiment=x", word, config_dir=own.folder)[group]
        for word in (f"{group}={entry}", f"{group}=[{entry}]", f"{group}='{entry}'")
    ]
    assert results[0] == results[1] == results[2]
    assert list(results[0]) == [entry]
    assert results[0][entry][option] == value
    assert composed("experiment=x", f"{group}=none", config_dir=own.folder)[group] == {}


def test_entries_of_an_experiment_go_with_another_choice(own):
    own(
        "experiment/x.yaml",
        GLOBAL + "defaults:\n  - override /tta: [flip]\ntta:\n  flip:\n    axes: [both]\n"
        "augmentation:\n  warp:\n    size: 65\n  colour: null\n",
    )
    config = composed("experiment=x", "tta=none", "augmentation=colour", config_dir=own.folder)
    assert config["tta"] == {}
    assert list(config["augmentation"]) == ["colour"]
    assert config["augmentation"]["colour"] is not None
    config = composed("experiment=x", "augmentation=light", config_dir=own.folder)
    assert (config["augmentation"]["warp"]["size"], config["augmentation"]["colour"]) == (65, None)


def test_plus_signs_of_hydra_are_understood():
    assert (
        composed("+trainer.steps=3")["trainer"]["steps"]
        == composed("++trainer.steps=3")["trainer"]["steps"]
        == 3
    )


# --- what is refused, in which words


WRONG = [
    (["trainer.stesp=3"], ["trainer.stesp", "did you mean 'steps'"]),
    (["trainer.steps=abc"], ["trainer.steps is 'abc'", "an integer from 1 or null"]),
    (["trainer.steps=[1,2"], ["trainer.steps is '[1,2'"]),
    (["trainer=5"], ["trainer is 5", "section"]),
    (["trainer.amp=fp32"], ["trainer.amp is 'fp32'", "none, bf16, fp16"]),
    (["traner.steps=3"], ["traner.steps", "did you mean 'trainer.steps'"]),
    (["steps=3"], ["steps", "did you mean 'trainer.steps'"]),
    (["lr=3"], ["did you mean 'optimizer.lr'"]),
    (["model=unett"], ["model=unett does not exist", "did you mean 'unet'", "deeplabv3plus"]),
    (["model=saved"], ["model=saved does not exist"]),
    (["model=unet,deeplabv3plus"], ["model=unet,deeplabv3plus", "--multirun"]),
    (["optimizer.lr=range(1,3)"], ["optimizer.lr=range(1,3)", "--multirun"]),
    (["optimizer.lr=1,2"], ["optimizer.lr=1,2", "--multirun"]),
    (["tta=[flip,flap]"], ["tta=flap does not exist", "did you mean 'flip'"]),
    (["experiment=dmo"], ["experiment=dmo", "did you mean 'demo'"]),
    (["unet"], ["unet is not KEY=VALUE", "did you mean 'model=unet'"]),
    (["trainer.steps"], ["trainer.steps is not KEY=VALUE"]),
    (["model", "=", "unet"], ["model is not KEY=VALUE"]),
    (["=3"], ["cannot be a key"]),
    (["trainer..steps=3"], ["trainer..steps cannot be a key"]),
    (["träiner.steps=3"], ["cannot be a key"]),
    (["model/unet=3"], ["model/unet cannot be a key"]),
    (["model@data=unet"], ["cannot be a key"]),
    (["model.name=unet"], ["model.name", "model=NAME"]),
    (["loss=null"], ["loss=null", "cross_entropy"]),
    (["model={name:unet}"], ["model="]),
    (["~loss"], ["~loss"]),
    (["~trainer.steps"], ["~trainer.steps"]),
    (["seed=${nix}"], ["seed", "nix"]),
    (["seed=${nix"], ["seed=${nix"]),
    (["seed=???"], ["seed"]),
    (["seed=${seed}"], ["seed"]),
]


OUT_OF_RANGE = {
    "threads=0": "from 1 to 1024",
    "threads=100000000": "from 1 to 1024",
    "seed=-1": "from 0 to 2^63 - 1",
    "seed=99999999999999999999": "from 0 to 2^63 - 1",
    "trainer.clip_norm=-1": "above 0",
    "trainer.ema=1": "from 0 to below 1",
    "trainer.keep_checkpoints=0": "from 1",
    "predictor.tile=0": "from 1",
    "predictor.overlap=1": "from 0 to below 1",
    "evaluate.batch_size=0": "from 1",
    "evaluate.workers=-1": "from 0",
    "evaluate.pictures=-1": "from 0",
}


@pytest.mark.parametrize("word", OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_before_anything_runs(word):
    text = refused(word)
    assert text.startswith(word.partition("=")[0] + " is ")
    assert text.endswith(OUT_OF_RANGE[word])


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=lambda value: " ".join(value)[:40])
def test_refused_words(words, parts):
    text = refused(*words)
    for part in parts:
        assert part in text


HYDRA = [
    "hydra.callbacks.x._target_=os.system",
    "+hydra.callbacks.x._target_=os.system",
    "++hydra.job.chdir=true",
    "hydra.searchpath=[file:///tmp]",
    "hydra.sweeper._target_=x",
    "hydra.verbose=true",
    "hydra.output_subdir=x",
    "hydra.sweep.subdir=x",
    "hydra/launcher=joblib",
    "hydra/sweeper=optuna",
    "hydra/job_logging=none",
    "hydra={run:{dir:x}}",
    "hydra.run.dir=../x",
    "hydra.run.dir=a/../../x",
    "hydra.run.dir=${oc.env:HOME}",
    "hydra.run.dir=",
]


@pytest.mark.parametrize("word", HYDRA)
def test_hydra_node_cannot_be_set(word):
    assert "hydra" in refused(word)


def test_wishes_for_folders():
    typed, wishes = parse_overrides(
        ["hydra.run.dir=/abs/x", "hydra.sweep.dir=y", "hydra/launcher=basic"], Keys("train")
    )
    assert (typed, wishes) == ([], {"hydra.run.dir": "/abs/x", "hydra.sweep.dir": "y"})


def test_environment_is_read_from_an_allow_list_only(monkeypatch):
    monkeypatch.setenv("SEGTRAIN_ROOT", "/data")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    assert composed("data=folder", "data.root=${oc.env:SEGTRAIN_ROOT}/x")["data"]["root"] == "/data/x"
    assert composed("data=folder", "data.root=${oc.env:SEGTRAIN_NIX,/y}")["data"]["root"] == "/y"
    text = refused("name=${oc.env:AWS_SECRET_ACCESS_KEY}")
    assert "geheim" not in text
    assert "allowed: HOME" in text
    assert "SEGTRAIN_NIX" in refused("name=${oc.env:SEGTRAIN_NIX}")


# --- a user's own YAMLs


@pytest.fixture
def own(tmp_path):
    """own("experiment/x.yaml", text) writes a file; own.folder is what --config-dir gets."""

    def write(name: str, text: str) -> None:
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    (tmp_path / "own").mkdir()
    write.folder = tmp_path / "own"
    return write


GLOBAL = "# @package _global_\n"


def test_own_experiment_and_own_entry(own):
    own(
        "experiment/mine.yaml",
        GLOBAL + "defaults:\n  - override /model: thin\ntrainer:\n  steps: 3\noptimizer:\n  lr: 1e-2\n",
    )
    own("model/thin.yaml", "name: unet\nwidths: [4, 8]\n")
    config = composed("experiment=mine", config_dir=own.folder)
    assert (config["model"]["name"], config["model"]["widths"], config["trainer"]["steps"]) == (
        "unet",
        [4, 8],
        3,
    )
    assert config["optimizer"]["lr"] == 0.01
    assert composed("model=thin", config_dir=own.folder)["model"]["widths"] == [4, 8]
    assert "thin" in refused("model=thinn", config_dir=own.folder)


def test_own_yaml_of_a_windows_editor(own):
    own("experiment/mine.yaml", "\ufeff" + (GLOBAL + "trainer:\n  steps: 3\n").replace("\n", "\r\n"))
    assert composed("experiment=mine", config_dir=own.folder)["trainer"]["steps"] == 3


def test_own_folder_with_odd_name(tmp_path):
    folder = tmp_path / "mein 'Ordner' [ü]=(1),2"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "x.yaml").write_text(GLOBAL + "seed: 5\n")
    assert composed("experiment=x", config_dir=folder)["seed"] == 5


def test_typo_in_an_experiment_is_found(own):
    own("experiment/x.yaml", GLOBAL + "trainer:\n  stesp: 3\n")
    assert "did you mean 'steps'" in refused("experiment=x", config_dir=own.folder)
    own("experiment/x.yaml", GLOBAL + "traner:\n  steps: 3\n")
    assert "did you mean 'trainer'" in refused("experiment=x", config_dir=own.folder)
    own("experiment/x.yaml", "trainer:\n  steps: 3\n")
    assert "@package _global_" in refused("experiment=x", config_dir=own.folder)
    own("experiment/x.yaml", GLOBAL + "defaults:\n  - override /model: unett\n")
    assert "model=unett does not exist (did you mean 'unet'?)" in refused(
        "experiment=x", config_dir=own.folder
    )


ATTACKS = [
    GLOBAL + "hydra:\n  callbacks:\n    x: {_target_: os.system}\n",
    GLOBAL + "hydra.callbacks.x: 1\n",
    GLOBAL + "loss: {_target_: os.system}\n",
    GLOBAL + "loss:\n  deep: [{a: {_target_: os.system}}]\n",
    GLOBAL + "trainer: {hydra: 1}\n",
    "# @package hydra.callbacks\nx: {a: 1}\n",
    GLOBAL + "defaults:\n  - override /hydra/launcher: joblib\n",
    GLOBAL + "defaults:\n  - /hydra/callbacks: mine\n",
    GLOBAL + "defaults:\n  - override /model@hydra.callbacks: unet\n",
    GLOBAL + "defaults:\n  - /model@hydra.x: unet\n",
    GLOBAL + "hydra:\n  searchpath: [file:///tmp]\n",
    GLOBAL + "hydra:\n  run: {dir: /tmp/x}\n",
    GLOBAL + "a: &a {x: 1}\nb: {<<: *a, hydra: 1}\n",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_yaml_may_set_nothing_of_hydra(own, text):
    own("experiment/x.yaml", text)
    message = refused("experiment=x", config_dir=own.folder)
    assert "x.yaml" in message
    assert "hydra" in message or "_target_" in message


def test_attack_through_an_own_entry_of_a_group(own):
    own("model/x.yaml", "name: unet\n_target_: os.system\n")
    assert "_target_" in refused("model=x", config_dir=own.folder)


BROKEN = {
    "not YAML": "a: [1, 2\n",
    "tabs": "a:\n\t- 1\n",
    "twice": "seed: 1\nseed: 2\n",
    "bad tag": "seed: !!python/object/apply:os.system [x]\n",
    "list": "- 1\n- 2\n",
    "text": "just words\n",
    "interpolation": "seed: ${nix\n",
    "deep": "seed: " + "[" * 1500 + "]" * 1500 + "\n",
    "control": "seed: \x01\n",
    "no defaults": "defaults: null\n",
    "defaults as text": "defaults: demo\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_yaml_names_the_file(own, kind):
    own("experiment/x.yaml", GLOBAL + BROKEN[kind])
    assert "x.yaml" in refused("experiment=x", config_dir=own.folder)


def test_yaml_bombs(own):
    own("experiment/big.yaml", GLOBAL + "seed: 1\n" + "#" * 1_100_000)
    assert "1 MB" in refused("experiment=big", config_dir=own.folder)
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
    ]
    own("experiment/laughs.yaml", GLOBAL + "\n".join(lines) + "\n")
    assert "aliases" in refused("experiment=laughs", config_dir=own.folder)
    own("experiment/self.yaml", GLOBAL + "a: &a [*a]\n")
    assert "self.yaml" in refused("experiment=self", config_dir=own.folder)
    lines = ["a0: xxxxxxxxxx"] + [f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}" for i in range(1, 40)]
    own("experiment/refs.yaml", GLOBAL + "\n".join(lines) + "\n")
    assert "interpolations" in refused("experiment=refs", config_dir=own.folder)


COSTLY = {
    "aliases": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 5)),
    "long list": f"seed: [{','.join(['1'] * 99_000)}]\n",
    "longer list": f"seed: [{','.join(['1'] * 240_000)}]\n",
    "number in base 60": f"seed: 1{':1' * 240_000}\n",
    "hexadecimal number": f"seed: 0x{'1' * 6000}\n",
    "long number": f"seed: {'1' * 6000}\n",
    "number as a key": f"? {'1' * 6000}\n: 1\n",
    "deep": f"seed: {'[' * 400_000}\n",
    "number on the command line": None,
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_without_meaning_is_refused_at_once(own, kind):
    refused("nix=1")  # what is imported once counts for nobody
    own("experiment/x.yaml", GLOBAL + (COSTLY[kind] or ""))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if COSTLY[kind]:
        assert "x.yaml" in refused("experiment=x", config_dir=own.folder)
    else:
        assert "seed" in refused(f"seed={'1' * 6000}")
    assert time.process_time() - start < 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300


def test_own_file_that_is_none(own, tmp_path):
    (own.folder / "experiment").mkdir()
    os.mkfifo(own.folder / "experiment" / "pipe.yaml")
    assert "pipe" in refused("experiment=pipe", config_dir=own.folder)
    (own.folder / "experiment" / "bytes.yaml").write_bytes(b"seed: \xff\n")
    assert "bytes.yaml" in refused("experiment=bytes", config_dir=own.folder)
    (tmp_path / "secret.yaml").write_text(GLOBAL + "name: secret\n")
    (own.folder / "experiment" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    assert "outside" in refused("experiment=link", config_dir=own.folder)


def test_own_folder_must_exist_and_hide_nothing(own, tmp_path):
    assert "is not a folder" in refused(config_dir=tmp_path / "nix")
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path / "loop", "~nobody-of-this-name"):
        assert f"--config-dir {folder} is not a folder" in refused(config_dir=folder)
    (own.folder / "loss").mkdir(exist_ok=True)
    (own.folder / "loss" / "circle.yaml").symlink_to("circle.yaml")
    assert "loss=circle does not exist" in refused("loss=circle", config_dir=own.folder)
    own("model/unet.yaml", "name: unet\n")
    assert "rename it" in refused(config_dir=own.folder)


# --- over a saved run


SAVED = {
    "data": {"name": "camvid", "root": "/data"},
    "model": {"name": "deeplabv3plus", "encoder": "resnet18", "output_stride": 16},
    "tta": {"flip": {"axes": ["horizontal"]}},
    "predictor": {"tile": 512, "overlap": 0.5, "amp": "none"},
    "evaluate": {"absent": "gt"},
    "seed": 7,
}


def test_evaluate_composes_over_what_the_run_was_trained_with():
    config = composed("run=r", "data.root=/new", "model.output_stride=8", command="evaluate", saved=SAVED)
    assert config["data"] == {"name": "camvid", "root": "/new"}
    assert config["model"] == {"name": "deeplabv3plus", "encoder": "resnet18", "output_stride": 8}
    assert config["tta"] == {"flip": {"axes": ["horizontal"]}}
    assert (config["predictor"]["tile"], config["evaluate"]["absent"]) == (512, "gt")
    assert (config["run"], config["checkpoint"], config["split"]) == ("r", "best", None)
    assert "seed" not in config


def test_evaluate_with_another_tta_data_and_checkpoint():
    config = composed(
        "run=r", "tta=none", "data=folder", "data.images=x", "checkpoint=100", command="evaluate", saved=SAVED
    )
    assert config["tta"] == {}
    assert config["data"]["name"] == "folder"
    assert config["checkpoint"] == "100"


def test_typo_over_a_saved_run():
    assert "did you mean 'tile'" in refused("run=r", "predictor.tyle=3", command="evaluate", saved=SAVED)
    assert "did you mean" in refused("run=r", "checkpont=3", command="evaluate", saved=SAVED)
    assert "loss.smoothing is not an option of segtrain evaluate" in refused(
        "run=r", "loss.smoothing=3", command="evaluate", saved=SAVED
    )


def test_evaluate_chooses_no_other_network():
    typed, _ = parse_overrides(["model=unet"], Keys("evaluate"))
    with pytest.raises(
        ConfigError, match=r"model=unet cannot change.*deeplabv3plus.*train a new run with model=unet"
    ):
        check_overrides_of_saved(typed, SAVED, "run")
    typed, _ = parse_overrides(["model.output_stride=8", "tta=none", "data.root=x"], Keys("evaluate"))
    check_overrides_of_saved(typed, SAVED, "run")


def test_resume_composes_over_the_saved_run():
    saved = {
        **composed("seed=3", "model.widths=[4,8]", "augmentation=warp", "tta=flip", "name=x"),
        "resume": "auto",
    }
    config = composed("resume=outputs/x", "loader.workers=0", saved=saved)
    assert config == {**saved, "resume": "outputs/x", "loader": {**saved["loader"], "workers": 0}}


def test_what_may_change_when_a_run_goes_on():
    saved = composed()
    words = [
        "loader.workers=5",
        "evaluate.workers=1",
        "device=cpu",
        "threads=1",
        "trainer.log_every=3",
        "trainer.evaluate_every=4",
        "evaluate.batch_size=1",
        "trainer.keep_checkpoints=1",
        "loader.cache=memory",
        "name=n",
    ]
    check_unchanged(saved, composed(*words), Path("r"), ())
    for word, old, new in [
        ("seed=4", "0", "4"),
        ("trainer.accumulate=9", "1", "9"),
        ("model.widths=[4]", "[16,32,64,128]", "[4]"),
    ]:
        with pytest.raises(ConfigError, match="may change only") as error:
            check_unchanged(saved, composed(word), Path("r"), ())
        key = word.partition("=")[0]
        assert f"{key} is {new}, but r was started with {old}" in str(error.value)
        assert ("init=r" in str(error.value)) != key.startswith("model.")


def test_settled_memory_format_is_no_change():
    saved = composed("trainer.memory_format=channels_last")
    check_unchanged(saved, composed("trainer.memory_format=auto"), Path("r"), ())


def test_a_path_of_a_resumed_run_may_change_its_place():
    saved = composed("init=outputs/a/stage1", "data=camvid", "data.root=/old/camvid")
    paths = ("init", "data.root")
    check_unchanged(
        saved, composed("init=/b/stage1", "data=camvid", "data.root=/new/camvid"), Path("r"), paths
    )
    elsewhere = composed("init=outputs/a/stage1", "data=camvid", "data.root=/other")
    check_unchanged(saved, elsewhere, Path("r"), paths, compared=["data.root"])
    with pytest.raises(ConfigError, match=r"data\.root is /other, but r was started with /old/camvid"):
        check_unchanged(saved, elsewhere, Path("r"), paths)
    with pytest.raises(ConfigError, match="init is /b/last"):
        check_unchanged(saved, {**saved, "init": "/b/last"}, Path("r"), paths)


def test_open_values_of_a_resumed_run_are_those_that_it_decided():
    saved = composed(
        "trainer.epochs=3", "data=folder", "data.classes=[a,b]", "trainer.memory_format=channels_last"
    )
    saved["trainer"]["steps"], fast = 12, "trainer.memory_format=channels_last"
    again = composed("trainer.epochs=3", "data=folder", "trainer.memory_format=auto")
    check_unchanged(saved, again, Path("r"), ())
    trainer, data = (with_settled_values(again, saved)[section] for section in ("trainer", "data"))
    assert (trainer["steps"], trainer["epochs"], trainer["memory_format"]) == (12, 3, "channels_last")
    assert data["classes"] == ["a", "b"]
    check_unchanged(saved, composed("trainer.steps=12", "data=folder", fast), Path("r"), ())
    with pytest.raises(ConfigError, match=r"trainer\.epochs is 4"):
        check_unchanged(saved, composed("trainer.epochs=4", "data=folder", fast), Path("r"), ())


@pytest.mark.parametrize(
    "poison",
    [
        "hydra: {x: 1}",
        "defaults: [x]",
        "loss: {_target_: os.system}",
        "name: ${oc.env:HOME}",
        "data: {a: [{defaults: 1}]}",
    ],
)
def test_saved_config_that_holds_more_than_data(tmp_path, poison):
    (tmp_path / "config.yaml").write_text(f"seed: 1\n{poison}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        saved_config(tmp_path)


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "", "a: 1\n" + "#" * 1_100_000, "a: !!python/name:os.system\n"]
)
def test_saved_config_that_cannot_be_read(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        saved_config(tmp_path)


# --- plug-ins


def test_plug_in_is_an_option_without_being_imported(monkeypatch):
    from segtrain.cli import compose

    monkeypatch.setattr(
        compose, "plugin_names", lambda group: {"theirs": "their-package"} if group in ("loss", "tta") else {}
    )
    config = composed("loss=theirs", "loss.strength=2", "tta=[flip,theirs]")
    assert config["loss"] == {"name": "theirs", "strength": 2}
    assert config["tta"]["theirs"] == {}
    assert "theirs" in refused("loss=thirs")


# --- the shipped YAMLs


CONF = Path(__file__).parents[2] / "conf"


def test_hydra_leaves_nothing_behind():
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    composed("run=r", command="evaluate", saved=SAVED)
    assert not GlobalHydra.instance().is_initialized()
    assert not {"settings", "model", "resumed.yaml"} & set(ConfigStore.instance().repo)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_experiment_composes_and_checks(name):
    from segtrain.build import check

    config = composed(f"experiment={name}")
    root = ["data.root=x"] if "root" in config["data"] else []
    assert check("train", composed(f"experiment={name}", *root))["trainer"]


def test_shipped_yaml_names_no_code():
    for path in CONF.rglob("*.yaml"):
        assert "_target_" not in path.read_text()
        yaml.safe_load(path.read_text())


@pytest.mark.parametrize("word", ["model=[unet,deeplabv3plus]", "loss=[cross_entropy,jaccard]"])
def test_a_list_of_names_where_a_run_has_one_is_refused(word):
    assert "gives several names" in refused(word)
