"""The rules of marketing: segments, campaigns, planning, deliveries, messages. Values and pure functions only."""
