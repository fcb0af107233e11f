"""Own subscriptions of apps to events, and the deliveries: the one process that calls addresses of others' choosing.

RPCs: ListWebhookEventTypes, Create/Get/List/Update/Delete/Activate/PauseWebhookSubscription, RenewWebhookSecret,
ListWebhookDeliveries, ReplayWebhookDeliveries · events out: WebhookSubscriptionDisabled · events in: every event whose
proto says `subscribable` (profiles, tickets, marketing, consent), profiles.ProfileErased
"""
