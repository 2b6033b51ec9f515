"""Worked out once for each object, and let go with it."""

import gc

from stl_deploy._util.remembered import remembered


class Thing:
    """Equal to itself alone."""


def test_each_object_is_asked_once_and_is_not_kept_alive() -> None:
    asked: list[int] = []

    @remembered
    def name(thing: Thing) -> int:
        asked.append(id(thing))
        return len(asked)

    first, second = Thing(), Thing()
    assert [name(first), name(second), name(first)] == [1, 2, 1]
    del first
    gc.collect()
    assert name(Thing()) == 3
