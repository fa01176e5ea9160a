"""What a file says becomes its recipe; what is wrong with it is told where it is written, with a remedy."""

from __future__ import annotations

import pytest
from placement_texts import FIELDS, SCHEMA, placement, problems_of, text_of

from annserve.catalog.config import CatalogConfig
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.filter import And, Equals, In, Range, canonical
from annserve.domain.query import Mode
from annserve.placements.expression import CompiledExpression
from annserve.placements.file import PlacementFile, json_schema
from annserve.placements.loading import compiled, compiled_set
from annserve.placements.parts import Compared, OfItems, fields_of, singles_of
from annserve.placements.placement import version_of
from annserve.placements.problems import PlacementsRefusedError
from annserve.placements.recipe import (
    Cap,
    ContextField,
    Fallback,
    FallbackKind,
    HistoryExclusion,
    OnUnavailable,
    Placement,
    Recipe,
    Rotation,
)

WHOLE = """
description: everything there is
time_zone: Asia/Seoul
context:
  device: string
  read_ratio: {type: number, default: 1}
policy:
  - {when: context.read_ratio < 0.2, suppress: hardly read}
  - {when: 'similarity(user, context) >= 0.6', mode: related, user_impact: request.hour / 24}
  - {when: 'request.hour in [22, 23]', mode: similar}
  - else: personalize
where: {status: [okay, new], price: {above: 0, maximum: 100}, tags: a}
filter: item.stock > 0 || item.status == "new"
exclude: {seen: false, history: [{event: disliked, last: 5}]}
boosts:
  - {when: item.on_sale, weight: 1.5}
  - {when: context.device == "phone", weight: 2}
demotions:
  - {when: item.price > 50 && score < 0.5, weight: 0.5}
diversity: 0.25
caps: [{field: status, at_most: 2, window: 5}, {field: tags, at_most: 3}]
pins: [{rank: 1, item: 4711}, {rank: 3, item: x, when: request.hour < 9}]
rotation: {penalty: 0.5, half_life: 12h}
exploration: 0.1
popularity_weight: 2
candidates: 300
limit: 30
max_staleness: 90s
on_unavailable: fallback
fallback: [recent_items, popular, {placement: other}, {items: [b, a, b]}]
strict: true
"""


def test_whole_file_becomes_its_recipe() -> None:
    made = compiled_set([text_of(WHOLE), text_of("mode: personalize", "other")], SCHEMA).placements["home"]
    recipe = made.recipe(None)

    assert made.time_zone == "Asia/Seoul"
    assert made.context == {
        "device": ContextField(type="string"),
        "read_ratio": ContextField(type="double", default=1.0),
    }
    assert [row.mode for row in recipe.policy] == [None, Mode.RELATED, Mode.SIMILAR, Mode.PERSONALIZE]
    assert recipe.policy[0].suppressed == "hardly read"
    assert isinstance(recipe.policy[1].user_impact, CompiledExpression)
    assert recipe.policy[3].when is None
    price = Range(FIELDS["price"], 0.0, 100.0, minimum_excluded=True)
    assert isinstance(recipe.filter, And)
    for part in (In(FIELDS["status"], ("new", "okay")), price, Equals(FIELDS["tags"], "a")):
        assert part in recipe.filter.filters
    assert canonical(recipe.filter) == recipe.filter
    assert recipe.exclude_seen is False
    assert recipe.history_exclusions == (HistoryExclusion(event="disliked", last=5),)
    assert [(rule.name, rule.weight) for rule in recipe.weights] == [
        ("boosts[0]", 1.5), ("boosts[1]", 2.0), ("demotions[0]", 0.5),
    ]  # fmt: skip
    assert recipe.weights[0].items == Equals(FIELDS["on_sale"], True)
    assert recipe.weights[1].request is not None
    assert recipe.weights[2].mixed is not None
    assert recipe.weights[2].parts is not None
    assert [type(single) for single in singles_of(recipe.weights[2].parts)] == [OfItems, Compared]
    assert fields_of(recipe.weights[2].parts) == ()
    assert recipe.caps == (
        Cap(name="caps[0]", field=FIELDS["status"], at_most=2, window=5),
        Cap(name="caps[1]", field=FIELDS["tags"], at_most=3),
    )
    assert [(pin.rank, pin.item_id, pin.when is None) for pin in recipe.pins] == [(1, "4711", True), (3, "x", False)]
    assert recipe.rotation == Rotation(penalty=0.5, half_life_seconds=43_200.0)
    assert (recipe.limit, recipe.candidates, recipe.diversity, recipe.exploration_share) == (30, 300, 0.25, 0.1)
    assert (recipe.popularity_weight, recipe.max_staleness_seconds, recipe.strict) == (2.0, 90.0, True)
    assert recipe.on_unavailable is OnUnavailable.FALLBACK
    assert recipe.fallbacks == (
        Fallback(kind=FallbackKind.RECENT_ITEMS),
        Fallback(kind=FallbackKind.POPULAR),
        Fallback(kind=FallbackKind.PLACEMENT, placement="other"),
        Fallback(kind=FallbackKind.ITEMS, item_ids=("b", "a")),
    )
    assert recipe.context_names == {"device", "read_ratio"}
    assert recipe.reads_clock
    assert recipe.reads_similarity


