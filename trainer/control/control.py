"""What people asked of a trainer and what became of it: shared by the door and the training thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from protocol.errors import UserError
from trainer.config import Mode
from trainer.control.messages import VERSION, Reply, Request, Status

ANSWER_SECONDS = 10.0
"""A step may take longer; who asked is then told that it will be done."""


@dataclass(frozen=True)
class Asked:
    """Wishes that the training thread has not met yet; None is no wish."""

    mode: Mode | None = None
    paused: bool | None = None


class Control:
    """One request at a time is answered; every wish is met at the opening of a step."""

    def __init__(
        self,
        mode: Mode,
        check: Callable[[Mode], None],
        status: Callable[[Mode, bool], Status],
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`check` raises UserError for a mode that the run's settings do not allow."""
        self._check = check
        self._status = status
        self._answer_seconds = answer_seconds
        self._changed = threading.Condition()
        self._asked = Asked()
        self._refusal = ""
        self.mode = mode
        self.paused = False

    # the door's thread

    def answer(self, request: Request) -> Reply:
        """Does what was asked, or says in one line why not."""
        if request.version != VERSION:
            return Reply(ok=False, text=f"the trainer speaks version {VERSION}, you {request.version}")
        match request.command:
            case "status":
                return Reply(ok=True, status=self._status(self.mode, self.paused))
            case "mode":
                if request.mode is None:
                    return Reply(ok=False, text="mode: expected online, offline or mixed, got none")
                return self._ask_mode(request.mode)
            case _:
                return self._ask(Asked(paused=request.command == "pause"), request.command)

    def _ask_mode(self, mode: Mode) -> Reply:
        try:
            self._check(mode)
        except UserError as error:
            return Reply(ok=False, text=str(error))
        return self._ask(Asked(mode=mode), f"mode {mode}")

    def _ask(self, wish: Asked, words: str) -> Reply:
        with self._changed:
            self._refusal = ""
            if wish.mode is not None:
                self._asked = replace(self._asked, mode=wish.mode)
            else:
                self._asked = replace(self._asked, paused=wish.paused)
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self.pending, self._answer_seconds)
            if self._refusal:
                return Reply(ok=False, text=self._refusal)
            return Reply(ok=True, text=words if done else f"{words}: at the opening of the next step")

    # the training thread

    @property
    def pending(self) -> bool:
        """Whether anything is to be done at the opening of the next step."""
        return self._asked != Asked()

    @property
    def asked(self) -> Asked:
        """The wishes."""
        return self._asked

    def settled(self, asked: Asked, *, mode: Mode, paused: bool, refusal: str = "") -> None:
        """How the run goes on: `asked` is met, or refused in one line. A newer wish stays."""
        with self._changed:
            self.mode, self.paused, self._refusal = mode, paused, refusal
            if self._asked is asked:
                self._asked = Asked()
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until somebody asks for something, at most that long."""
        with self._changed:
            self._changed.wait_for(lambda: self.pending, seconds)
