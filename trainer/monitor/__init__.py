"""What /metrics and /healthz say of a trainer.

loop ─row→ Board ┐
feed ─status────→ ├ Observer ─Reading→ families, health ─→ MonitorServer
stalls, disk ───→ ┘
"""
