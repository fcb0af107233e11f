"""The rules of webhooks: which targets, how signed, when tried again, what may be subscribed to. No I/O."""
