"""A schedule of faults is a function of its seed, and fits into its time."""

from itertools import pairwise

from benchmarks.endurance.schedule import LOCAL, REMOTE, schedule


def test_a_schedule_depends_only_on_its_arguments():
    assert schedule(7, 600.0, "s3") == schedule(7, 600.0, "s3")
    assert schedule(7, 600.0, "s3") != schedule(8, 600.0, "s3")


def test_a_schedule_is_not_changed_by_a_new_version_of_this_module():
    """The books of a failure name its seed: it must repeat the same faults later."""
    first = schedule(1, 600.0, "local")[:2]
    assert [(fault.at_s, fault.kind) for fault in first] == [(11.05, "kill"), (14.71, "kill")]


def test_all_kinds_occur_and_end_in_time():
    for store, kinds in (("local", LOCAL), ("s3", REMOTE)):
        faults = schedule(3, 600.0, store)
        assert {fault.kind for fault in faults} == {"kill", *kinds}
        assert all(fault.at_s + fault.seconds < 600.0 for fault in faults)
        assert list(faults) == sorted(faults, key=lambda fault: fault.at_s)


def test_faults_other_than_kills_do_not_overlap():
    others = [fault for fault in schedule(3, 600.0, "s3") if fault.kind != "kill"]
    assert all(a.at_s + a.seconds < b.at_s for a, b in pairwise(others))
