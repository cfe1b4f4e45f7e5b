"""The file formats: exact values, safe cells, and what a crash leaves behind."""

import asyncio
import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import UsageError
from headwater.intention import TypeColumn
from headwater.jsonvalue import canonical_bytes
from headwater.sink import Change
from headwater.sinks.csv import cell
from headwater.sinks.format import file_sink, format_of

AT = datetime(2026, 3, 10, 12, 0, 0, 5, tzinfo=UTC)
REQUEST = {"what": "records"}
COLUMNS = [
    TypeColumn(name="id", kind="text"),
    TypeColumn(name="amount", kind="decimal"),
    TypeColumn(name="count", kind="integer"),
    TypeColumn(name="live", kind="boolean"),
    TypeColumn(name="address", kind="json"),
]
LONG = 12345678901234567890123456789


def make_change(sequence=1, *, op="upsert", data=None, **overrides):
    values = {
        "sequence": sequence,
        "op": op,
        "origin": "poll",
        "connection": "acme",
        "connector": "stripe",
        "stream": "customers",
        "type": "customer",
        "id": f"cus_{sequence}",
        "version": 1,
        "hash": "00",
        "as_of": AT,
        "observed_at": AT,
        "connector_version": "0.1.0",
        "run_id": 1,
        "page": 1,
        "delivery_id": None,
        "data": msgspec.Raw(canonical_bytes(data or {"id": f"cus_{sequence}"})) if op == "upsert" else None,
    }
    return Change(**(values | overrides))


def write(sink, *batches, finish=True):
    """Open, write the batches at positions "1", "2" …, and finish; what `open` told."""

    async def main():
        position = await sink.open()
        try:
            for number, batch in enumerate(batches, start=int(position or 0) + 1):
                await sink.write(batch, position=str(number))
            if finish:
                await sink.finish()
        finally:
            await sink.close()
        return position

    return asyncio.run(main())


def make_sink(path, **overrides):
    values = {"format": format_of(path), "request": REQUEST, "columns": None, "continues": False}
    return file_sink(path, **(values | overrides))


def test_jsonl_embeds_the_payload_byte_for_byte(tmp_path):
    path = tmp_path / "out.jsonl"
    write(make_sink(path), [make_change(data={"amount": Decimal("0.10"), "big": LONG}), make_change(2, op="delete")])
    first, second = path.read_bytes().splitlines()
    assert b'"data":{"amount":"0.10","big":12345678901234567890123456789}' in first
    assert msgspec.json.decode(second)["data"] is None
    assert msgspec.json.decode(second)["op"] == "delete"


def test_csv_has_the_fields_of_the_type_with_every_digit(tmp_path):
    path = tmp_path / "out.csv"
    data = {"id": "a,b", "amount": Decimal("-0.1000"), "count": LONG, "live": True, "address": {"city": "Köln"}}
    write(make_sink(path, columns=COLUMNS), [make_change(data=data), make_change(2, op="delete")])
    head, row, tombstone = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
    assert head[:2] == ["_sequence", "_op"]
    found = dict(zip(head, row, strict=True))
    assert (found["id"], found["amount"], found["count"]) == ("a,b", "-0.1000", str(LONG))
    assert (found["live"], found["address"], found["_as_of"]) == (
        "true",
        '{"city":"Köln"}',
        "2026-03-10T12:00:00.000005Z",
    )
    assert tombstone[1] == "delete"
    assert tombstone[-5:] == [""] * 5


def test_csv_without_columns_holds_the_payload_as_json(tmp_path):
    path = tmp_path / "out.csv"
    write(make_sink(path), [make_change(data={"id": "x", "n": 1})])
    head, row = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
    assert (head[-1], row[-1]) == ("data", '{"id":"x","n":1}')


def test_an_empty_csv_still_names_its_columns(tmp_path):
    path = tmp_path / "out.csv"
    write(make_sink(path, columns=COLUMNS))
    assert path.read_bytes().count(b"\r\n") == 1


@pytest.mark.parametrize("text", ["=1+1", "+49 30", "-5", "@SUM(A1)", "\t=1", "  =1", "\r=1", "\n=1"])
def test_no_cell_is_a_formula(text):
    (read,) = next(csv.reader(io.StringIO(cell(text), newline="")))
    assert read == f"'{text}"


def test_an_empty_text_differs_from_nothing():
    assert cell("") == '""'


@given(st.text())
def test_a_cell_reads_back_as_its_text(text):
    (read,) = next(csv.reader(io.StringIO(cell(text) + "\r\n", newline="")))
    assert read in (text, f"'{text}")


