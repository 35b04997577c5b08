"""Ticket in, group out: worker, sampler, engines, model families."""
