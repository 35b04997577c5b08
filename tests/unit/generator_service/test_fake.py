"""The fake engine: deterministic, learnable, torch-free, and as slow as it is told to be."""

import subprocess
import sys
import time

import numpy as np
import pytest

from generator_service.errors import DrawAbandonedError, TicketError
from generator_service.fake import FakeEngine, draw_fake_group
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.payload import checksum

SPEC = GenerationSpec(views=3, size=24, guidance=(1.0,))


def test_pixels_depend_on_the_ticket_alone(make_ticket) -> None:
    """Two engines of different batches draw the same, and the pixels never change between versions."""
    tickets = [make_ticket(i, f"caption {i}", views=3) for i in range(3)]
    wide = FakeEngine(SPEC, batch_images=9).draw(tickets, lambda: False)
    narrow = [FakeEngine(SPEC, batch_images=4).draw([ticket], lambda: False)[0] for ticket in tickets]
    for a, b in zip(wide, narrow, strict=True):
        assert a.shape == (3, 24, 24, 3)
        assert np.array_equal(a, b)
    assert not np.array_equal(wide[0][0], wide[0][1])
    assert checksum(wide[0]) == "93410d2db62c08ef"


def test_views_of_a_caption_look_alike(make_ticket) -> None:
    """Mean colours of views of one caption lie nearer to each other than to those of other captions."""
    groups = [draw_fake_group(make_ticket(i, f"thing {i}", views=8), 32) for i in range(20)]
    means_CVF = np.stack([group.reshape(8, -1, 3).mean(axis=1) for group in groups])
    within = means_CVF.std(axis=1).mean()
    between = means_CVF.mean(axis=1).std(axis=0).mean()
    assert between > 2 * within


def test_refuses_what_does_not_fit(make_ticket) -> None:
    """A group larger than the batch, and a ticket of another spec."""
    with pytest.raises(UserError, match="a group does not fit the static batch"):
        FakeEngine(SPEC, batch_images=2)
    with pytest.raises(TicketError, match="expected 3 views, got 2 seeds"):
        FakeEngine(SPEC, batch_images=3).draw([make_ticket(1, "a", views=2)], lambda: False)


def test_a_slow_batch_can_be_given_up(make_ticket) -> None:
    """An hour's batch is left at the first question; a limited one takes at least its time."""
    slow = FakeEngine(SPEC, batch_images=3, images_per_second=3 / 3600)
    with pytest.raises(DrawAbandonedError):
        slow.draw([make_ticket(1, "a", views=3)], lambda: True)
    limited = FakeEngine(SPEC, batch_images=3, images_per_second=30)
    started = time.monotonic()
    limited.draw([make_ticket(1, "a", views=3)], lambda: False)
    assert time.monotonic() - started >= 0.1


def test_a_fake_worker_never_imports_torch() -> None:
    """Whoever tries a trainer with it needs neither torch nor diffusers."""
    code = (
        "import sys, generator_service.worker; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
