"""The compute thread's loop, with an engine whose device takes its time."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from generator_service.channel import DrawnGroup, Outcome
from generator_service.drawing_loop import DrawingLoop
from generator_service.engine import Abandoned
from generator_service.errors import OutOfDeviceMemoryError
from generator_service.fake import FakeEngine
from generator_service.fitting import Fitting
from generator_service.packer import Assignment
from generator_service.tally import Tally
from protocol.generation import GenerationSpec
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

SPEC = GenerationSpec(views=2, size=16, guidance=(1.0,))


class Device:
    """Draws one batch after another; `events` is all that happened on it, by the first ticket of a batch."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.events: list[str] = []
        self.looks_before_arrival = 3

    def builder(self, batch_images: int) -> Callable[..., "Slow"]:
        return lambda spec, abandoned: Slow(self, batch_images)


class Slow(FakeEngine):
    """Its groups arrive after a number of looks, or when somebody waits for them."""

    def __init__(self, device: Device, batch_images: int) -> None:
        super().__init__(SPEC, batch_images=batch_images)
        self._device = device

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> Any:
        if self.batch_images > self._device.room:
            raise OutOfDeviceMemoryError("a device", self.batch_images, "none left")
        self._device.events.append(f"begin {tickets[0].group_id}")
        return _Slow(self._device, tickets[0].group_id, super().draw(tickets, abandoned))


class _Slow:
    def __init__(self, device: Device, name: int, groups: list[ImagesNHWC]) -> None:
        self._device, self._name, self._groups = device, name, groups
        self._looks = device.looks_before_arrival

    @property
    def arrived(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def groups(self) -> list[ImagesNHWC]:
        self._device.events.append(f"fetch {self._name}")
        return self._groups


class Orders:
    """A link whose batches come as `script` says: group ids, nothing in time, or the end."""

    exact = False
    groups_sent = 0

    def __init__(self, script: list[list[int] | None], make_ticket: Callable[..., Ticket]) -> None:
        self._script, self._make_ticket = deque(script), make_ticket
        self.abandoned = threading.Event()
        self.outcomes: list[Outcome] = []
        self.equipped: list[int] = []
        self.asked_for_full: list[bool] = []

    def next_batch(self, timeout_seconds: float, *, full: bool = False) -> list[Assignment] | None:
        self.asked_for_full.append(full)
        ids = self._script.popleft()
        if ids is None:
            return None
        return [Assignment(rank=0, ticket=self._make_ticket(i, "a", views=2)) for i in ids]

    def hand_over(self, outcomes: tuple[Outcome, ...]) -> None:
        self.outcomes += outcomes

    def equip(self, equipment: Any, *, groups_per_batch: int, batch_seconds: float) -> None:
        self.equipped.append(groups_per_batch)

    @property
    def drawn(self) -> list[int]:
        assert all(isinstance(outcome, DrawnGroup) for outcome in self.outcomes)
        return [outcome.group_id for outcome in self.outcomes]


def _run(device: Device, orders: Orders, batch_images: int = 4) -> Tally:
    tally = Tally()
    fitting = Fitting(device.builder(batch_images), device.builder, lambda text: None)
    DrawingLoop(fitting, SPEC, orders, tally, lambda text: None).run()  # type: ignore[arg-type]  # a stand-in
    return tally


def test_a_batch_begins_before_the_one_before_it_is_fetched(make_ticket: Any) -> None:
    """Never more than two are under way, and groups go out in the order of their tickets."""
    device, orders = Device(), Orders([[1, 2], [3, 4], [5, 6], None], make_ticket)
    tally = _run(device, orders)
    assert device.events == ["begin 1", "begin 3", "fetch 1", "begin 5", "fetch 3", "fetch 5"]
    assert orders.drawn == [1, 2, 3, 4, 5, 6]
    assert (tally.drawn().images, tally.drawn().batch_seconds.cumulative[-1]) == (12, 3)


def test_a_batch_that_is_done_does_not_wait_for_the_next_one(make_ticket: Any) -> None:
    """While none comes the loop looks whether the device has done."""
    device, orders = Device(), Orders([[1, 2], [], [], [], [3], None], make_ticket)
    _run(device, orders)
    assert device.events == ["begin 1", "fetch 1", "begin 3", "fetch 3"]
    # While the device is busy a part-filled batch may wait for its rest.
    assert orders.asked_for_full == [False, True, True, True, False, True]


def test_an_engine_that_draws_at_once_is_fetched_at_once(make_ticket: Any) -> None:
    """As on a CPU: no group lies about while the next batch is drawn."""
    device, orders = Device(), Orders([[1, 2], [3, 4], None], make_ticket)
    device.looks_before_arrival = 0
    _run(device, orders)
    assert device.events == ["begin 1", "fetch 1", "begin 3", "fetch 3"]


def test_out_of_memory_the_one_under_way_is_fetched_and_the_other_drawn_in_parts(make_ticket: Any) -> None:
    """By an engine with half of the batch; nothing is lost and the order is kept."""

    class Shrinking(Orders):
        def next_batch(self, timeout_seconds: float, *, full: bool = False) -> list[Assignment] | None:
            batch = super().next_batch(timeout_seconds, full=full)
            if batch and batch[0].ticket.group_id == 3:
                device.room = 2
            return batch

    device, orders = Device(), Shrinking([[1, 2], [3, 4], [5], None], make_ticket)
    _run(device, orders)
    assert device.events == [
        "begin 1",
        "fetch 1",
        "begin 3",
        "fetch 3",
        "begin 4",
        "fetch 4",
        "begin 5",
        "fetch 5",
    ]
    assert (orders.drawn, orders.equipped) == ([1, 2, 3, 4, 5], [2, 1])


def test_out_of_memory_twice_is_the_end(make_ticket: Any) -> None:
    """Half of the batch has no room either."""
    device, orders = Device(), Orders([[1, 2], None], make_ticket)
    device.room = 1
    with pytest.raises(OutOfDeviceMemoryError):
        _run(device, orders)
