"""The verdict on a group that arrived."""

from enum import Enum


class Received(Enum):
    """What became of a group that arrived."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    UNWANTED = "unwanted"
