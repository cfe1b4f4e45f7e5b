"""The connector of the measurements: a provider's customers as they are, for comparison with peers that map nothing."""

from headwater import Connection, Connector, Permissions, Stream

connector = Connector(
    key="neutral",
    name="Neutral",
    version="0.1.0",
    connection=Connection(
        settings={"type": "object", "properties": {"port": {"type": "integer"}}, "required": ["port"]}
    ),
    permissions=Permissions(http=["http://127.0.0.1:*/*"], private=True),
    streams=[Stream("customers", mode="poll", schedule="0 0 1 1 *", page_records=100)],
)
