"""Webhooks: endpoints with an address and a way to tell who sends, and what comes in at them."""
