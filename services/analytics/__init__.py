"""Analytics: the lake of interactions, and the engine of audiences, scores and metrics over it.

Owns: the Delta tables under the lake directory (no direct identifier in any), the inbox that feeds
them, the metric registry.
RPCs: BatchCreateInteractions, ImportInteractions, ListInteractions, GetScores,
ComputeScores, ListMetrics, QueryMetric, EvaluateAudience.
Events out: ScoresComputed.
Events in: profiles.ProfileChanged, profiles.ProfilesMerged, consent.ConsentChanged, marketing.DeliveryRecorded.
"""
