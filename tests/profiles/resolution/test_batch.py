"""A batch meets each pair once, learns from the records alone, and does not chain people together."""

from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from services.profiles.domain.model import make_model
from services.profiles.domain.training import Lesson, Material, Patterns, train
from services.profiles.resolution import blocking
from services.profiles.resolution.blocking import keys_of, narrowed
from services.profiles.resolution.clusters import LARGEST, clusters_of
from services.profiles.resolution.columns import column_of
from services.profiles.resolution.comparing import Comparisons, Equal
from services.profiles.resolution.engine import NO_SIDES, edges_of
from services.profiles.resolution.exchange import to_splink
from services.profiles.resolution.judging import CONFLICT, TWO_PEOPLE, Judge
from services.profiles.resolution.tables import Scheme, Table

DICE = np.random.default_rng(3)
COLUMNS = [DICE.integers(-1, 40, 600).astype(np.int32) for _ in range(4)]
WIDE = 8
RULES = [[[COLUMNS[0]]], [[COLUMNS[1], COLUMNS[0]]], [[COLUMNS[2]], [COLUMNS[3]]]]


def met(keys, sides=NO_SIDES):
    found = Counter()
    for part in keys.parts():
        left, right = keys.pairs_of(part, sides)
        found.update(zip(left.tolist(), right.tolist(), strict=True))
    return found


def expected(most):
    blocks = Counter()
    keys = []
    for at in range(600):
        zero, one, two, three = (int(column[at]) for column in COLUMNS)
        own = {("a", zero)} if zero >= 0 else set()
        own |= {("b", one, zero)} if min(one, zero) >= 0 else set()
        own |= {("c", value) for value in (two, three) if value >= 0}
        keys.append(own)
        blocks.update(own)
    return {(a, b) for a, b in combinations(range(600), 2) if any(blocks[key] <= most for key in keys[a] & keys[b])}


@pytest.mark.parametrize("most", [10_000, 20])
def test_every_pair_that_shares_a_key_is_met_once_and_void_keys_make_none(most, monkeypatch):
    monkeypatch.setattr(blocking, "PART_PAIRS", 1000)
    found = met(keys_of(RULES, most))

    assert set(found) == expected(most)
    assert set(found.values()) == {1}


def test_with_two_sides_only_pairs_across_them_are_met():
    sides = (np.arange(600) % 3 == 0).astype(np.int8)

    assert set(met(keys_of(RULES, 10_000), sides)) == {(a, b) for a, b in expected(10_000) if sides[a] != sides[b]}


def test_expectation_maximization_finds_the_probabilities_that_made_the_pairs():
    m = [np.array([0.9, 0.07, 0.03]), np.array([0.7, 0.2, 0.1]), np.array([0.85, 0.15])]
    u = [np.array([0.02, 0.08, 0.9]), np.array([0.05, 0.15, 0.8]), np.array([0.3, 0.7])]
    dice = np.random.default_rng(5)

    def drawn(shares, count):
        return np.stack([dice.choice(len(share), count, p=share) + 1 for share in shares], 1)

    def counted(rows):
        digits, counts = np.unique(rows, axis=0, return_counts=True)
        return Patterns(digits, counts)

    pairs = counted(np.concatenate([drawn(m, 30_000), drawn(u, 20_000)]))
    levels = {"one": ("a", "b", "c"), "two": ("a", "b", "c"), "three": ("a", "b")}
    model = train(Material(levels, counted(drawn(u, 200_000)), [Lesson("key", pairs, ())], 3e7), "test", (5, 0))

    for name, shares in zip(levels, m, strict=True):
        assert [model.odds[name][level][0] for level in levels[name]] == pytest.approx(shares.tolist(), abs=0.02)
    (lesson,) = model.report["lessons"]
    assert lesson["pairs"] == 50_000
    assert lesson["matches"] == pytest.approx(30_000, rel=0.03)


def test_a_comparison_without_pairs_to_learn_from_is_an_error_with_its_name():
    none = Patterns(np.zeros((0, 1), int), np.zeros(0, int))
    some = Patterns(np.array([[1], [2]]), np.array([1, 9]))

    with pytest.raises(ValueError, match="one"):
        train(Material({"one": ("a", "b")}, some, [Lesson("key", none, ())], 100), "test", (5, 0))


def judge_of(x, y, weak=0, below=5):
    """Return a judge of two columns, 6 bits and 2 bits; `weak` is said of pairs with less than `below` bits."""
    columns = [column_of(pa.array(list(map(str, part)))) for part in (x, y)]
    comparisons = Comparisons([Equal(name, column) for name, column in zip("xy", columns, strict=True)])
    odds = {"x": {"same": (0.64, 0.01), "other": (0.5, 0.5)}, "y": {"same": (0.04, 0.01), "other": (0.5, 0.5)}}
    model = make_model("test", 0.0, (1.0, 0.0), odds, {}, {}, {})
    return Judge(comparisons, model, lambda _, weights: np.where(weights < below, weak, 0).astype(np.uint8))


