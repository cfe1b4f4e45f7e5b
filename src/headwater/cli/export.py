"""`headwater export`: records or the change feed into a file, taken up again where it was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform


@click.command("export")
@platform_options
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "format_", help="jsonl, csv or parquet (default: by the file's name).")
@click.option("--connection", help="Connection key.")
@click.option("--type", "type_", help="One canonical type: CSV and Parquet then have its fields as columns.")
@click.option("--with-deleted", is_flag=True, help="Tombstones, too.")
@click.option("--changes", "as_changes", is_flag=True, help="The change feed instead of current records.")
@click.option("--after", type=click.IntRange(0), default=0, help="With --changes: after this position.")
@click.option("--continue", "continues", is_flag=True, help="With --changes: go on with a finished file.")
def export(
    options: Options,
    path: Path,
    format_: str | None,
    connection: str | None,
    type_: str | None,
    with_deleted: bool,
    as_changes: bool,
    after: int,
    continues: bool,
) -> None:
    """Write everything that was ingested to PATH.

    Cut off and given again, the same command goes on without loss or repetition.
    """

    async def act(platform: Platform) -> None:
        from headwater.export import export_changes, export_records

        stored = await platform.find_connection(connection) if connection else None
        chosen = {"connection": stored.key if stored else None, "type": type_}
        request = {"what": "changes" if as_changes else "records", "with_deleted": str(with_deleted)}
        request |= {"after": str(after)} if as_changes else {}
        request |= {name: value for name, value in chosen.items() if value is not None}
        sink = platform.file_sink(path, format=format_, request=request, type=type_, continues=continues)
        with output.progress(f"exporting to {path}") as shown:

            def report(rows: int) -> None:
                shown.update(rows, None, f"{rows} rows")

            try:
                if as_changes:
                    done = await export_changes(platform.store, sink, after=after, report=report, **chosen)
                else:
                    done = await export_records(
                        platform.store, sink, with_deleted=with_deleted, report=report, **chosen
                    )
            finally:
                await sink.close()
        if options.json:
            output.print_json({"path": str(path), "export": done})
        else:
            output.say(f"{done.rows} rows in {path}; the change feed goes on after {done.position}.")

    with_platform(options, act, projects=type_ is not None)
