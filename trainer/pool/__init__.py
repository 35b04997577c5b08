"""Groups on disk, in one of two formats, each image found by its caption and its number.

webdataset  NAME.tar shards; an image is KEY.webp, its caption KEY.txt, the rest KEY.json
folders     StableRep's layout: folder k holds image k of every caption under the same relative path; a CSV
            of (path, caption) without a header

DIR/
  pool.json                 what the pool is: format, picture format, and the plan it was drawn from
  shard-000000.tar          a segment: written aside, then renamed ...
  shard-000000.index.json   ... and it counts from the moment its index is there
  seed_00000/, captions.csv, segment-000000.index.json    the same for folders

Image number v of a caption is its view number v: a pool that was filled with l images a caption holds views
0 to l - 1, and one that a run recorded holds the views that the run trained on.

A pool made elsewhere has neither pool.json nor indices: shards are read through once and get an index beside
them where the folder can be written, and a CSV is its own index.
"""
