"""What generator and trainer agree on: messages, tickets, hashes, payloads, sockets. No torch in here."""

PROTOCOL_VERSION = 1
"""Raised when a message changes in a way that an older peer cannot read."""
