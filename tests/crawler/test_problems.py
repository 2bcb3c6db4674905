"""What is made of a call that was cut off, though nobody here has given it up."""

import grpc
import grpc.aio
from crawler.problems import from_rpc


def test_a_call_that_was_cancelled_on_its_way_may_be_sent_to_another() -> None:
    nothing = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing, "CANCELLED", "")
    problem = from_rpc(error, "master-2")
    assert problem.is_elsewhere
    assert not problem.is_untouched
    assert problem.http_status == 503
