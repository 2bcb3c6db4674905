"""What the pages tell people to write down is taken as it stands there."""

import re
from pathlib import Path

from tests.chart.schemas import problems
from tests.support.helm import one, pod_of, render

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_values_for_a_program_of_ones_own_are_taken() -> None:
    (values,) = BLOCK.findall((DOCS / "helm.md").read_text())
    objects = render(values=values)
    pod = pod_of(one(objects, "Deployment"))
    assert pod is not None
    (program,) = pod["containers"]
    assert program["image"] == "REGISTRY/shop:1.4"
    assert "CRAWLER" not in str(program)
    assert [problem for thing in objects for problem in problems(thing, "1.34")] == []
