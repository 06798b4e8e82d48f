"""Delta tables: snapshots, appends exactly once, replaced rows and compaction. Imports no other folder of `archive`."""
