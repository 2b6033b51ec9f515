"""What links lead to: each item once, nearest first, on random graphs with loops."""

from hypothesis import given
from hypothesis import strategies as st

from stl_deploy._util.reachable import reachable

LINKS = st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=12, max_size=12)


@given(LINKS, st.lists(st.integers(0, 11), max_size=3))
def test_every_item_comes_once_and_nearest_first(links: list[list[int]], starts: list[int]) -> None:
    distance = {start: 0 for start in starts}
    for steps in range(1, 12):
        here = [item for item, far in distance.items() if far == steps - 1]
        distance |= {other: steps for item in here for other in links[item] if other not in distance}
    found = list(reachable(starts, lambda item: links[item]))
    assert sorted(found) == sorted(distance)
    assert [distance[item] for item in found] == sorted(distance.values())


def test_paths_that_meet_again_are_walked_once_and_no_further_than_needed() -> None:
    asked: list[int] = []

    def two_ways(item: int) -> list[int]:
        asked.append(item)
        return [item + 1, item + 1, item + 2]

    assert 40 in reachable([0], two_ways)
    assert asked == list(range(len(asked)))
    assert len(asked) <= 41
