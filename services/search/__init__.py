"""Own the shared index over profiles and tickets: the only writer and reader of it.

RPCs: Search, RebuildIndex · events out: none · events in: profiles.ProfileChanged, tickets.TicketChanged
"""
