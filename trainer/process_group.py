"""Joins the ranks that torchrun or another launcher started: gloo for tensors on CPUs, NCCL on GPUs.

RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT ─→ store ─→ watchdog, process group ─→ RankGroup
"""

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # torch names no exports

from protocol.errors import StreamrepError, UserError
from trainer.errors import PeerFailedError, StopRequestedError
from trainer.rank_group import RankGroup
from trainer.watchdog import JOIN_SECONDS, Watchdog

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""Ranks wait for each other as long as the first one evaluates. Death is the watchdog's business."""
_TRY = timedelta(seconds=2)
_NOTICE_SECONDS = 1.0


@contextmanager
def join_ranks(environment: Mapping[str, str], stop: threading.Event) -> Iterator[RankGroup]:
    """This process's place among the ranks; alone where the environment names none.

    Leaving by an error ends the other ranks with its reason. Where another rank was lost, PeerFailedError
    says so, whatever the loss led to here. Raises UserError where the ranks can't come together, and
    StopRequestedError.
    """
    place = _place(environment)
    if place.world == 1:
        yield place
        return
    store = _open_store(place, environment, stop)
    watchdog = Watchdog(place.rank, place.world, store, place.address, stop)
    try:
        _init_process_group(place, store)
        yield place
    except BaseException as error:
        # A lost peer first shows as an error of whatever waited for it.
        if not isinstance(error, StreamrepError) and watchdog.lost.wait(_NOTICE_SECONDS):
            raise PeerFailedError(watchdog.reason) from error
        if not place.settled:
            watchdog.alarm(_one_line(error))
        raise
    else:
        dist.destroy_process_group()
    finally:
        watchdog.leave()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(environment: Mapping[str, str]) -> RankGroup:
    """From what torchrun sets. Raises UserError where it is incomplete."""
    world = _number(environment, "WORLD_SIZE", 1)
    if world == 1:
        return RankGroup()
    rank, local_rank = _number(environment, "RANK", None), _number(environment, "LOCAL_RANK", 0)
    port, host = _number(environment, "MASTER_PORT", None), environment.get("MASTER_ADDR", "")
    if rank >= world or not host:
        raise _incomplete(f"RANK below {world} and MASTER_ADDR", f"RANK={rank}, MASTER_ADDR={host!r}")
    return RankGroup(rank=rank, world=world, local_rank=local_rank, address=_address_towards(host, port))


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise _incomplete(f"{name}, a number", repr(text))
    return int(text)


def _incomplete(expected: str, got: str) -> UserError:
    return UserError(
        "ranks are not described",
        expected=expected,
        got=got,
        where="environment",
        mend="start ranks with torchrun or `streamrep up --ranks`, or unset WORLD_SIZE",
    )


def _address_towards(host: str, port: int) -> str:
    """This machine's address on the way to the first rank's; nothing is sent."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(
            "the first rank's machine is unknown",
            expected="a name or an address that this machine can reach",
            got=error.strerror or str(error),
            where=f"MASTER_ADDR={host}",
            mend="correct it",
        ) from error


def _open_store(place: RankGroup, environment: Mapping[str, str], stop: threading.Event) -> Store:
    """torchrun's own store where it has one; else the first rank's, which listens at MASTER_ADDR alone."""
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    serves = place.is_first and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    listening = _listen(place.address, port) if serves else None
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            store = TCPStore(
                host, port, place.world, serves, _TRY, wait_for_workers=False, master_listen_fd=listening
            )
            break
        except dist.DistError as error:
            if stop.is_set():
                raise StopRequestedError("asked to stop while ranks were joining") from error
            if time.monotonic() > deadline:
                raise UserError(
                    "the first rank was not found",
                    expected=f"it within {JOIN_SECONDS:g} s",
                    got="no answer",
                    where=f"MASTER_ADDR={host} MASTER_PORT={port}",
                    mend="start every rank of the run with the same two",
                ) from error
    store.set_timeout(timedelta(seconds=JOIN_SECONDS))
    # torchrun's store outlives the ranks that it starts again: what they find must be of their own start.
    return PrefixStore(f"streamrep/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _listen(address: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family).detach()
    except OSError as error:
        raise UserError(
            "the first rank cannot listen",
            expected="a free port",
            got=error.strerror or str(error),
            where=f"{address} port {port}",
            mend="choose another MASTER_PORT",
        ) from error


def _init_process_group(place: RankGroup, store: Store) -> None:
    if place.address.startswith("127.") or place.address == "::1":
        # gloo would listen at the machine's public address.
        names = {name for _, name in socket.if_nameindex()}
        loopback = next((name for name in ("lo", "lo0") if name in names), None)
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world,
        timeout=COLLECTIVE_TIMEOUT,
    )
