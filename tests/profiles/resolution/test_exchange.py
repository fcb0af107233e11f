"""A model goes to splink and comes back the same, and what splink cannot or Kehu does not do is refused by name."""

import copy
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from services.profiles.resolution.exchange import from_splink, to_splink
from services.profiles.resolution.tables import Scheme, Table
from tests.conftest import unavailable

BANDS = (0.0, -4.0)
SCHEME = Scheme(
    {"given": "words", "surname": "words", "born": "number", "state": "equal"},
    ("given", "surname"),
    [("born",), ("given", "surname")],
    [("born",), ("surname",)],
    *BANDS,
    turned=("given", "surname"),
)


def people() -> dict[str, pa.Array]:
    dice = np.random.default_rng(5)
    words = np.array(["anna", "anne", "bert", "carla", "dora", "emil", "frida", "gustav", "hedwig", "ida"], object)
    born = dice.integers(10_000_000, 10_000_150, 400).astype(str).astype(object)
    columns = {"given": words[dice.integers(0, 10, 400)], "surname": words[dice.integers(0, 10, 400)], "born": born}
    columns["state"] = np.array(["nsw", "vic"], object)[dice.integers(0, 2, 400)]
    return {name: pa.array(np.concatenate([values, values]), pa.string()) for name, values in columns.items()}


@pytest.fixture(scope="module")
def model():
    return Table(SCHEME, people().__getitem__).train("v7")


@pytest.mark.parametrize("dialect", ["spark", "duckdb"])
def test_a_model_written_for_splink_and_read_back_judges_alike(model, dialect):
    settings = json.loads(json.dumps(to_splink(SCHEME, model, id_column="id", dialect=dialect)))

    scheme, read = from_splink(settings, version="v7", bands=BANDS, lessons=SCHEME.lessons)

    assert (scheme.compared, tuple(scheme.frequent), scheme.rules, scheme.turned) == (
        SCHEME.compared, SCHEME.frequent, SCHEME.rules, SCHEME.turned,
    )  # fmt: skip
    assert read.prior_weight == pytest.approx(model.prior_weight)
    assert read.odds == model.odds
    columns = people()
    np.testing.assert_array_equal(
        Table(scheme, columns.__getitem__).resolve(read), Table(SCHEME, columns.__getitem__).resolve(model)
    )


def spoiled(settings, change):
    other = copy.deepcopy(settings)
    change(other)
    return other


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["comparisons"][2]["comparison_levels"][2].update(sql_condition="levenshtein(born_l, born_r) < 3"),
         "comparison born: its levels are none that Kehu compares"),
        (lambda s: s["comparisons"][2]["comparison_levels"][2].pop("m_probability"),
         "comparison born, level one: it has no trained m and u"),
        (lambda s: s["comparisons"][0]["comparison_levels"][1].update(tf_adjustment_weight=0.5),
         "comparison given: term frequencies"),
        (lambda s: s["blocking_rules_to_generate_predictions"].append({"blocking_rule": "l.born < r.born"}),
         "only equality of columns"),
        (lambda s: s["blocking_rules_to_generate_predictions"].append({"blocking_rule": "l.born = r.state"}),
         "only equality of columns"),
        (lambda s: s.update(probability_two_random_records_match=0), "must lie between 0 and 1"),
    ],
)  # fmt: skip
def test_settings_that_kehu_cannot_follow_are_refused_by_name(model, change, says):
    settings = to_splink(SCHEME, model, id_column="id")

    with pytest.raises(ValueError, match=says):
        from_splink(spoiled(settings, change), version="v7", bands=BANDS)


def test_an_unknown_dialect_is_refused(model):
    with pytest.raises(ValueError, match="use spark or duckdb"):
        to_splink(SCHEME, model, id_column="id", dialect="oracle")


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_splink_on_a_local_spark_decides_febrl_4_as_kehu_does(tmp_path):
    if not shutil.which("java"):
        unavailable("Spark needs Java 17 or newer: install openjdk-17-jre-headless")
    from tests.bench.bench_spark import REACH, Linkage

    found = Linkage(tmp_path).exported()

    assert found.kept >= 5000
    assert found.worst >= REACH
