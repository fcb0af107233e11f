"""Tickets, comments, SLA policies and merged profiles: one Protocol, kept in MongoDB or in memory.

port: the Protocol · facts: what a write publishes · documents, mongo: MongoDB · memory: for tests.
"""

from services.tickets.store.facts import Facts
from services.tickets.store.port import Comment, TicketFilter, TicketsStore

__all__ = ["Comment", "Facts", "TicketFilter", "TicketsStore"]
