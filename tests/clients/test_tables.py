"""duckdb, pyarrow and deltalake: tables in a bucket, as files of Parquet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.clients.libraries import PyArrow
from tests.clients.port import FROM_PYPI, Endpoint
from tests.support.client import Client

WRITERS = 4


@pytest.fixture
def duckdb(endpoint: Endpoint) -> Any:
    for package in ("duckdb", "duckdb_extension_httpfs"):
        reason = f"the package {package} is not installed: {FROM_PYPI}"
        module = pytest.importorskip(package, reason=reason)
    import duckdb

    # Where it is not told, it looks for the extension on a host of its own.
    (extension,) = Path(module.__path__[0]).rglob("httpfs.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    connection.execute(
        "CREATE SECRET (TYPE s3, PROVIDER config, URL_STYLE 'path', USE_SSL false, "
        f"KEY_ID '{endpoint.access_key}', SECRET '{endpoint.secret_key}', "
        f"ENDPOINT '{endpoint.host}', REGION '{endpoint.region}')"
    )
    yield connection
    connection.close()


@pytest.mark.parametrize("name", ["duckdb"])
def test_tables(name: str, duckdb: Any, bucket: str) -> None:
    duckdb.execute(
        "CREATE TABLE sales AS SELECT i AS id, 2020 + i % 3 AS year, "
        "'m ' || (i % 4) AS month, sha256(i::VARCHAR) AS word FROM range(30_000) AS r(i)"
    )
    whole = "SELECT count(*), sum(id), sum(year), min(month), max(word) FROM {}"
    expected = duckdb.execute(whole.format("sales")).fetchone()
    duckdb.execute(f"COPY sales TO 's3://{bucket}/whole.parquet' (FORMAT parquet)")
    assert duckdb.execute(whole.format(f"'s3://{bucket}/whole.parquet'")).fetchone() == expected

    duckdb.execute(
        f"COPY sales TO 's3://{bucket}/parts' (FORMAT parquet, PARTITION_BY (year, month))"
    )
    files = duckdb.execute(f"SELECT file FROM glob('s3://{bucket}/parts/*/*/*.parquet')").fetchall()
    assert len(files) >= 12
    parts = f"read_parquet('s3://{bucket}/parts/**/*.parquet', hive_partitioning = true)"
    assert duckdb.execute(whole.format(parts)).fetchone() == expected
    one = f"SELECT count(*) FROM {parts} WHERE year = 2021 AND month = 'm 3'"
    assert duckdb.execute(one).fetchone() == (2500,)


@pytest.mark.parametrize("name", ["pyarrow"])
def test_dataset(name: str, endpoint: Endpoint, observer: Client, bucket: str) -> None:
    if missing := PyArrow.missing():
        pytest.skip(f"{missing} is not installed: {PyArrow.install}")
    import pyarrow
    from pyarrow import dataset, fs

    s3 = PyArrow(endpoint).s3
    count = 30_000
    rows = pyarrow.table(
        {
            "id": range(count),
            "word": [f"w {number}" for number in range(count)],
            "year": [2020 + number % 3 for number in range(count)],
        }
    )
    place = f"{bucket}/data set"
    dataset.write_dataset(
        rows,
        place,
        filesystem=s3,
        format="parquet",
        partitioning=["year"],
        partitioning_flavor="hive",
    )
    read = dataset.dataset(place, filesystem=s3, partitioning="hive")
    assert read.to_table().sort_by("id")["word"] == rows["word"]
    assert read.count_rows(filter=dataset.field("year") == 2021) == count // 3

    # A directory of its own is an object whose key ends in a slash.
    s3.create_dir(f"{bucket}/empty")
    marker = observer.request("HEAD", f"/{bucket}/empty/")
    assert (marker.status, marker.headers["content-length"]) == (200, "0")
    assert s3.get_file_info(f"{bucket}/empty").type == fs.FileType.Directory
    s3.delete_dir(f"{bucket}/data set")
    assert set(observer.list_all(bucket)) == {"empty/"}


@pytest.fixture
def delta(endpoint: Endpoint, bucket: str) -> tuple[str, dict[str, str]]:
    """A place for a table, and how to reach it."""
    for package in ("deltalake", "pyarrow"):
        pytest.importorskip(package, reason=f"the package {package} is not installed: {FROM_PYPI}")
    return f"s3://{bucket}/table", {
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ACCESS_KEY_ID": endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        "AWS_REGION": endpoint.region,
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONDITIONAL_PUT": "etag",
    }


@pytest.mark.parametrize("name", ["deltalake"])
def test_versions(name: str, delta: tuple[str, dict[str, str]], observer: Client) -> None:
    import pyarrow
    from deltalake import DeltaTable, write_deltalake

    place, options = delta

    def rows(first: int) -> Any:
        return pyarrow.table({"id": list(range(first, first + 10)), "text": ["a b"] * 10})

    def ids(version: int | None = None) -> list[int]:
        table = DeltaTable(place, version=version, storage_options=options)
        return sorted(table.to_pyarrow_table()["id"].to_pylist())

    write_deltalake(place, rows(0), storage_options=options)
    write_deltalake(place, rows(10), mode="append", storage_options=options)
    assert ids() == list(range(20)) and ids(version=0) == list(range(10))

    # Each commits by creating the next file of the log where there is none: who comes late must
    # hear so, and writes the one after it.
    def append(number: int) -> None:
        write_deltalake(place, rows(20 + 10 * number), mode="append", storage_options=options)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(append, range(WRITERS)))
    assert ids() == list(range(20 + 10 * WRITERS))
    table = DeltaTable(place, storage_options=options)
    assert table.version() == 1 + WRITERS
    assert ids(version=1) == list(range(20))
    table.delete("id >= 20")
    assert ids() == list(range(20))
