"""What a load has seen, and what is told of it."""

import numpy as np

from benchmarks.records import Records


def test_samples_are_told_as_they_were_due_and_of_answers_alone():
    due = np.array([3.0, 1.0, 2.0, 0.0])
    done = due + np.array([0.0301, 0.0102, 0.5, 0.02049])
    status = np.array([200, 200, 503, 200])
    empty = np.zeros(4, np.int64)
    records = Records(due, due, done, status, np.array([""] * 4), empty, empty)
    assert records.samples_ms == [20.5, 10.2, 30.1]
