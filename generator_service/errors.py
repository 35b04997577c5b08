"""What can go wrong in a generator process.

StreamrepError
├── UserError                  (protocol) a person can mend it; the command exits with 2
│   └── OutOfDeviceMemoryError the static batch does not fit; the worker's failure, never the ticket's
└── GeneratorError
    ├── TicketError            this ticket cannot be drawn, by any worker of the run
    │   └── NonFiniteError     its latents are not numbers
    ├── DrawAbandonedError     the draw was given up between two steps because the worker leaves
    └── LinkError              the I/O thread died; its own error is the cause
"""

from protocol.errors import StreamrepError, UserError


class GeneratorError(StreamrepError):
    """Base of the generator's own errors."""


class TicketError(GeneratorError):
    """A ticket that does not fit the run's generation spec."""


class NonFiniteError(TicketError):
    """Latents that overflowed: of the whole batch until each ticket was drawn alone."""

    def __init__(self, image: int, broken: int, images: int) -> None:
        super().__init__(
            f"the latents of {broken} of {images} images are not finite, the first is number {image} of its"
            " batch; float16 overflows in some models: generator.precision = bfloat16 or float32"
        )


class DrawAbandonedError(GeneratorError):
    """Raised inside `Engine.draw` when its `abandoned` answers true."""


class LinkError(GeneratorError):
    """The I/O thread ended by an error of its own."""


class OutOfDeviceMemoryError(UserError):
    """The device has no memory for the static batch."""

    def __init__(self, device_name: str, batch_images: int, detail: str) -> None:
        super().__init__(
            "out of memory",
            expected=f"room for a static batch of {batch_images} images",
            got=detail.splitlines()[0] if detail else "no memory",
            where=device_name,
            mend="lower generator.batch_images",
        )
        self.batch_images = batch_images