def test_file_that_says_only_the_mode_has_the_defaults_of_a_recipe() -> None:
    made: Placement = placement("mode: similar")
    recipe = made.recipe("anybody")

    assert recipe == Recipe(name="home", version=version_of("mode: similar"), policy=recipe.policy)
    assert len(made.version) == 16
    assert int(made.version, 16) >= 0
    assert made.experiment == ""


def test_classic_rule_is_five_lines() -> None:
    recipe = placement(
        "mode: similar\nwhere: {status: okay}\nlimit: 20\nexclude:\n  history: [{event: disliked, last: 5}]"
    ).recipe(None)

    assert recipe.filter == Equals(FIELDS["status"], "okay")
    assert recipe.limit == 20
    assert recipe.history_exclusions == (HistoryExclusion(event="disliked", last=5),)


EXPERIMENT = """
policy: [{when: request.user_known, mode: personalize}, {else: similar}]
diversity: 0.5
boosts: [{when: item.on_sale, weight: 2}]
experiment:
  name: home_mode
  variants:
    plain: {share: 0.5}
    bold: {share: 0.3, diversity: 0, mode: related, user_impact: 0.9}
    bare: {share: 0.2, boosts: []}
"""


def test_variant_does_what_the_file_says_but_for_its_own_keys() -> None:
    made = placement(EXPERIMENT)
    plain, bold, bare = (made.recipe(None, variant) for variant in ("plain", "bold", "bare"))

    assert (plain.experiment, plain.variant, len(plain.policy), plain.diversity) == ("home_mode", "plain", 2, 0.5)
    assert (bold.diversity, [row.mode for row in bold.policy], bold.policy[0].user_impact) == (0.0, [Mode.RELATED], 0.9)
    assert (len(bold.weights), len(bare.weights), bare.diversity) == (1, 0, 0.5)
    assert made.recipe(None).variant == "plain"
    assert {made.recipe(f"user-{number}").variant for number in range(200)} == {"plain", "bold", "bare"}
    assert made.recipe("user-1") is made.recipe("user-1")


@pytest.mark.parametrize("content", [EXPERIMENT, "mode: similar"])
def test_forced_variant_that_there_is_not_is_the_callers_mistake(content: str) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no variant 'other'"):
        placement(content).recipe("user-1", "other")


