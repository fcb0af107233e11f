"""Kehu's side of bench_resolution, in a process of its own: called with a JSON of the job, prints what it took."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.profiles.resolution.tables import Scheme, Table
from tests.bench.table_people import pair_quality


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    job = json.loads(sys.argv[1])
    resolve(job, 50_000)  # loads the compiled code, as importing a peer loads its engine
    print(json.dumps(resolve(job)))


def resolve(job: dict, most: int = 0) -> dict[str, object]:
    """Resolve the files, or the first `most` records of each."""
    names = {field.name for field in dataclasses.fields(Scheme)}
    scheme = Scheme(**{name: value for name, value in job.items() if name in names})
    files = job["paths"]
    began = clock()

    def read(name: str):
        tables = [pq.read_table(path, columns=[name]) for path in files]
        return pa.concat_tables([table.slice(0, most or None) for table in tables])[name]

    sides = np.zeros(0, np.int8)
    if len(files) > 1:
        sizes = [pq.read_metadata(path).num_rows for path in files]
        sides = np.repeat(np.arange(2, dtype=np.int8), [min(size, most or size) for size in sizes])
    table = Table(scheme, read, sides)
    ready = clock()
    model = table.train("bench")
    trained = clock()
    labels = table.resolve(model)
    ended = clock()
    people = read("person").to_numpy()
    return {
        "core": ended[0] - began[0],
        "core_cpu": ended[1] - began[1],
        "train": trained[0] - ready[0],
        "with_kept_model": ended[0] - began[0] - (trained[0] - ready[0]),
        "steps_alone": ended[0] - trained[0],
        "steps_alone_cpu": ended[1] - trained[1],
        "with_kept_model_cpu": ended[1] - began[1] - (trained[1] - ready[1]),
        "quality": pair_quality(people, labels, sides if sides.size else None),
    }


if __name__ == "__main__":
    main()
