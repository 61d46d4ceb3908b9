"""Compares a saved state with the state that it is restored into: keys, types, shapes."""

from __future__ import annotations

import collections
import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

NUMBERS = (int, float, type(None))


def misfit(own, given, where: str) -> str | None:
    """The first place where `given` differs from `own` in its keys, types or shapes; None if there is none.

    Any number or None is accepted for a float or None, such as a best score that does not exist yet.
    """
    if isinstance(own, Tensor):
        if not isinstance(given, Tensor):
            return f"{where} is {type(given).__name__}, not a tensor"
        (shape, dtype), (other, its_dtype) = ((tuple(one.shape), one.dtype) for one in (own, given))
        return (
            None if (shape, dtype) == (other, its_dtype) else f"{where} is {other} {its_dtype}, not {shape}"
        )
    if isinstance(own, Mapping):
        if not isinstance(given, Mapping):
            return f"{where} is {type(given).__name__}, not a mapping"
        if own.keys() != given.keys():
            missing, name = min((name in given, str(name)) for name in own.keys() ^ given.keys())
            return f"{where} {'has the unknown key' if missing else 'lacks'} {name}"
        return first(misfit(own[key], given[key], f"{where}.{key}") for key in own)
    if isinstance(own, (list, tuple)):
        if not isinstance(given, (list, tuple)) or len(own) != len(given):
            return f"{where} is not a list of {len(own)}"
        return first(misfit(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(own, given, strict=True)))
    alike = type(own) is type(given) or (type(own) in NUMBERS[1:] and type(given) in NUMBERS)
    return None if alike else f"{where} is {type(given).__name__}, not {type(own).__name__}"


def first(found) -> str | None:
    """The first element that is not None; None if there is none."""
    return next((one for one in found if one is not None), None)


def optimizer_misfit(optimizer: torch.optim.Optimizer, given, where: str) -> str | None:
    """As `misfit`, for the saved state of an optimizer: each parameter must have either no state or all
    tensors that a step creates, in their shapes. A wrong shape would crash the kernel that updates the
    weights."""
    own = optimizer.state_dict()
    if not isinstance(given, Mapping) or own.keys() != given.keys():
        return f"{where} is not the state of an optimizer"
    groups = misfit(own["param_groups"], given["param_groups"], f"{where}.param_groups")
    if groups is not None:
        return groups
    created, states = _after_a_step(optimizer), given["state"]
    numbers = [number for group in own["param_groups"] for number in group["params"]]
    if [group["params"] for group in given["param_groups"]] != [g["params"] for g in own["param_groups"]]:
        return f"{where}.param_groups is of other parameters"
    if not isinstance(states, Mapping) or not set(states) <= set(numbers):
        return f"{where}.state is not of these parameters"
    if created is None:
        return None
    return first(
        misfit(created.get(number, {}), state, f"{where}.state.{number}")
        for number, state in states.items()
        if state
    )


def _after_a_step(optimizer: torch.optim.Optimizer) -> dict | None:
    """The optimizer's state after a step on meta tensors; None if the optimizer cannot step on meta
    tensors."""
    twin = copy.copy(optimizer)
    twin.state = collections.defaultdict(dict)
    twin.param_groups = [{**group, "params": []} for group in optimizer.param_groups]
    for group, own in zip(twin.param_groups, optimizer.param_groups, strict=True):
        for parameter in own["params"]:
            empty = nn.Parameter(torch.empty_like(parameter, device="meta"))
            empty.grad = torch.empty_like(empty)
            group["params"].append(empty)
        group.update({"fused": False} if "fused" in group else {})
    try:
        twin.step()
    except (RuntimeError, TypeError, NotImplementedError, ValueError):
        return None
    return twin.state_dict()["state"]