@pytest.mark.parametrize(
    ("content", "place", "remedy"),
    [
        ("mode: similar\nlimt: 3", "2:1: limt", "did you mean 'limit'?"),
        ("mode: similr", "1:7: mode", "must be 'similar', 'personalize' or 'related'"),
        ("", "1:1", "say which question to ask"),
        ("- mode: similar", "1:1", "must be a mapping"),
        ("mode: similar\n  limit: 3", "2:8", "is not YAML"),
        ("mode: similar\nmode: related", "2:1", "'mode' is there twice"),
        ("mode: similar\nlimit: 0", "2:8: limit", "must be at least 1, got 0"),
        ("mode: similar\nlimit: '5'", "2:8: limit", "must be a whole number, got '5'"),
        ("mode: similar\nlimit: 400", "2:8: limit", "at most `candidates`"),
        ("mode: similar\nstrict: yes", "2:9: strict", "must be true or false, got 'yes'"),
        ("mode: similar\nuser_impact: 0.4", "2:1: user_impact", "is for `mode: related`"),
        ("mode: related\nuser_impact: 4", "2:14: user_impact", "from 0 (context only) to 1 (taste only)"),
        ("mode: related\nuser_impact: score", "2:14: user_impact", "cannot read the candidate's score"),
        ("mode: related\nuser_impact: request.user_known", "2:14: user_impact", "must be a number, is a boolean"),
        ("mode: similar\npolicy: [{else: similar}]", "1:1: mode", "either `mode` or `policy`"),
        ("policy:\n  - mode: similar\n  - else: related", "2:5: policy[0]", "only the last row"),
        ("policy:\n  - {mode: similar, suppress: x}", "2:5: policy[0]", "either `mode` or `suppress`"),
        (
            "policy: [{when: item.price < 3, mode: similar}]",
            "1:17: policy[0].when",
            "cannot read the candidate's item.price",
        ),
        ("mode: similar\nwhere: {price: cheap}", "2:16: where.price", "must be a number"),
        ("mode: similar\nwhere: {status: 3}", "2:17: where.status", "write '3' in quotes"),
        ("mode: similar\nwhere: {prise: 3}", "2:9: where.prise", "did you mean 'price'?"),
        ("mode: similar\nwhere: {price: {over: 3}}", "2:16: where.price", "minimum, above, maximum, below"),
        ("mode: similar\nfilter: item.price < item.stock", "2:9: filter", "must compare item fields with constants"),
        (
            "mode: similar\nboosts:\n  - when: item.prise < 3\n    weight: 2",
            "3:11: boosts[0].when",
            "did you mean 'item.price'?",
        ),
        (
            "mode: similar\nboosts:\n  - when: \"item.price < 'a'\"\n    weight: 2",
            "3:23: boosts[0].when",
            "number and string",
        ),
        (
            "mode: similar\nboosts:\n  - {when: item.on_sale, weight: 0.5}",
            "3:34: boosts[0].weight",
            "under `demotions`",
        ),
        (
            "mode: similar\ndemotions:\n  - {when: item.on_sale, weight: 2}",
            "3:34: demotions[0].weight",
            "under `boosts`",
        ),
        ("mode: similar\nboosts:\n  - {when: item.on_sale}", "3:5: boosts[0].weight", "must be there"),
        (
            "mode: similar\nboosts:\n  - {when: item.on_sale, wight: 2, weight: 2}",
            "3:26: boosts[0].wight",
            "did you mean 'weight'?",
        ),
        (
            "mode: similar\nboosts: [{when: similarity(user, item) > 0, weight: 2}]",
            "2:34: boosts[0].item) > 0",
            "a comma ends a value",
        ),
        ("mode: similar\ncaps: [{field: brand, at_most: 1}]", "2:16: caps[0].field", "is not declared; the fields are"),
        ("mode: similar\npins: [{rank: 1, item: ''}]", "2:24: pins[0].item", "must not be empty"),
        (
            "mode: similar\npins: [{rank: 1, item: a}, {rank: 1, item: b}]",
            "2:35: pins[1].rank",
            "has this rank already",
        ),
        ("mode: similar\nrotation: {penalty: 1, half_life: 5}", "2:35: rotation.half_life", "a duration such as"),
        (
            "mode: similar\nfallback: [populer]",
            "2:12: fallback[0]",
            "must be recent_items, popular, {placement: NAME} or {items: [ID]}, got 'populer'",
        ),
        (
            "mode: similar\nfallback: [{placement: other}]",
            "2:13: fallback[0].placement",
            "there is no placement 'other'",
        ),
        ("mode: similar\nfallback: [{placement: home}]", "2:13: fallback[0].placement", "in a circle: home > home"),
        ("mode: similar\nfallback: [{popular: true, items: [a]}]", "2:12: fallback[0]", "exactly one of"),
        ("mode: similar\non_unavailable: fallback", "2:17: on_unavailable", "needs a step"),
        ("mode: similar\ntime_zone: Asia/Soul", "2:12: time_zone", "is no time zone"),
        ("mode: similar\ntime_zone: ../../etc/passwd", "2:12: time_zone", "is no time zone"),
        ("mode: similar\ncontext: {device: text}", "2:19: context.device.type", "must be 'string', 'number'"),
        (
            "mode: similar\ncontext: {ratio: {type: number, default: a}}",
            "2:42: context.ratio.default",
            "must be a number",
        ),
        (
            "mode: similar\nexperiment: {name: x, variants: {a: {share: 0.5}}}",
            "2:23: experiment.variants",
            "add up to 1",
        ),
        (
            "mode: similar\nexperiment: {name: x, variants: {a: {share: 1, limit: 999}}}",
            "2:55: experiment.variants.a.limit",
            "at most 500",
        ),
        (
            "mode: similar\nexperiment: {name: x, variants: {a: {share: 1, limit: 300}}}",
            "2:55: experiment.variants.a.limit",
            "`candidates`",
        ),
        ("mode: similar\n# é\x00", "2:4", "control characters"),
        ("mode: similar\ndescription: é\udcff", "2:15", "no text in UTF-8"),
        ("mode: similar\n---\nmode: related", "2:1", "one document"),
        ("mode: &m similar\nlimit: *m", "1:7", "anchors"),
        ("mode: !!python/name:os.system x", "1:7", "tags"),
        ("mode: similar\ndescription: '" + "x" * 70_000 + "'", "1:1", "at most 64 KiB"),
    ],
)
def test_what_is_wrong_is_told_with_line_column_field_and_remedy(content: str, place: str, remedy: str) -> None:
    (problem,) = problems_of(content)

    assert str(problem).startswith(f"home.yaml:{place}: ")
    assert remedy in problem.text


