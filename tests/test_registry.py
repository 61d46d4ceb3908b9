"""The one checker of options: every kind of wrong key and wrong value, and what the message says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from segtrain import registry
from segtrain.errors import ConfigError
from segtrain.options import (
    ABOVE_0,
    REQUIRED,
    Length,
    between,
    check_options,
    check_value,
    describe,
    key,
    options_of,
    with_options,
)
from segtrain.registry import Table


def dice(
    num_classes: int,
    class_frequency: Callable,
    smooth: float = 1.0,
    classes: Literal["all", "present"] = "all",
    power: int | None = None,
):
    """Dice loss.

    Options:
        smooth: added to numerator and denominator,
            so that nothing is divided by 0
        classes: all, or those present

    Not an option: this line is prose.
    """
    return {"num_classes": num_classes, "smooth": smooth, "classes": classes, "power": power}


def focal(alpha: float, gamma: float = 2.0):
    """Focal loss."""
    return (alpha, gamma)


@pytest.fixture
def table() -> Table:
    return Table("loss", {"dice": dice, "focal": focal})


def message(call, *arguments) -> str:
    with pytest.raises(ConfigError) as error:
        call(*arguments)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


def test_options_are_the_signature_without_what_the_program_supplies():
    options = options_of(dice)
    assert list(options) == ["smooth", "classes", "power"]
    assert options["smooth"].default == 1.0
    assert options["smooth"].meaning == "added to numerator and denominator, so that nothing is divided by 0"
    assert options["power"].meaning == ""
    assert options_of(focal)["alpha"].default is REQUIRED


def test_options_of_a_settings_class():
    @dataclass(frozen=True)
    class Trainer:
        steps: int | None = key(None, "how many")

    assert options_of(Trainer)["steps"].meaning == "how many"
    assert options_of(Trainer)["steps"].default is None


@dataclass(frozen=True)
class Family:
    width: Annotated[int, between(1, 8)] = key(4, "channels")
    rates: Annotated[tuple[int, ...], Length(1, 2)] = key((1,), "rates")


@dataclass(frozen=True)
class Member(Family):
    width: Annotated[int, between(1, 16)] = key(8, "channels of all layers")
    aux: bool = key(False, "a second head")


@with_options(Member)
def member(options: Member, num_classes: int):
    """A member of a family."""
    return options, num_classes


def test_options_of_a_family_are_stated_once_and_come_as_one_object():
    options = options_of(member)
    assert {name: (one.default, one.meaning) for name, one in options.items()} == {
        "width": (8, "channels of all layers"),
        "rates": ((1,), "rates"),
        "aux": (False, "a second head"),
    }
    table = Table("model", {"member": member})
    built = table.build({"name": "member", "rates": [2, 3]}, num_classes=5, ignore_index=255)
    assert built == (Member(rates=(2, 3)), 5) == member(5, rates=(2, 3))
    assert member.__doc__ == "A member of a family."
    wrong = {
        "wdith": "model.wdith is not an option of model 'member' (did you mean 'width'?)",
        "num_classes": "model.num_classes comes from the data and the network",
        "width": "model.width is 17; allowed: from 1 to 16",
    }
    for name, words in wrong.items():
        assert message(table.build, {"name": "member", name: 17}).startswith(words)
    with pytest.raises(TypeError):
        member(5, wdith=3)


def test_length_of_a_list():
    annotation = Annotated[tuple[Annotated[int, between(1, 8)], ...], Length(1, 2)] | None
    assert check_value([1, 2], annotation, "x") == (1, 2) and check_value(None, annotation, "x") is None
    assert message(check_value, [], annotation, "x") == "x is []; allowed: 1 to 2 entries"
    assert message(check_value, [1, 2, 3], annotation, "x") == "x is [1, 2, 3]; allowed: 1 to 2 entries"
    assert message(check_value, [1, 9], annotation, "x") == "x[1] is 9; allowed: from 1 to 8"
    assert describe(annotation) == "null or a list, each an integer from 1 to 8 (1 to 2 entries)"


def test_build_passes_checked_options_and_the_runtime_values_that_are_named(table):
    built = table.build({"name": "dice", "smooth": 1}, num_classes=3, class_frequency=dict, ignore_index=255)
    assert built == {"num_classes": 3, "smooth": 1.0, "classes": "all", "power": None}
    assert type(built["smooth"]) is float


def test_unknown_option_names_the_nearest_and_all(table):
    text = message(table.check, {"name": "dice", "smoth": 1.0})
    assert (
        text == "loss.smoth is not an option of loss 'dice' (did you mean 'smooth'?); options are classes, "
        "power, smooth"
    )


def test_unknown_entry_names_the_nearest_and_all(table):
    assert (
        message(table.check, {"name": "dise"})
        == "loss=dise does not exist (did you mean 'dice'?); there are dice, focal"
    )


@pytest.mark.parametrize("config", [None, "dice", {}, {"name": None}, {"name": 3}, ["dice"], {"smooth": 1}])
def test_config_without_a_name(table, config):
    assert "dice, focal" in message(table.check, config)


def test_runtime_keyword_cannot_be_set(table):
    assert message(table.check, {"name": "dice", "num_classes": 3}).startswith(
        "loss.num_classes comes from the data and the network"
    )
    # One that this factory does not take is an unknown option like any other.
    assert "not an option" in message(table.check, {"name": "dice", "network": 3})


def test_missing_option(table):
    assert message(table.check, {"name": "focal"}).startswith("loss.alpha is missing: loss 'focal' needs it")
    assert "loss.alpha is missing" in message(table.check, {"name": "focal", "alpha": None})


def test_top_level_keys_have_no_prefix():
    assert message(check_options, {"alhpa": 1}, focal, "", "the command").startswith("alhpa is not an option")
    assert message(check_options, {"alpha": "x"}, focal, "", "the command").startswith(
        "alpha is 'x'; allowed: a number"
    )


def test_composite_in_order_and_null_removes():
    views = Table("tta", {"flip": lambda: "flip", "rotate": lambda: "rotate"})
    assert views.build_each({"rotate": {}, "flip": {}}) == ["rotate", "flip"]
    assert views.build_each({"rotate": None, "flip": {}}) == ["flip"]
    assert views.build_each({}) == views.build_each(None) == []


def test_composite_names_entry_and_key():
    views = Table("tta", {"rotate": focal})
    assert message(views.check_each, {"rotat": {}}).startswith(
        "tta=rotat does not exist (did you mean 'rotate'?)"
    )
    assert message(views.check_each, {"rotate": {"alpah": 1}}).startswith(
        "tta.rotate.alpah is not an option of tta 'rotate'"
    )
    assert message(views.check_each, {"rotate": 5}).startswith("tta.rotate is 5")


ACCEPTED = [
    (3, int, 3),
    (3, float, 3.0),
    (2.5, float, 2.5),
    ("a", str, "a"),
    (True, bool, True),
    (None, int | None, None),
    (3, float | None, 3.0),
    (3, int | str, 3),
    ("1ep", int | str | None, "1ep"),
    ([1, 2], tuple[float, float], (1.0, 2.0)),
    ((1, 2), list[int], [1, 2]),
    ([], tuple[int, ...], ()),
    ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
    ([1, 2], Sequence[int], [1, 2]),
    ([[1, 2], [3, 4]], list[tuple[int, int]], [(1, 2), (3, 4)]),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
    ({"a": {"p": 1}}, dict[str, dict], {"a": {"p": 1}}),
    ("tf", Literal["tf", "plain"], "tf"),
    (2, Literal[1, 2], 2),
    (256, int | tuple[int, int] | None, 256),
    ([256, 128], int | tuple[int, int] | None, (256, 128)),
    ("anything", Any, "anything"),
    ("none", Literal["none", "inverse"] | list[float], "none"),
    ([1, 2], Literal["none", "inverse"] | list[float], [1.0, 2.0]),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), ACCEPTED)
def test_accepted(value, annotation, expected):
    result = check_value(value, annotation, "x.y")
    assert result == expected
    assert type(result) is type(expected)


REFUSED = [
    (True, int, "an integer"),
    (True, float, "a number"),
    (1, bool, "true or false"),
    ("true", bool, "true or false"),
    (3.0, int, "an integer"),
    ("3", int, "an integer"),
    ("3", float, "a number"),
    (3, str, "a text"),
    (None, int, "an integer"),
    (1, Literal[True, "x"], "True, x"),
    ([1], tuple[int, int], "[an integer, an integer]"),
    ([1, "a"], list[int], "a list, each an integer"),
    ("ab", list[str], "a list, each a text"),
    (5, list[int], "a list, each an integer"),
    ({"a": "b"}, dict[str, float], "a mapping, each value a number"),
    ([1], dict[str, int], "a mapping, each value an integer"),
    ("x", int | None, "an integer or null"),
    (float("nan"), float, "a number"),
    (float("inf"), float, "a number"),
    (10**400, float, "a number"),
    (2**63, int, "an integer"),
]


@pytest.mark.parametrize(("value", "annotation", "allowed"), REFUSED)
def test_refused_with_what_is_allowed(value, annotation, allowed):
    text = message(check_value, value, annotation, "x.y")
    assert text.startswith(f"x.y is {value!r}")
    assert allowed in text


def test_a_number_too_long_to_be_written_out():
    assert message(check_value, 10**5000, int, "x.y") == (
        "x.y is a number of thousands of digits; allowed: an integer"
    )


def test_literal_names_the_nearest():
    assert message(check_value, "inverze", Literal["none", "inverse"], "loss.weights") == (
        "loss.weights is 'inverze' (did you mean 'inverse'?); allowed: none, inverse"
    )
    assert "did you mean 'inverse'" in message(
        check_value, "inverze", Literal["none", "inverse"] | list[float], "loss.weights"
    )


def test_control_characters_cannot_break_the_line():
    assert "\\n" in message(check_value, 1, Literal["a"], "x\ny")


def test_unknown_annotation_is_our_own_bug():
    with pytest.raises(TypeError, match="does not know"):
        check_value(1, complex, "x")


def test_plug_in_is_loaded_only_when_chosen(monkeypatch):
    loaded = []

    class Point:
        name = "theirs"

        def load(self):
            loaded.append(self.name)
            return focal

    monkeypatch.setattr(
        registry.importlib.metadata,
        "entry_points",
        lambda group: [Point()] if group == "segtrain.loss" else [],
    )
    table = Table("loss", {"dice": dice})
    assert table.names() == ["dice", "theirs"]
    table.factory("dice")
    assert not loaded
    assert table.build({"name": "theirs", "alpha": 1}) == (1.0, 2.0)
    assert set(loaded) == {"theirs"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("segtrain_has_no_such.module:loss", "ModuleNotFoundError: No module named 'segtrain_has_no_such'"),
        ("json:no_such_loss", "AttributeError: module 'json' has no attribute 'no_such_loss'"),
        ("string:digits", "TypeError: str is not a factory"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_named_and_hinders_no_other(monkeypatch, value, reason):
    point = registry.importlib.metadata.EntryPoint("theirs", value, "segtrain.loss")
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [point])
    table = Table("loss", {"dice": dice})
    table.factory("dice")
    said = f"loss=theirs of the installed package {point.module} cannot be loaded from {value} ({reason})"
    with pytest.raises(ConfigError, match=re.escape(said)):
        table.build({"name": "theirs"})


def test_describe_every_kind():
    assert describe(int | tuple[int, int] | None) == "an integer or null or [an integer, an integer]"
    assert describe(dict[str, dict]) == "a mapping, each value a mapping"
    assert describe(Any) == "anything"
    assert describe(Annotated[int, between(0, 255)] | None) == "an integer from 0 to 255 or null"
    assert describe(tuple[Annotated[float, ABOVE_0], ...]) == "a list, each a number above 0"