def test_a_weak_bridge_joins_no_two_people_whatever_else_agrees():
    x = np.array([1, 1, 1, 2, 2, 2])
    y = np.array([7, 7, 7, 7, 7, 7])
    judge = judge_of(x, y, TWO_PEOPLE)
    edges = edges_of(keys_of([[[y.astype(np.int32)]]], 100), judge)

    assert clusters_of(edges, 6, judge, np.full(6, -1)).tolist() == [0, 0, 0, 3, 3, 3]


def test_one_record_that_agrees_does_not_outvote_two_that_conflict():
    x, y = np.array([1, 1, 1, 2], np.int32), np.array([7, 8, 8, 7], np.int32)
    keys = keys_of([[[x]], [[y]]], 100)

    def labels(judge):
        return clusters_of(edges_of(keys, judge), 4, judge, np.full(4, -1)).tolist()

    assert labels(judge_of(x, y)) == [0, 0, 0, 0]
    assert labels(judge_of(x, y, CONFLICT, below=1)) == [0, 0, 0, 3]


def test_two_records_of_a_source_that_has_each_person_once_never_join():
    same = np.zeros(4, np.int32)
    judge = judge_of(same, same)
    edges = edges_of(keys_of([[[same]]], 100), judge)

    labels = clusters_of(edges, 4, judge, np.array([0, 0, 1, 1]))
    assert sorted(Counter(labels.tolist()).values()) == [2, 2]
    assert labels[0] != labels[1] and labels[2] != labels[3]


def test_what_hangs_together_without_end_is_cut_and_memory_stays_bounded():
    count = LARGEST * 3
    same = np.zeros(count, np.int32)
    judge = judge_of(same, same)
    edges = edges_of(keys_of([[[same]]], count), judge)

    assert Counter(clusters_of(edges, count, judge, np.full(count, -1)).tolist()).most_common(1)[0][1] <= LARGEST