def test_parquet_takes_the_narrowest_exact_type(tmp_path):
    path = tmp_path / "out.parquet"
    rows = [
        {"id": "a", "amount": Decimal("0.10"), "count": 1, "live": True},
        {"id": "b", "amount": Decimal("99999999999999999999999.999"), "count": -(2**63) + 1, "live": False},
        {"id": "c", "address": {"city": "Köln"}},
    ]
    write(make_sink(path, columns=COLUMNS), *[[make_change(n, data=row)] for n, row in enumerate(rows, 1)])
    table = pyarrow.parquet.read_table(path)
    assert table.schema.field("amount").type == pyarrow.decimal128(38, 3)
    assert table.column("amount").to_pylist() == [Decimal("0.1"), Decimal("99999999999999999999999.999"), None]
    assert table.schema.field("count").type == pyarrow.int64()
    assert table.column("live").to_pylist() == [True, False, None]
    assert table.column("address").to_pylist() == [None, None, '{"city":"Köln"}']
    assert table.column("_as_of").to_pylist() == [AT] * 3
    assert not (tmp_path / "out.parquet.parts").exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63, pyarrow.decimal128(38, 0)),
        (10**37, pyarrow.decimal128(38, 0)),
        (10**40, pyarrow.decimal256(76, 0)),
        (10**80, pyarrow.string()),
    ],
)
def test_a_large_integer_keeps_its_digits_in_parquet(tmp_path, value, expected):
    path = tmp_path / "out.parquet"
    write(make_sink(path, columns=COLUMNS), [make_change(data={"count": 7})], [make_change(2, data={"count": value})])
    table = pyarrow.parquet.read_table(path)
    assert table.schema.field("count").type == expected
    assert [int(found) for found in table.column("count").to_pylist()] == [7, value]


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_survives_parquet_whatever_its_size(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("export") / "out.parquet"
    write(make_sink(path, columns=COLUMNS), [make_change(data={"amount": value})])
    (found,) = pyarrow.parquet.read_table(path).column("amount").to_pylist()
    assert Decimal(found) == value


def test_a_value_of_another_type_makes_its_column_text(tmp_path):
    path = tmp_path / "out.parquet"
    write(make_sink(path, columns=COLUMNS), [make_change(data={"live": "perhaps", "amount": "n/a"})])
    table = pyarrow.parquet.read_table(path)
    assert (table.column("live").to_pylist(), table.column("amount").to_pylist()) == (["perhaps"], ["n/a"])


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_an_export_that_was_cut_off_goes_on_without_loss_or_repetition(tmp_path, name):
    path, whole = tmp_path / name, tmp_path / f"whole-{name}"
    batches = [[make_change(1)], [make_change(2), make_change(3)], [make_change(4)]]
    assert write(make_sink(path), batches[0], finish=False) is None
    assert not path.exists()
    assert write(make_sink(path), batches[1], finish=False) == "1"
    tear(path)
    assert write(make_sink(path), batches[2]) == "2"
    write(make_sink(whole), *batches)
    assert contents(path) == contents(whole)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, whole.name])


def tear(path):
    """What a crash within a write leaves: bytes, or a part, that no note speaks of."""
    parts = path.with_name(path.name + ".parts")
    if parts.exists():
        (parts / "part-000002.parquet").write_bytes(b"torn")
        return
    with path.with_name(path.name + ".partial").open("ab") as file:
        file.write(b'{"sequence":99,"op"')


def contents(path):
    return pyarrow.parquet.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()


def test_a_finished_file_is_gone_on_with_where_that_is_wanted(tmp_path):
    path = tmp_path / "feed.jsonl"
    assert write(make_sink(path, continues=True), [make_change(1)]) is None
    assert write(make_sink(path, continues=True), [make_change(2)]) == "1"
    assert [msgspec.json.decode(line)["sequence"] for line in path.read_bytes().splitlines()] == [1, 2]


def test_a_finished_snapshot_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.jsonl"
    write(make_sink(path), [make_change(1)])
    write(make_sink(path), [make_change(2)], finish=False)
    assert b'"sequence":1,' in path.read_bytes()
    write(make_sink(path))
    assert path.read_bytes().count(b"\n") == 1
    assert b'"sequence":2,' in path.read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_another_request_does_not_go_on_with_a_file(tmp_path, name):
    path = tmp_path / name
    write(make_sink(path), [make_change(1)], finish=False)
    with pytest.raises(UsageError, match="was begun by another export"):
        write(make_sink(path, request={"what": "changes"}), [make_change(2)])


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_two_exports_do_not_write_one_file(tmp_path, name):
    async def main():
        first, second = make_sink(tmp_path / name), make_sink(tmp_path / name)
        await first.open()
        try:
            with pytest.raises(UsageError, match="Another export writes"):
                await second.open()
        finally:
            await second.close()
            await first.close()

    asyncio.run(main())


def test_a_file_that_no_export_wrote_is_left_alone(tmp_path):
    path = tmp_path / "feed.csv"
    path.write_text("precious")
    with pytest.raises(UsageError, match="no export wrote it"):
        write(make_sink(path, continues=True), [make_change(1)])
    assert path.read_text() == "precious"


def test_a_file_that_lost_bytes_is_told(tmp_path):
    path = tmp_path / "out.jsonl"
    write(make_sink(path), [make_change(1)], finish=False)
    (tmp_path / "out.jsonl.partial").write_bytes(b"")
    with pytest.raises(UsageError, match="shorter than its note says"):
        write(make_sink(path), [make_change(2)])


def test_an_unknown_format_names_the_near_miss(tmp_path):
    with pytest.raises(UsageError, match="Did you mean `parquet`"):
        make_sink(tmp_path / "out.csv", format="parket")
    with pytest.raises(UsageError, match="does not name its format"):
        format_of(tmp_path / "out.xlsx")
