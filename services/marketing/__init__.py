"""Marketing: who is addressed with what, within which limits, and what became of every recipient.

Owns: segments, campaigns, runs, deliveries, suppressions; no name and no address is kept.
RPCs: MarketingService (segments, campaigns, run/pause/resume/cancel, report, deliveries, suppressions, Unsubscribe).
Calls: analytics.EvaluateAudience, consent.BatchDecide, consent.RevokeConsent, profiles.BatchGetContacts.
Events out: DeliveryRecorded, CampaignChanged. Events in: profiles.ProfilesMerged.
"""
