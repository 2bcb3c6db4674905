"""The plan: everything with the living, in fair shares, by the least moves."""

from collections import Counter

from crawler.assignment import Move, Repair, plan, repairs
from hypothesis import given
from hypothesis import strategies as st

NAMES = [f"r{number}" for number in range(12)]
WORKERS = [f"w{number}" for number in range(5)]

placements = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", *WORKERS]))
crews = st.sets(st.sampled_from(WORKERS), min_size=1)


def after(placement: dict[str, str], moves: tuple[Move, ...]) -> dict[str, str]:
    return {**placement, **{move.resource: move.target for move in moves}}


@given(placements, crews)
def test_afterwards_living_workers_have_everything_in_fair_shares(
    placement: dict[str, str], workers: set[str]
) -> None:
    result = after(placement, plan(placement, workers))
    assert result.keys() == placement.keys()
    assert set(result.values()) <= workers
    loads = [Counter(result.values())[worker] for worker in workers]
    assert max(loads) - min(loads) <= 1


@given(placements, crews)
def test_no_fewer_moves_would_do(placement: dict[str, str], workers: set[str]) -> None:
    loads = sorted((Counter(placement.values())[worker] for worker in workers), reverse=True)
    least, remainder = divmod(len(placement), len(workers))
    shares = [least + (place < remainder) for place in range(len(workers))]
    kept = sum(min(load, share) for load, share in zip(loads, shares, strict=True))
    assert len(plan(placement, workers)) == len(placement) - kept


@given(placements, crews)
def test_moves_say_where_from_and_each_resource_moves_once(
    placement: dict[str, str], workers: set[str]
) -> None:
    moves = plan(placement, workers)
    assert all(placement[move.resource] == move.source != move.target for move in moves)
    assert len({move.resource for move in moves}) == len(moves)


@given(placements, crews, st.integers(min_value=0))
def test_a_plan_carried_out_in_part_is_finished_by_the_next(
    placement: dict[str, str], workers: set[str], done: int
) -> None:
    moves = plan(placement, workers)
    done = min(done, len(moves))
    half = after(placement, moves[:done])
    rest = plan(half, workers)
    assert len(rest) == len(moves) - done
    assert plan(after(half, rest), workers) == ()


def test_a_new_worker_takes_its_share_and_nobody_else_anything() -> None:
    placement = {name: WORKERS[place % 2] for place, name in enumerate(NAMES)}
    moves = plan(placement, WORKERS[:3])
    assert len(moves) == 4
    assert {move.target for move in moves} == {WORKERS[2]}


def test_with_nobody_alive_everything_stays() -> None:
    assert plan({"r1": "w1", "r2": ""}, ()) == ()


@given(placements, st.sets(st.tuples(st.sampled_from(WORKERS), st.sampled_from(NAMES))))
def test_repairs_make_the_assignments_what_the_resources_say(
    placement: dict[str, str], assignments: set[tuple[str, str]]
) -> None:
    found = set(assignments)
    for repair in repairs(placement, assignments):
        pair = (repair.worker, repair.resource)
        if repair.is_missing:
            assert pair not in found
            found.add(pair)
        else:
            found.remove(pair)
    assert found == {(worker, name) for name, worker in placement.items() if worker}


def test_a_repair_names_the_worker_of_the_key() -> None:
    assert repairs({"r": "w1"}, [("w2", "r")]) == (
        Repair("r", "w1", is_missing=True),
        Repair("r", "w2", is_missing=False),
    )
