"""Values of files held to their annotations."""

from typing import Any, TypeVar

import numpy as np
from typing_extensions import TypeAliasType

from stl_deploy._util.json_twin import expected, fits

T = TypeVar("T")
ALIAS: Any = TypeAliasType("ALIAS", np.ndarray[tuple[Any, ...], np.dtype[T]], type_params=(T,))  # type: ignore[valid-type]
"""As NumPy 2.5 has NDArray on Python 3.12 and later."""


def test_an_alias_is_what_it_names() -> None:
    hint = ALIAS[np.float32]
    assert fits(np.zeros(2, np.float32), hint)
    assert not fits(np.zeros(2, np.int32), hint)
    assert not fits([0.0, 0.0], hint)
    assert fits(None, hint | None)
    assert expected(hint | None) == "an array or null"
