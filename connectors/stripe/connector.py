"""Stripe: customers, what they are sold, what they owe and pay, and the money that moves."""

from headwater import Connection, Connector, Permissions, Stream, Webhooks

EVERY_QUARTER_HOUR = "*/15 * * * *"

connector = Connector(
    key="stripe",
    name="Stripe",
    version="0.1.0",
    description="Customers, catalogue, billing, payments and balance of a Stripe account.",
    connection=Connection(
        settings={
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "api_key": {
                    "type": "string",
                    "title": "API key",
                    "description": "A restricted key with read access to the resources below is enough.",
                    "pattern": "^[sr]k_[A-Za-z0-9_]+$",
                    "x-secret": True,
                },
                "webhook_secret": {
                    "type": "string",
                    "title": "Signing secret of the webhook endpoint",
                    "pattern": "^whsec_.+$",
                    "x-secret": True,
                },
                "api_base": {
                    "type": "string",
                    "title": "API address",
                    "description": "Another address than Stripe's own, such as that of a fake on this machine.",
                    "pattern": "^https?://[^/?#*@]+$",
                    "default": "https://api.stripe.com",
                },
            },
            "required": ["api_key"],
            "additionalProperties": False,
        },
        test="setup/test_connection",
        instructions=(
            "Create a webhook endpoint in Stripe for the URL shown here, with all events and the API version "
            "2025-03-31.basil, then paste its signing secret. Polling works without one."
        ),
    ),
    permissions=Permissions(http=["https://api.stripe.com/*", "{settings.api_base}/*"]),
    webhooks=Webhooks(endpoint="/webhooks/stripe", auth="stripe_signature"),
    streams=[
        Stream("events", mode="webhook", description="Events that belong to none of the other streams."),
        Stream("customers", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Who buys."),
        Stream("products", mode="poll", schedule=EVERY_QUARTER_HOUR, description="What is sold."),
        Stream("prices", mode="poll", schedule=EVERY_QUARTER_HOUR, description="What the products cost."),
        Stream("subscriptions", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Standing orders."),
        Stream("invoices", mode="poll", schedule=EVERY_QUARTER_HOUR, description="What customers owe."),
        Stream("charges", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Payments, and attempts to pay."),
        Stream("refunds", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Payments given back."),
        Stream("disputes", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Payments that a bank questions."),
        Stream("credit_notes", mode="poll", schedule=EVERY_QUARTER_HOUR, description="What lessens an invoice."),
        Stream("payouts", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Money sent to the bank."),
        Stream("balance_transactions", mode="poll", schedule=EVERY_QUARTER_HOUR, description="Moves of the balance."),
    ],
)
