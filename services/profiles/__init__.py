"""Customer master data: sources, intake, golden records with lineage, the steward's queue, the data dictionary.

Owns: source records, golden records, data keys, set-apart rows, match candidates, sources, field definitions,
relationships.
RPCs: proto/kehu/profiles/v1/profiles.proto.
Calls: consent.BatchDecide, as the caller and for the caller's purpose.
Events out: ProfileChanged, ProfilesMerged. Events in: none.
"""
