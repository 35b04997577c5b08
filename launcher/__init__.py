"""The `streamrep` command: the one room that knows both sides."""
