"""The instants of columns as `inbox` asks for them; the mapping of rows to values is in `stores/row.py`."""

from headwater.stores.row import micros

__all__ = ["micros"]