def test_everything_that_is_wrong_is_told_at_once() -> None:
    content = "mode: similar\nlimit: 400\nfilter: score > 1\nboosts: [{when: item.x, weight: 2}]\ntime_zone: Mars"

    assert len(problems_of(content)) == 4


def test_set_is_refused_as_a_whole_with_the_problems_of_all_its_files() -> None:
    sources = [
        text_of("mode: similar", "good"),
        text_of("mode: x", "bad"),
        text_of("mode: similar\nfallback: [{placement: second}]", "first"),
        text_of("mode: similar\nfallback: [popular, {placement: first}]", "second"),
        text_of("mode: similar", "No Name"),
    ]

    with pytest.raises(PlacementsRefusedError) as caught:
        compiled_set(sources, SCHEMA)

    assert sorted(problem.file for problem in caught.value.problems) == [
        "No Name.yaml", "bad.yaml", "first.yaml", "second.yaml",
    ]  # fmt: skip
    assert "bad.yaml:1:7: mode: must be" in str(caught.value)


def test_version_of_a_set_is_of_its_content_alone() -> None:
    sources = [text_of("mode: similar", "one"), text_of("mode: related", "two")]
    version = compiled_set(sources, SCHEMA).version

    assert compiled_set(reversed(sources), SCHEMA).version == version
    assert compiled_set(sources[:1], SCHEMA).version != version
    assert compiled_set([text_of("mode: similar # really", "one"), sources[1]], SCHEMA).version != version


def test_without_a_catalogue_rules_over_items_are_refused() -> None:
    declared = CatalogConfig().declared()

    assert compiled([text_of("mode: similar\ncaps: [{field: price, at_most: 1}]")], declared)[1]
    assert not compiled([text_of("mode: similar\ndemotions: [{when: score < 0, weight: 0}]")], declared)[1]


def test_schema_for_editors_has_every_key_with_what_it_means() -> None:
    schema = json_schema()

    assert schema["properties"].keys() == PlacementFile.model_fields.keys()
    assert all({"description", "$ref"} & described.keys() for described in schema["properties"].values())
    assert schema["additionalProperties"] is False
