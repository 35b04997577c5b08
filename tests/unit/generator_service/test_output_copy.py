"""Outputs that are on their way to the host."""

import numpy as np
import pytest
import torch

from generator_service.errors import DrawAbandonedError
from generator_service.graphed_loop import LoopOutputs
from generator_service.output_copy import Copying, OutputCopy


def _outputs() -> LoopOutputs:
    images_NHWC = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    return LoopOutputs(images_NHWC, torch.tensor([True, False]))


def test_on_a_cpu_they_are_there_at_once() -> None:
    """Pixels as they were, and the numbers of the images that are not finite."""
    copying = OutputCopy(torch.device("cpu")).start(_outputs(), lambda: False)
    assert copying.arrived
    images_NHWC, broken = copying.wait()
    assert np.array_equal(images_NHWC, np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3))
    assert broken == (1,)


def test_they_are_not_read_before_the_copy_has_ended() -> None:
    """The device writes meanwhile."""
    outputs = _outputs()
    answers = iter([False, False, False])

    def copied() -> bool:
        if next(answers, True):
            outputs.images_NHWC.fill_(7)
            return True
        return False

    copying = Copying(outputs, copied, lambda: False)
    assert not copying.arrived
    assert (copying.wait().images_NHWC == 7).all()


def test_nobody_waits_for_a_device_in_vain() -> None:
    """A worker that leaves gives up what is under way."""
    with pytest.raises(DrawAbandonedError):
        Copying(_outputs(), lambda: False, lambda: True).wait()
