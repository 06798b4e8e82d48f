"""Process the archive in runs: plan, stream images through the served detectors, commit, check the counts.

plan (media anti-join results) -> pipeline (Ray Data: read, decode, prepare, chunk, handle) -> commit
`reprocess.py` is the job that `ray job submit` runs; `jobs/` submits it and follows its log.
"""

from resight import require_own_packages

require_own_packages()
