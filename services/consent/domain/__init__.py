"""The rules of consent: registry, records, decision, merge. Values and pure functions only."""
