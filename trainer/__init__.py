"""Groups in, encoder out: captions, plan, feed, sources, losses, loop, evaluation, ledger."""
