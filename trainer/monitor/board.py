"""Where the training thread leaves the row of its newest step for threads that only read."""

from trainer.metrics import Row


class Board:
    """Holds one row. It is replaced as a whole and nobody changes it after that, so no lock is needed."""

    def __init__(self) -> None:
        self.row: Row | None = None
        """None before the first step of this process."""

    def put(self, row: Row) -> None:
        """`row` belongs to the board from now on."""
        self.row = row
