"""The comparison of conversions finds the other side's best at equal cost."""

from benchmarks.conversion import Point, averaged, best, table

POINTS = [Point("a", 0.5, 10, 3e-6), Point("b", 0.9, 20, 2e-6), Point("c", 0.9, 15, 4e-6)]


def test_the_best_costs_no_more_and_is_the_cheapest_of_the_most_accurate() -> None:
    assert best(POINTS, 20, "synops") == "90.00 % (c)"
    assert best(POINTS, 2e-6, "joules") == "90.00 % (b)"
    assert best(POINTS, 9, "synops") == "-"
    assert table([Point("x", 0.25, 1000, 1e-6)], POINTS) == ["| x | 25.00 % | 1,000 | 1 µJ | 90.00 % (c) | - |"]


def test_seeds_are_averaged_point_by_point() -> None:
    (mean,) = averaged([[Point("a", 0.5, 10, 1.0)], [Point("a", 0.7, 30, 3.0)]])
    assert (mean.name, mean.synops, mean.joules) == ("a", 20, 2.0)
    assert abs(mean.accuracy - 0.6) < 1e-12
