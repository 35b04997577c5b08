"""Questions with numbers for answers: one runnable file each, which writes JSON with hardware and commit."""
