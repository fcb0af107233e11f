"""Customer master data: sources, intake, golden records with lineage, the steward's queue, the data dictionary.

Owns: source records, golden records, data keys, set-apart rows, match candidates, sources, field definitions.
RPCs: proto/kehu/profiles/v1/profiles.proto.
Events out: ProfileChanged, ProfilesMerged. Events in: none.
"""
