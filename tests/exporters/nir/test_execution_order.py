"""How the readers run a graph, on graphs small enough to follow by hand. That they do so is for the conformance run."""

import pytest

from stl_deploy.exporters.nir.readers.reading_rules import loops, queued, traced

CASES = {
    "chain": ("ia ab bo", set(), set()),
    # The walk goes i a c o, then b, whose value c has already missed.
    "two ways": ("ia ab ac bc co", set(), set()),
    "two ways, the short one first": ("ia ac ab bc co", {"bc"}, set()),
    "two branches": ("ia ab ac bd cd do", {"cd"}, set()),
    "self": ("ia aa ao", {"aa"}, {"aa"}),
    "loop": ("ia ab ba ao", {"ba"}, {"ba"}),
    # The walk goes i a d b o. The queue comes to b first, which does not wait for d, as it reads i too.
    "loop entered twice": ("ia ad db do ib bd", {"bd"}, {"db"}),
    # The walk goes i b d o a.
    "loop entered twice, other order": ("ib bd db do ia ad", {"ad", "db"}, {"db"}),
}


@pytest.mark.parametrize("case", CASES)
def test_late_edges(case):
    text, late_traced, late_queued = CASES[case]
    edges = [tuple(edge) for edge in text.split()]
    names = sorted({name for edge in edges for name in edge})
    assert {"".join(edge) for edge in traced(names, edges, "i")[0]} == late_traced
    assert {"".join(edge) for edge in queued(names, edges, "i")[0]} == late_queued


def test_a_walk_ends_where_it_ends():
    assert traced("iabo", [("i", "a"), ("a", "b"), ("a", "o")], "i")[1] == "o"
    assert traced("iabo", [("i", "a"), ("a", "o"), ("a", "b")], "i")[1] == "b"


def test_loops_are_told_apart():
    found = loops("abcde", [tuple(edge) for edge in ("ab", "ba", "bc", "cc", "cd", "de")])
    assert set(found) == {"a", "b", "c"}
    assert found["a"] == found["b"] != found["c"]
