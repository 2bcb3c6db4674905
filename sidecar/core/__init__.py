"""Who leads, and who may act: pure values and decisions.

No I/O, no asyncio, no clock, no logging, no randomness: time comes in as an argument. The
reading order is `lease` (until when), `queue` (who stands), `candidacy` (who may act, and
when), then `keys`, `codec`, `transactions` (what is written where), `handover`, `state`.
"""
