"""A static batch that was begun: its groups are on the host, or on their way there from a device."""

from typing import Protocol

from protocol.payload import ImagesNHWC


class Drawing(Protocol):
    """What `Engine.begin` gives."""

    @property
    def arrived(self) -> bool:
        """Whether `groups` would not wait."""

    def groups(self) -> list[ImagesNHWC]:
        """In the order of the tickets; waits for them. Raises what `Engine.draw` raises."""


class OnHost:
    """Of an engine that has them as soon as it has computed them."""

    arrived = True

    def __init__(self, groups: list[ImagesNHWC]) -> None:
        self._groups = groups

    def groups(self) -> list[ImagesNHWC]:
        """See `Drawing.groups`."""
        return self._groups
