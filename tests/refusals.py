"""Hold a refusal by its slug and place, so that its words may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stl_deploy.errors import StlDeployError


@contextmanager
def refuses(slug: str, **about: Any) -> Iterator[None]:
    """Require a refusal inside, as in ``with refuses("no-such-file", where="net.nir"):``."""
    with pytest.raises(StlDeployError) as caught:
        yield
    found = {name: getattr(caught.value, name) for name in ("slug", *about)}
    assert found == {"slug": slug, **about}, str(caught.value)
