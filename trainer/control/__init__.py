"""A running trainer asked to pause, to go on, to train in another mode, or how it is doing: docs/control.md.

streamrep ctl ─Request→ Door (socket in the run's folder) → Control ─asked→ Steering, at the opening of a step
              ←──Reply─                                            ←settled─
"""
