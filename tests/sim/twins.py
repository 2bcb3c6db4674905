"""What the twins of the model's switches have in common; see `model/README.md` for the rules.

The twin of a switch is the schedule that breaks the model with the rule off. With the rule on the
code passes, with the rule off (a patch of the one place that holds it) the judge goes red: so the
schedule tests the rule, and the judge can see it broken.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.history import JudgementError

Patch = pytest.MonkeyPatch
GONE = "and the key is gone"
STUCK = "nobody led in"


@contextmanager
def judged(rule: str, match: str) -> Iterator[None]:
    """Expect green with the rule on, and this from the judge with the rule off."""
    if rule == "on":
        yield
        return
    with pytest.raises(JudgementError, match=match):
        yield


def both(test: Callable[..., None]) -> Callable[..., None]:
    marked: Callable[..., None] = pytest.mark.parametrize("rule", ["on", "off"])(test)
    return marked
