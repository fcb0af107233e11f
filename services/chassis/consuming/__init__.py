"""Receive other services' facts: decode, retry with back-off, park what cannot be handled; nothing is lost.

`contract` is what a service's events.py needs; `topology` the queues, `publishing` the confirms;
`delivery` the fate of one event; `worker` runs it all on nameko; `deadletters` is the operator's side.
"""

from services.chassis.consuming.contract import Event, on_event

__all__ = ["Event", "on_event"]
