"""How the ranks notice that one of them has failed: every wait for the others has a limit, and the store that
torchrun gives them says which of them wait and whether one has failed already."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import time
from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor

from segtrain.errors import ResourceError
from segtrain.run.lock import boot_id
from segtrain.run.rank import launched
from segtrain.run.stop import children_of

WAIT_S = 20.0
"""Seconds that a rank waits for the others beyond what it works itself between two exchanges, at least."""
PATIENCE = 10
"""It also waits so many times as long as it has worked itself since the last exchange."""
TELL_S = 5.0
"""Seconds after which a rank that waits says so."""
CAUSE_S = 2.0
"""Seconds that a rank, which sees another one gone, gives that one to tell why."""
START_S = 600.0
"""Seconds that ranks above 0 wait for rank 0, which locks the run folder first."""
POLL_S = 5e-4
ERROR = "error"
"""Key of torchrun's store by which the first rank that fails is known."""

_store: dist.Store | None = None
_since = time.monotonic()


class LostRank(ResourceError):
    """Another rank is gone or does not answer."""


def connected() -> dist.Store:
    """The store of torchrun, which outlives the ranks, under keys of this start of theirs."""
    global _store
    if _store is None:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and launched().rank == 0
        limit = datetime.timedelta(seconds=60)
        _store = dist.TCPStore(host, port, is_master=own, wait_for_workers=False, timeout=limit)
    return dist.PrefixStore(f"segtrain/{launched().restart_count}", _store)


def await_main(ready: Callable[[], None]) -> dist.Store:
    """The store, once rank 0 has called this too. ready: called while other ranks wait; it raises to end
    that. LostRank after START_S."""
    store, place = connected(), launched()
    store.set(f"process/{place.rank}", f"{boot_id() or None} {os.getpid()}")
    if place.rank == 0:
        store.set("ready", "")
    end_s = time.monotonic() + START_S
    while not store.check(["ready"]):
        ready()
        if time.monotonic() > end_s:
            raise LostRank(
                f"rank 0 did not begin within {START_S:.0f} s, and rank {place.rank} waits for it; was it "
                "stopped, or does it wait for the storage of its run folder?"
            )
        time.sleep(0.05)
    return store


def work_begins() -> None:
    """Counts the time that this rank works between two exchanges from now on."""
    global _since
    _since = time.monotonic()


def is_first_to_fail() -> bool:
    """Whether no other rank has asked this before. True if the ranks cannot be asked."""
    try:
        return launched().size == 1 or connected().add(ERROR, 1) == 1
    except (RuntimeError, KeyError, OSError):
        return True


def wait(work, tensor: Tensor, limit: float | None = None) -> None:
    """Waits for an exchange. Polled, so that signals are handled and the wait ends: LostRank if another rank
    is gone or has not come after `limit` seconds."""
    start = time.monotonic()
    if limit is None:
        limit = max(WAIT_S, PATIENCE * (start - _since))
    told = False
    try:
        if tensor.is_cuda:  # NCCL: on the stream of the device, whose watchdog limits the wait
            work.wait()
        else:
            while not work.is_completed():
                waited = time.monotonic() - start
                if waited > TELL_S and not told:
                    told = True
                    _tell_waiting(True)
                if waited > limit:
                    raise LostRank(_absent(limit))
                time.sleep(POLL_S)
            work.wait()
    except RuntimeError as error:
        _await_cause()
        reason = (str(error).splitlines() or [""])[0][:200]
        raise LostRank(
            f"another rank is gone; its own message or that of torchrun says why ({reason})"
        ) from error
    if told:
        _tell_waiting(False)
    work_begins()


def _absent(limit: float) -> str:
    """Which ranks do not answer: those that wait say so in the store. Those of the others that are on this
    machine are killed: torchrun would wait for them."""
    time.sleep(TELL_S)  # a rank that came last has not said yet that it waits
    store = connected()
    missing = [other for other in range(launched().size) if not store.check([f"waiting/{other}"])]
    for other in missing:
        _kill(*store.get(f"process/{other}").decode().split())
    which = " and ".join(f"rank {other}" for other in missing) or "another rank"
    return f"{which} did not answer for {limit:.0f} s; was it stopped, or does it wait for its storage?"


def _await_cause() -> None:
    """Gives a rank that has raised, whose end this rank sees, the time to tell why."""
    end_s = time.monotonic() + CAUSE_S
    with contextlib.suppress(RuntimeError, KeyError):
        store = connected()
        while time.monotonic() < end_s and not store.check([ERROR]):
            time.sleep(0.05)


def _tell_waiting(waits: bool) -> None:
    """Says in the store whether this rank waits for others."""
    store, name = connected(), f"waiting/{launched().rank}"
    store.set(name, "") if waits else store.delete_key(name)


def _kill(boot: str, pid: str) -> None:
    """Kills a process of this machine that the same torchrun has started."""
    same_parent = pid in map(str, children_of(os.getppid()))
    if boot == boot_id() and same_parent:
        with contextlib.suppress(OSError):
            os.kill(int(pid), signal.SIGKILL)
