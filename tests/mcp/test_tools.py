"""Which tools may be called: a tool writes unless the server says otherwise or the user names it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.mcp.servers.odd_tools import HINTS

from journeyman.errors import McpError, SettingError
from journeyman.mcp.messages import Listing
from journeyman.mcp.tools import McpTool, choose_tools, describe_tool, looks_read_only, model_name, what_to_add

# By their names a guess would be wrong about most of these, one way or the other.
SILENT = ("refund_payment", "charge_card", "format_disk", "ban_user", "wire_money", "reboot_host", "lookup", "get_order", "calculate", "go")


def _tools(*entries: tuple[str, dict[str, object]]) -> tuple[McpTool, ...]:
    listing = Listing()
    listing.take({"tools": [{"name": name, "inputSchema": {"type": "object"}, **more} for name, more in entries]})
    return listing.tools()


def _silent(names: Sequence[str] = SILENT) -> tuple[McpTool, ...]:
    return _tools(*((name, {}) for name in names))


def _reads(name: str) -> tuple[McpTool, ...]:
    return _tools((name, {"annotations": {"readOnlyHint": True}}))


@pytest.mark.parametrize("name", SILENT)
def test_a_tool_of_which_nobody_says_that_it_only_reads_is_not_called(name: str) -> None:
    with pytest.raises(McpError) as caught:
        choose_tools(_silent([name]), "test")
    assert caught.value.reason == "only_write_tools"
    assert name in caught.value.message


@pytest.mark.parametrize("name", SILENT)
def test_the_user_may_say_that_a_tool_only_reads(name: str) -> None:
    choice = choose_tools(_silent(), "test", read_only=[name])
    assert [(tool.name, tool.is_read_only, tool.decided) for tool in choice.tools] == [(name, True, "named_by_user")]
    assert all(other in "".join(choice.notes) for other in SILENT if other != name)


def test_writes_are_used_only_where_they_are_allowed() -> None:
    tools = _silent()
    assert [tool.name for tool in choose_tools(tools, "test", ["go"], allow_writes=True).tools] == ["go"]
    with pytest.raises(McpError) as caught:
        choose_tools([*tools, *_reads("fine")], "test", ["go", "fine"])
    assert (caught.value.reason, "go" in caught.value.message) == ("write_tools", True)


def test_only_true_and_false_count_as_hints() -> None:
    found = {tool.name: (tool.is_read_only, tool.decided) for tool in _tools(*HINTS)}
    reads = {name for name, (is_read_only, _) in found.items() if is_read_only}
    assert reads == {"says_both", "delete_all", "says_yes", "says_yes_and_text"}
    assert {name for name, (_, decided) in found.items() if decided == "says_writes"} == {"says_no"}


def test_a_tool_destroys_unless_it_only_reads_or_says_that_it_only_adds() -> None:
    assert {tool.name for tool in _tools(*HINTS) if not tool.is_destructive} == {
        "says_harmless",
        "says_both",
        "delete_all",
        "says_yes",
        "says_yes_and_text",
    }


@pytest.mark.parametrize("option", ["names", "read_only"])
def test_a_name_that_the_server_does_not_have_is_refused_with_those_it_has(option: str) -> None:
    with pytest.raises(SettingError) as caught:
        choose_tools(_silent(), "test", **{option: ["lookup", "look_up_all"]})
    assert (caught.value.reason, "look_up_all" in caught.value.message) == ("unknown_tool", True)
    assert all(name in str(caught.value.hint) for name in SILENT)


def test_a_tool_that_says_itself_that_it_writes_cannot_be_named_as_reading() -> None:
    with pytest.raises(SettingError) as caught:
        choose_tools(_tools(*HINTS), "test", read_only=["says_no"])
    assert caught.value.reason == "says_it_writes"


def test_a_guess_from_the_name_is_only_told() -> None:
    choice = choose_tools([*_silent(), *_reads("fine")], "test")
    assert [tool.name for tool in choice.tools] == ["fine"]
    assert "--read-only lookup,get_order,calculate" in "".join(choice.notes)
    assert "--read-only NAME" in what_to_add(_silent(["go"]))
    assert "--read-only" not in what_to_add(_tools(("get_it", {"annotations": {"readOnlyHint": False}})))


@pytest.mark.parametrize("name", ["list_tables", "calculate", "read_query", "getUser", "search-orders"])
def test_verbs_of_reading_look_read_only(name: str) -> None:
    assert looks_read_only(name)


@pytest.mark.parametrize(
    "name",
    (
        " write_query get_and_delete appendInsight note refund_payment calculator getUserAndNotify get_or_make check_out_cart "
        "resolve_ticket evaluate_javascript load_money describe_then_email"
    ).split(" "),
)
def test_other_names_do_not_look_read_only(name: str) -> None:
    assert not looks_read_only(name)


@pytest.mark.parametrize("name", ["get a,b", "find x ", "search\nit", "list\x1b[31m"])
def test_a_name_that_no_option_can_spell_is_advised_by_the_name_that_the_model_sees(name: str) -> None:
    tools = _silent([name])
    advised = what_to_add(tools).split()[1]
    assert name not in what_to_add(tools)
    assert [tool.server_name for tool in choose_tools(tools, "test", read_only=[advised]).tools] == [name]


def test_tool_names_are_mapped_to_allowed_characters_without_collision() -> None:
    assert model_name("a.b/c") == "a_b_c"
    assert model_name("a.b", ["a_b"]) == "a_b_2"
    assert len(model_name("x" * 99)) == 64


def test_tools_kept_by_an_earlier_version_can_still_be_read() -> None:
    kept = describe_tool("look_up", "Reads.", {"type": "object"}, (True, None)).model_dump() | {"is_annotated": True}
    assert McpTool.model_validate({name: value for name, value in kept.items() if name != "decided"}).is_read_only
