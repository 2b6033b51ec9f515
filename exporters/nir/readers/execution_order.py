"""Model the order in which readers run a graph's nodes, and so the edges that carry the previous step.

Both ways are those of nirtorch 2.6, found by reading and running it; the conformance run proves them again. Each takes
the nodes, the edges in the file's order and the input, and gives the late edges and the node whose value is taken for
the network's output (None: that of its Output, as it should be).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from stl_deploy.graph.segments import grouped, strongly_connected

Edge = tuple[str, str]


def traced(names: Sequence[str], edges: Sequence[Edge], start: str) -> tuple[set[Edge], str | None]:
    """`nirtorch.load` (Norse, Sinabs): a depth-first walk in the order of the edges.

    A node runs when the walk meets it, whether or not all that it reads from has run; the last is the output.
    """
    after = grouped(edges)
    place = {start: 0}
    work = [iter(after.get(start, ()))]
    while work:
        for name in work[-1]:
            if name not in place:
                place[name] = len(place)
                work.append(iter(after.get(name, ())))
                break
        else:
            work.pop()
    last = len(names)
    late = {(source, target) for source, target in edges if place.get(source, last) >= place.get(target, last)}
    return late, list(place)[-1]


def queued(names: Sequence[str], edges: Sequence[Edge], start: str) -> tuple[set[Edge], str | None]:
    """`nirtorch.nir_to_torch` (snnTorch, SpikingJelly): a queue in the order of the names, as files are read.

    A node is put back while something that it reads from is missing; but what comes to it through a loop is not waited
    for if it reads anything else.
    """
    before, loop = grouped((target, source) for source, target in edges), loops(names, edges)
    queue = deque(sorted((name for name in names if name != start), key=str.encode))
    done, late, put_back = {start}, set[Edge](), 0
    while queue and loop and put_back < len(queue):
        name = queue.popleft()
        missing = [source for source in before.get(name, ()) if source not in done]
        if missing and (len(before[name]) == 1 or any(loop.get(source) != loop.get(name, -1) for source in missing)):
            queue.append(name)
            put_back += 1
        else:
            done.add(name)
            late |= {(source, name) for source in missing}
            put_back = 0
    return late, None


def loops(names: Sequence[str], edges: Sequence[Edge]) -> Mapping[str, int]:
    """Return, for each node in a loop, a number that the nodes of that loop share."""
    groups = strongly_connected(names, grouped(edges))
    return {
        name: number
        for number, group in enumerate(groups)
        if len(group) > 1 or (group[0], group[0]) in edges
        for name in group
    }
