"""Consent: why personal information is used, what people were told and answered, and whether a use is allowed.

Owns: purposes, notices, consent records (one document per profile holds its records, appended only).
RPCs: ConsentService (Create/Get/List/UpdatePurpose, Create/Get/List/PublishNotice, RecordConsent,
BatchRecordConsents, ListConsents, RevokeConsent, Decide, BatchDecide).
Events out: ConsentChanged. Events in: profiles.ProfilesMerged.
"""