def test_a_table_of_other_columns_is_resolved_by_its_scheme_without_labels():
    dice = np.random.default_rng(9)
    names, numbers, streets = (dice.integers(most, size=1500).tolist() for most in (400, 10**8, 900))
    people = [
        (f"name{name}x", f"{number:08d}", f"street {street}")
        for name, number, street in zip(names, numbers, streets, strict=True)
    ]
    rows, truth = list(people), list(range(1500))
    for at in range(0, 1500, 2):
        name, number, street = people[at]
        slips = [people[at], (name[:-1] + "y", number, street), (name, number[:3] + "x" + number[4:], street)]
        rows.append(slips[at // 2 % 3])
        truth.append(at)
    table = pa.table({key: [row[at] for row in rows] for at, key in enumerate(("name", "number", "street"))})
    scheme = Scheme(
        {"name": "words", "number": "number", "street": "words"},
        ["name", "street"],
        [("number",), ("name", "street")],
        [("number",), ("name", "street")],
        merge_weight=0.0,
        review_weight=-4.0,
    )
    resolving = Table(scheme, lambda name: table[name])
    labels = resolving.resolve(resolving.train("test"))

    pairs = {(a, b) for a, b in combinations(range(len(rows)), 2) if labels[a] == labels[b]}
    true = {(truth[at], at) for at in range(1500, len(rows))}
    assert len(pairs & true) / len(true) > 0.98
    assert len(pairs & true) / len(pairs) > 0.98


def test_columns_written_in_each_others_place_are_a_level_of_the_first_and_silence_of_the_second():
    rows = [("anna", "braun"), ("braun", "anna"), ("anna", "anna"), ("braun", None), ("carl", "anna")]
    table = {name: pa.array([row[at] for row in rows]) for at, name in enumerate(("given", "family"))}
    kinds = {"given": "words", "family": "words"}
    scheme = Scheme(kinds, [], [("given",)], [("given",)], 0.0, -4.0, turned=("given", "family"))
    comparisons = Table(scheme, lambda name: table[name]).comparisons
    left, right = np.array([0, 0, 0, 1], np.int32), np.array([1, 2, 3, 4], np.int32)
    digits = comparisons.digits(comparisons.compare(left, right))
    found = [tuple(["", *part.levels][one] for part, one in zip(comparisons.parts, row, strict=True)) for row in digits]

    assert found[0] == ("turned", "")
    assert found[1] == ("same", "other")
    assert found[2][1] == ""
    assert found[3] == ("other", "same")


def test_dates_are_alike_by_slip_year_and_decade_and_unreadable_ones_share_no_year():
    dates = ["18320714", "18320714", "18320715", "18320101", "18400714", "18610714", None, "unknown", "unclear"]
    scheme = Scheme({"born": "date"}, [], [("born",)], [("born",)], 0.0, -4.0)
    (part,) = Table(scheme, lambda _: pa.array(dates)).comparisons.parts
    left = np.zeros(8, np.int32)
    patterns = np.zeros(8, np.int32)
    part.write(left, np.arange(1, 9, dtype=np.int32), 1, patterns)

    names = ["", *part.levels]
    expected = ["same", "one", "year", "decade", "other", "", "other", "other"]
    assert [names[at] for at in patterns.tolist()] == expected
    patterns = np.zeros(1, np.int32)
    part.write(np.array([7], np.int32), np.array([8], np.int32), 1, patterns)
    assert names[patterns[0]] == "other"


def test_a_record_that_could_be_of_either_chains_no_father_and_son_together():
    father, son = ("anna", "paris", "18320714"), ("anna", "paris", "18610302")
    rows = [father, father, son, son, ("anna", "paris", None)]
    dice = np.random.default_rng(4)
    others = [(f"n{n}x", f"town {n % 90}", f"{1800 + n % 99}0{1 + n % 9}11") for n in dice.integers(0, 10**6, 600)]
    rows += [row for row in others for _ in range(2)]
    table = {name: pa.array([row[at] for row in rows]) for at, name in enumerate(("name", "town", "born"))}
    kinds = {"name": "words", "town": "words", "born": "date"}

    def labels(**more):
        rules = [("name", "town"), ("name", "born"), ("born", "town")]
        scheme = Scheme(kinds, ["name"], rules, rules, 0.0, -4.0, conflict_weight=-99.0, **more)
        resolving = Table(scheme, lambda name: table[name])
        return resolving.resolve(resolving.train("test"))[:5].tolist()

    found = labels(lasting=["born"])
    assert found[0] == found[1] != found[2] == found[3]
    assert found[4] in (found[0], found[2])


def test_a_scheme_that_splink_has_no_counterpart_for_is_refused():
    scheme = Scheme({"born": "date"}, [], [("born",)], [("born",)], 0.0, -4.0)
    with pytest.raises(ValueError, match="no counterpart"):
        to_splink(scheme, None, id_column="id")


def narrow_pairs(rules, names):
    """Return the pairs met with and without narrowing, and who shares what."""
    wide = keys_of(rules, 10_000)
    codes = {name: COLUMNS[at] for at, name in enumerate("abcd")}
    found = met(narrowed(wide, names, codes, WIDE))
    assert set(found.values()) == {1}
    return set(found), set(met(wide)), codes


def test_records_of_a_wide_key_are_met_where_they_agree_in_one_more_column_and_those_of_a_narrow_one_always():
    names = [("a",), ("b", "c")]
    found, all_pairs, codes = narrow_pairs([[[COLUMNS[0]]], [[COLUMNS[1], COLUMNS[2]]]], names)
    sizes = [Counter(zip(*(codes[name].tolist() for name in rule), strict=True)) for rule in names]

    def is_met(pair):
        for rule, size in zip(names, sizes, strict=True):
            one, other = (tuple(int(codes[name][at]) for name in rule) for at in pair)
            shares = any(codes[name][pair[0]] == codes[name][pair[1]] >= 0 for name in codes if name not in rule)
            if one == other and min(one) >= 0 and (size[one] <= WIDE or shares):
                return True
        return False

    assert found == {pair for pair in all_pairs if is_met(pair)}
    assert len(found) < len(all_pairs)


def test_a_key_is_not_narrowed_where_a_later_rule_has_no_column_of_its_own_to_tell():
    names = [("a", "b"), ("a",)]
    _, of_one, _ = narrow_pairs([[[COLUMNS[0]]]], [("a",)])
    found, all_pairs, _ = narrow_pairs([[[COLUMNS[0], COLUMNS[1]]], [[COLUMNS[0]]]], names)

    assert {pair for pair in all_pairs if COLUMNS[1][pair[0]] == COLUMNS[1][pair[1]] >= 0} <= found < of_one


@pytest.mark.parametrize("seed", range(4))
def test_narrowing_loses_no_person_whose_records_agree_in_anything_else(seed):
    dice = np.random.default_rng(seed)
    people = np.repeat(np.arange(200), 3)
    columns = {
        name: np.where(dice.random(600) < 0.2, -1, people % size) for name, size in (("a", 5), ("b", 50), ("c", 67))
    }
    rules = [("a",), ("b",)]
    keys = keys_of([[[columns[name].astype(np.int32) for name in rule]] for rule in rules], 10_000)
    found = set(met(narrowed(keys, rules, columns, WIDE)))

    for one, other in combinations(range(600), 2):
        shared = [name for name, column in columns.items() if column[one] == column[other] >= 0]
        if people[one] == people[other] and len(shared) > 1 and {"a", "b"} & set(shared):
            assert (one, other) in found
