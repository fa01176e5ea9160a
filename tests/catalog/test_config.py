from __future__ import annotations

from pathlib import Path

import pytest

from annserve.catalog.config import CatalogConfig
from annserve.domain.errors import InputError
from annserve.domain.filter import FieldType


def config_of(tmp_path: Path, text: str) -> CatalogConfig:
    path = tmp_path / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return CatalogConfig.read(path)


def test_field_is_a_type_or_spelled_out(tmp_path: Path) -> None:
    schema = config_of(
        tmp_path,
        "fields: {price: number, tags: {type: string, many: true}, country: {type: string, path: origin.land}}",
    ).declared()

    assert [(field.name, field.type, field.many, field.path) for field in schema.fields.values()] == [
        ("price", FieldType.NUMBER, False, "price"),
        ("tags", FieldType.STRING, True, "tags"),
        ("country", FieldType.STRING, False, "origin.land"),
    ]


def test_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = config_of(tmp_path, "")

    assert config == CatalogConfig()
    assert config.mongodb.items.collection == "items"
    assert config.mongodb.unindexed_fields == "refuse"


def test_users_are_found_by_the_field_that_the_layout_suggests(tmp_path: Path) -> None:
    assert CatalogConfig().mongodb.histories.user_path == "_id"
    assert config_of(tmp_path, "mongodb: {histories: {layout: events}}").mongodb.histories.user_path == "user_id"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("fields: {price: money}", "fields.price.type"),
        ("fields: {price: {type: number, pth: x}}", "fields.price.pth"),
        ("fields: {a b: number}", "fields.a b"),
        ("fields: {'x\n': number}", "fields"),
        ("fields: {price: {type: number, path: $where}}", "fields.price.path"),
        ("fields: {price: {type: number, path: prices.0}}", "fields.price.path"),
        ("fields: {price: {type: number, path: a.b.c}}", "fields.price.path"),
        ("fields: {price: {type: number, path: ''}}", "fields.price.path"),
        ("fields: {" + ", ".join(f"f{number}: number" for number in range(65)) + "}", "fields"),
        ("fields: [price]", "fields"),
        ("mongodb: {pool_size: '4'}", "mongodb.pool_size"),
        ("mongodb: {pool_size: 0}", "mongodb.pool_size"),
        ("mongodb: {items: {id_type: uuid}}", "mongodb.items.id_type"),
        ("mongodb: {histories: {user_field: a.b}}", "mongodb.histories.user_field"),
        ("mongo: {}", "mongo"),
        ("- a", "the file"),
    ],
)
def test_mistake_is_refused_by_the_name_of_its_field(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(InputError) as refused:
        config_of(tmp_path, text)

    assert "catalog.yaml" in refused.value.message
    assert where in refused.value.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "fields: {price: {type: sec}}",
            "fields.price.type: must be 'string', 'number', 'boolean' or 'time', got 'sec'",
        ),
        ("fields: {price: {many: true}}", "fields.price.type: must be there"),
        ("fields: {price: {type: number, typ: 1}}", "fields.price.typ: there is no such key"),
        ("fields: {price: {type: number, path: a.b.c}}", "fields.price.path: must be one name or two joined by a dot"),
        ("mongodb: {pool_size: '4'}", "mongodb.pool_size: must be a whole number, got '4'"),
        ("mongodb: {pool_size: 0}", "mongodb.pool_size: must be at least 1, got 0"),
    ],
)
def test_mistake_is_told_with_what_must_stand_there(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as refused:
        config_of(tmp_path, text)

    assert problem in refused.value.message


@pytest.mark.parametrize("content", [b"fields: {", b"\xff\xfe", b"a: !!python/object/apply:os.getcwd []"])
def test_what_is_not_plain_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"catalog\.yaml"):
        CatalogConfig.read(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        CatalogConfig.read(tmp_path / "none.yaml")
