"""Resolve many records at once, in columns and compiled code, by the model that decides single writes."""
