"""The trainer's end of the wire.

socket thread (feed.py) ─frames→ desk.py (answers messages) ─→ leases.py (whose ticket is whose)
                                     └→ peers.py (who is there)        arrivals → source
"""
