"""The forwarder: TCP to whoever leads, for clients that know nothing of elections.

The story, in the order in which a connection meets it:

* `rules`: what was asked for: a port to listen on, a port at the leader;
* `listener`: a client is accepted, or there is no room for it;
* `routes`: who leads now, by the clock and not by a flag, and where that is; when a term is over;
* `caller`: the client waits until the leader is reached, without losing a byte;
* `proxy_protocol`: if asked for, the leader is told who the client is;
* `relay`: the kernel moves the bytes (`splice`, through `pipes`), woken by `poller`;
* `forwarder`: all of that together, and what a step-down means for it.

It follows the feed of `ElectionState` as every output does, and delays no step-down.
"""
