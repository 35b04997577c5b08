"""What a caption source is made of, read in one pass, and the index that keeps a large one off the memory.

files.py (which files) → read.py → lines.py, tables.py, parquet.py ─texts→ cleaning.py → captions.py (small)
                                                                         └→ build.py → index.py (large)
"""
