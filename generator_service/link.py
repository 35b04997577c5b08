"""The compute thread's end of the I/O thread: orders come in here, groups go out."""

import contextlib
import threading

import zmq

from generator_service.assignments import Assignments
from generator_service.channel import Outcome
from generator_service.commands import Command, Equip, Leave
from generator_service.conversation import Equipment, WorkerFacts
from generator_service.errors import LinkError
from generator_service.link_loop import LinkLoop
from generator_service.link_status import LinkStatus
from generator_service.packer import Assignment
from protocol.errors import StreamrepError
from protocol.generation import GenerationSpec
from protocol.keys import WorkerKeys

JOIN_SECONDS = 10.0
TERM_SECONDS = 3.0
"""Above the linger time of the sockets."""
_WAKE_ENDPOINT = "inproc://wake"


class Link:
    """Starts the I/O thread. All methods but `status` belong to the compute thread."""

    def __init__(
        self,
        connect: str,
        facts: WorkerFacts,
        *,
        keys: WorkerKeys | None,
        wait_seconds: float,
        pack_seconds: float,
        stop: threading.Event,
    ) -> None:
        """`stop` may be set by anyone at any time; the I/O thread looks at it ten times a second."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake = self._context.socket(zmq.PAIR)
        self._wake.bind(_WAKE_ENDPOINT)
        wake = self._context.socket(zmq.PAIR)
        wake.connect(_WAKE_ENDPOINT)
        self._assignments = Assignments(pack_seconds=pack_seconds)
        self._loop = LinkLoop(
            self._context,
            wake,
            connect,
            facts,
            self._assignments,
            keys=keys,
            wait_seconds=wait_seconds,
            stop=stop,
        )
        self._thread = threading.Thread(target=self._loop.run, name="link", daemon=True)
        self._thread.start()

    @property
    def abandoned(self) -> threading.Event:
        """Set when nobody will take what is being drawn."""
        return self._loop.abandoned

    @property
    def exact(self) -> bool:
        """Whether the run wants every group from engines of one hash; known with the spec."""
        return self._loop.exact

    @property
    def told_at(self) -> float | None:
        """When leaving began, on the monotonic clock."""
        return self._loop.told_at

    @property
    def groups_sent(self) -> int:
        """Groups handed to the sockets so far."""
        return self._loop.groups_sent

    @property
    def malformed(self) -> dict[str, int]:
        """Messages dropped so far, by reason."""
        return dict(self._loop.malformed)

    @property
    def status(self) -> LinkStatus:
        """How the conversations stand, a tenth of a second ago at most. For any thread."""
        return self._loop.status

    def wait_for_spec(self) -> GenerationSpec | None:
        """Blocks until the first welcome; None when the worker has to leave before it."""
        return self._loop.spec.get()

    def equip(self, equipment: Equipment, *, groups_per_batch: int, batch_seconds: float) -> None:
        """Tells the trainer that the engine is warm, and asks for tickets."""
        self._assignments.equip(groups_per_batch=groups_per_batch, batch_seconds=batch_seconds)
        self._command(Equip(equipment=equipment, groups_per_batch=groups_per_batch))

    def next_batch(self, timeout_seconds: float, *, full: bool = False) -> list[Assignment] | None:
        """See `Assignments.take`."""
        return self._assignments.take(timeout_seconds, full=full)

    def hand_over(self, outcomes: tuple[Outcome, ...]) -> None:
        """Gives what became of the batch to the I/O thread."""
        if self._assignments.finish(outcomes):
            self._wake_up()

    def close(self) -> None:
        """Says goodbye and ends the thread, within seconds; it may have ended already."""
        self._command(Leave())
        self._thread.join(JOIN_SECONDS)
        self._wake.close(linger=0)
        # A thread that hangs holds its sockets, and term would wait for them for ever.
        if not self._thread.is_alive():
            self._end_context()

    def _end_context(self) -> None:
        """Waits until what was said has left, which takes a second at most. libzmq's own thread may hang for
        longer in a look-up of the name of a trainer that is gone; then the process ends without it."""
        ending = threading.Thread(target=self._context.term, name="end-context", daemon=True)
        ending.start()
        ending.join(TERM_SECONDS)

    def raise_failure(self) -> None:
        """Raises what ended the thread, if it was an error: a UserError as it is, another as LinkError."""
        failure = self._loop.failure
        if isinstance(failure, StreamrepError):
            raise failure
        if failure is not None:
            raise LinkError(f"the I/O thread died: {failure!r}") from failure

    def _command(self, command: Command) -> None:
        self._loop.commands.append(command)
        self._wake_up()

    def _wake_up(self) -> None:
        # Refused only when the thread has ended or a wake-up waits already.
        with contextlib.suppress(zmq.Again):
            self._wake.send(b"", zmq.NOBLOCK)
