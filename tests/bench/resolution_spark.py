"""Spark's side of bench_spark, in an environment of its own: splink predicts by settings that Kehu wrote, or trains.

Called with a JSON of the job; writes the weights of all pairs as Parquet and prints what it took.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps(run(job)))


def session(folder: str) -> Any:
    """Return a local Spark with splink's functions, quiet, its scratch in the job's folder."""
    from pyspark.sql import SparkSession
    from splink.backends.spark import similarity_jar_location

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", similarity_jar_location())
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.default.parallelism", "4")
        .config("spark.local.dir", folder)
        .config("spark.sql.warehouse.dir", f"{folder}/warehouse")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    spark.sparkContext.setCheckpointDir(f"{folder}/checkpoints")
    return spark


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Predict every pair that shares a key; with `trains`, estimate the probabilities first and save the model."""
    from splink import Linker, SparkAPI

    logging.getLogger("splink").setLevel(logging.ERROR)
    spark = session(job["folder"])
    started = time.perf_counter()
    api = SparkAPI(spark_session=spark, num_partitions_on_repartition=4, break_lineage_method="parquet")
    tables = [api.register(spark.read.parquet(path)) for path in job["paths"]]
    settings = json.loads(Path(job["settings"]).read_text("utf-8"))
    linker = Linker(tables, settings)
    if job.get("trains"):
        train(linker, job["trains"])
        linker.misc.save_model_to_json(job["trained"], overwrite=True)
    predicted = linker.inference.predict().as_spark_dataframe()
    id_column = settings["unique_id_column_name"]
    kept = predicted.select(f"{id_column}_l", f"{id_column}_r", "match_weight")
    kept.write.mode("overwrite").parquet(job["predicted"])
    took = time.perf_counter() - started
    spark.stop()
    return {"core": took}


def train(linker: Any, lessons: list[list[str]]) -> None:
    """Estimate u from random pairs and m by expectation maximization over the pairs of each lesson."""
    from splink import block_on

    linker.training.estimate_u_using_random_sampling(max_pairs=1e6)
    for rule in lessons:
        linker.training.estimate_parameters_using_expectation_maximisation(
            block_on(*rule), estimate_without_term_frequencies=True
        )


if __name__ == "__main__":
    main()
