"""A parser behind the router is not seen by it, but the words that the parser puts into the prompt are."""

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel

from confroute import Cascade, TokenLogprob, record
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ADA = '{"name": "Ada", "age": 36}'
WRONG = ("Ada, 36", '{"name": "Ada"}', '{"name": "Ada", "age": "x"}', '{"name": "A', "[1]")
PARSERS = {
    "json": JsonOutputParser(pydantic_object=Person),
    "pydantic": PydanticOutputParser(pydantic_object=Person),
}


def chain(draft, parser, behind=None):
    """A certain edge between a prompt with the parser's words and the parser."""
    router = ChatConfRoute(
        edge=ScriptedChat.of(draft, name="small", logprob=-0.01),
        cloud=ScriptedChat.of(ADA, name="large"),
        policy=Cascade.of(TokenLogprob(), 0.5),
        edge_limits=ONCE,
        cloud_limits=ONCE,
    )
    prompt = ChatPromptTemplate.from_messages([("system", "Answer. {format}"), ("user", "Who is {who}?")])
    return prompt.partial(format=parser.get_format_instructions()) | router | (behind or parser)


@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("name", PARSERS)
async def test_a_draft_that_the_parser_would_refuse(name, form):
    """It goes to the cloud, however certain it is; one that fits its schema, in a code fence too, stays."""
    parser = PARSERS[name]
    for draft, route in (
        *((wrong, "cloud") for wrong in WRONG),
        (ADA, "edge"),
        (f"```json\n{ADA}\n```", "edge"),
    ):
        made = chain(draft, parser)
        with record() as decisions:
            if form == "stream":
                *_, found = made.stream({"who": "Ada"})
            else:
                found = (
                    await made.ainvoke({"who": "Ada"}) if form == "ainvoke" else made.invoke({"who": "Ada"})
                )
        assert dict(found) == {"name": "Ada", "age": 36}
        assert [one.route for one in decisions] == [route], draft
        if route == "cloud":
            assert "edge answer cannot be used: the JSON parser cannot read it" in decisions[0].reason


def test_what_asks_for_no_schema_is_left_alone():
    """Neither a parser without words of its own, nor its words without a schema, nor a cloud's answer that does not fit."""
    with record() as decisions:
        assert chain("Ada, 36", JsonOutputParser(), StrOutputParser()).invoke({"who": "Ada"}) == "Ada, 36"
    assert decisions[0].route == "edge"
    made = chain("Ada", PARSERS["json"])
    router = made.steps[1]
    broken = router.model_copy(update={"cloud": ScriptedChat.of("Ada, too", name="large")})
    with pytest.raises(OutputParserException):
        (made.steps[0] | broken | PARSERS["json"]).invoke({"who": "Ada"})
