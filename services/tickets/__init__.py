"""Own tickets, their comments and the SLA policies that time them.

RPCs: tickets CRUD, :assign :respond :pause :resume :resolve :reopen, comments, SLA policies CRUD;
ListTicketStates for search · events out: TicketChanged · events in: profiles.ProfilesMerged
"""
