"""A shop's customers, as they change: what the brief histories are of."""

from headwater import Connection, Connector, Permissions, Stream, Webhooks

connector = Connector(
    key="shop",
    name="Shop",
    version="0.1.0",
    connection=Connection(
        settings={
            "type": "object",
            "properties": {
                "api_key": {"type": "string", "x-secret": True},
                "webhook_secret": {"type": "string", "x-secret": True},
            },
            "required": ["api_key", "webhook_secret"],
        },
    ),
    permissions=Permissions(http=["https://shop.test/*"]),
    webhooks=Webhooks(endpoint="/webhooks/shop", auth="stripe_signature"),
    streams=[Stream("customers", mode="poll", schedule="* * * * *")],
)
