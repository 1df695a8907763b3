"""Documents as tools: names, schemas, effects, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.model import Effect, Json
from autoglm_server.tools.providers.openapi.document import BYTES_MAX, Document, DocumentError, parse
from autoglm_server.tools.providers.openapi.operations import Choices, Operations, read_operations
from autoglm_server.tools.validation import Schema

HERE = Path(__file__).parent
PETS = (HERE / "petstore.yaml").read_bytes()
NOTES = (HERE / "notes.json").read_bytes()


def pets(**choices: Any) -> Operations:
    return read_operations(parse(PETS), "", Choices(**choices))


def schema_of(operations: Operations, name: str) -> Any:
    return json.loads(operations.by_name[name].tool.input_schema)


def accepts(operations: Operations, name: str, arguments: Json) -> bool:
    return not Schema(operations.by_name[name].tool.input_schema, bytes_max=1 << 20).check(arguments, "a")


def test_each_operation_is_a_tool_with_the_effect_of_its_method() -> None:
    found = {name: operation.tool.effect for name, operation in pets().by_name.items()}
    assert found == {
        "listPets": Effect.READ_ONLY,
        "pets_create": Effect.NON_IDEMPOTENT,
        "GET_pets_petId": Effect.READ_ONLY,
        "putPet": Effect.IDEMPOTENT,
        "deletePet": Effect.IDEMPOTENT,
        "upload": Effect.NON_IDEMPOTENT,
    }


def test_what_cannot_be_offered_says_why() -> None:
    refused = pets().refused
    assert refused.keys() == {"remote"}
    assert "only references inside the document" in refused["remote"]


def test_globs_choose_by_name_and_by_path() -> None:
    assert pets(include=("*Pet",)).by_name.keys() == {"putPet", "deletePet"}
    assert pets(include=("GET *",), exclude=("*remote",)).by_name.keys() == {"listPets", "GET_pets_petId"}
    assert pets(effects={"POST *": Effect.IDEMPOTENT}).by_name["pets_create"].tool.effect is Effect.IDEMPOTENT


def test_the_tool_tells_what_the_document_does() -> None:
    tool = pets().by_name["listPets"].tool
    assert (tool.title, tool.description, tool.tags) == ("List pets.", "List pets.", ("pets",))
    removed = pets().by_name["deletePet"].tool
    assert removed.destructive
    assert removed.description.startswith("Deprecated.")


def test_arguments_of_the_same_name_are_told_apart() -> None:
    properties = schema_of(pets(), "putPet")["properties"]
    assert set(properties) == {"petId", "petId_query", "body_query", "body"}


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"body": {"name": "Tom"}}, True),
        ({"body": {"name": "tom"}}, False),
        ({"body": {}}, False),
        ({}, False),
        ({"body": {"name": "Tom", "nick": None, "kind": None}}, True),
        ({"body": {"name": "Tom", "kind": "cow"}}, False),
        ({"body": {"name": "Tom", "children": [{"name": "Kit", "children": [{"name": "x"}]}]}}, False),
        ({"body": {"name": "Tom", "children": [{"name": "Kit", "children": [{"name": "X"}]}]}}, True),
        ({"body": {"name": "Tom", "odd": "its pattern is of no language"}}, True),
        ({"body": {"name": "Tom"}, "more": 1}, False),
    ],
)
def test_bodies_of_3_0_are_checked(arguments: Json, fits: bool) -> None:
    assert accepts(pets(), "pets_create", arguments) is fits


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"limit": 1}, True),
        ({"limit": 0}, False),
        ({"kind": "no"}, True),
        ({"kind": False}, False),
        ({"ids": [1]}, True),
    ],
)
def test_parameters_of_3_0_are_checked(arguments: Json, fits: bool) -> None:
    assert accepts(pets(), "listPets", arguments) is fits


def test_what_only_an_answer_has_is_not_asked_for() -> None:
    pet = schema_of(pets(), "pets_create")["$defs"]["Pet"]
    assert "id" not in pet["properties"]
    assert pet["required"] == ["name"]
    assert pet["properties"]["password"]["format"] == "password"


def test_answers_are_checked_only_if_that_is_wanted() -> None:
    assert pets().by_name["listPets"].tool.output_schema == ""
    checked = Schema(pets(check_outputs=True).by_name["listPets"].tool.output_schema, bytes_max=1 << 20)
    assert checked.check([{"id": 1, "name": "Tom"}], "o") == []
    assert checked.check([{"name": "Tom"}], "o") != []


def test_3_1_is_read_as_well() -> None:
    operations = read_operations(parse(NOTES), "https://notes.example/docs/openapi.json", Choices(check_outputs=True))
    assert operations.by_name.keys() == {"get_note", "get_note_2"}
    assert operations.by_name["get_note"].base == "https://notes.example/api"
    output = Schema(operations.by_name["get_note"].tool.output_schema, bytes_max=1 << 20)
    assert output.check({"text": "a", "parent": {"text": "b", "parent": None}, "first": 3}, "o") == []
    assert output.check({"text": "a", "level": 0}, "o") != []
    assert output.check({"text": "a", "first": "x"}, "o") != []


@pytest.mark.parametrize(
    ("choices", "location", "base"),
    [
        ({}, "", "https://pets.example/v1"),
        ({"variables": {"host": "other.example"}}, "", "https://other.example/v1"),
        ({"server": "http://127.0.0.1:8080/"}, "", "http://127.0.0.1:8080"),
    ],
)
def test_the_server_is_the_documents_or_the_settings(choices: dict[str, Any], location: str, base: str) -> None:
    operations = read_operations(parse(PETS), location, Choices(**choices))
    assert {operation.base for operation in operations.by_name.values()} == {base}


def test_a_document_cannot_lower_the_guard() -> None:
    refused = pets(variables={"scheme": "http"})
    assert not refused.by_name
    assert "no TLS" in refused.refused["listPets"]
    relative = read_operations(parse(NOTES), "", Choices())
    assert "set `server`" in relative.refused["get_note"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not an object"),
        (b"[]", "not an object"),
        (b'{"openapi": "3.0.0", "x": NaN}', "NaN"),
        (b'{"openapi": "3.0.0"', "cannot be read"),
        (b"\xff\xfe", "UTF-8"),
        (b"a: [", "YAML"),
        (b"swagger: '2.0'", "Swagger 2.0"),
        (b"openapi: 4.0.0", "4.0.0"),
        (b"openapi: 3.0.0\nx: !!python/object:os.system []", "YAML"),
        (b"x: &a [*a]\nopenapi: 3.0.0", "aliases"),
        (b"{" * 100_000, "cannot be read"),
        (b'{"a":' * 100_000, "deep"),
        (b" " * (BYTES_MAX + 1), "larger"),
    ],
    ids=range(13),
)
def test_what_is_no_document_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(DocumentError, match=told):
        parse(data)


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(DocumentError, match="aliases"):
        parse("\n".join([*lines, "openapi: 3.0.0"]).encode())


def test_a_path_that_cannot_be_read_leaves_the_others() -> None:
    document = parse(PETS)
    document.root["paths"]["/broken"] = {"$ref": "elsewhere.yaml"}
    operations = read_operations(document, "", Choices())
    assert "/broken" in operations.refused
    assert "listPets" in operations.by_name


@pytest.mark.parametrize("reference", ["#/nowhere", "#/paths/~1pets/get/operationId/x", "other.yaml#/a", "#/loop"])
def test_references_that_lead_nowhere_are_told(reference: str) -> None:
    document = Document({"openapi": "3.0.0", "paths": {}, "loop": {"$ref": "#/loop"}})
    with pytest.raises(DocumentError):
        document.resolved({"$ref": reference})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["#/paths", "query", "path", "object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "get",
                    "parameters",
                    "schema",
                    "$ref",
                    "in",
                    "name",
                    "content",
                    "requestBody",
                    "type",
                    "enum",
                    "required",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, JSON)
def test_no_document_breaks_the_reader(item: Json, components: Json) -> None:
    root = {
        "openapi": "3.0.0",
        "servers": [{"url": "https://a.example"}],
        "paths": {"/a": item},
        "components": components,
    }
    try:
        operations = read_operations(Document(root), "", Choices(check_outputs=True))
    except DocumentError:
        return

    assert all(operation.tool.name for operation in operations.by_name.values())
