"""Engines that parse the text of an answer: a draft that their parser cannot read is flawed, however certain, and no crash."""

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.schema import QueryBundle
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool, ToolMetadata
from pydantic import BaseModel

from confroute import record
from confroute.testing import Reply
from tests.llamaindex.conftest import SURE, scripted

CUT = '[{"sub_question": "Which ci'
WHOLE = '```json\n[{"sub_question": "Which city?", "tool_name": "cities"}]\n```'


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Fixed(CustomQueryEngine):
    """Answers without a model."""

    def custom_query(self, query_str):
        return f"{query_str} Bern."


def tools():
    return [QueryEngineTool(query_engine=Fixed(), metadata=ToolMetadata(name="cities", description="cities"))]


def router(kit, draft, answer):
    """A certain edge."""
    edge = scripted(Reply(text=draft, logprob=SURE), name="small", is_function_calling_model=False)
    return kit.router(edge, scripted(answer, name="large", is_function_calling_model=False))


async def asked(form, call, acall, *args):
    return await acall(*args) if form == "async" else call(*args)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("draft", [CUT, "I would ask which city it is.", '[{"tool_name": "cities"}]', "[]"])
async def test_sub_questions(kit, draft, form):
    """A cut list, prose, a list whose items lack a field, and an empty one, at which the host raises, too."""
    llm = router(kit, draft, WHOLE)
    generator = LLMQuestionGenerator.from_defaults(llm=llm)
    metadata = [tool.metadata for tool in tools()]
    with record() as decisions:
        found = await asked(
            form, generator.generate, generator.agenerate, metadata, QueryBundle("Which city?")
        )
    assert [one.sub_question for one in found] == ["Which city?"]
    (decision,) = decisions
    assert (decision.route, decision.stage) == ("cloud", "draft")
    assert "the SubQuestionOutputParser parser cannot read it" in decision.reason


def test_a_sub_question_engine_goes_on(kit):
    """Its questions come from the cloud where the edge's do not parse; the answer is drafted again."""
    llm = router(kit, CUT, WHOLE)
    from llama_index.core import get_response_synthesizer

    engine = SubQuestionQueryEngine.from_defaults(
        tools(),
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm, response_mode="compact"),
        use_async=False,
        verbose=False,
    )
    with record() as decisions:
        assert engine.query("Which city?").response == CUT
    assert [one.route for one in decisions] == ["cloud", "edge"]


@pytest.mark.parametrize("selector", [LLMSingleSelector, LLMMultiSelector])
@pytest.mark.parametrize("form", ["sync", "async"])
async def test_selectors(kit, selector, form):
    """A choice that is no JSON goes to the cloud; one that is, stays."""
    choice = '[{"choice": 1, "reason": "it fits"}]'
    metadata = [tool.metadata for tool in tools()]
    for draft, route in (("The first one fits.", "cloud"), ('[{"choice": 1, ', "cloud"), (choice, "edge")):
        made = selector.from_defaults(llm=router(kit, draft, choice))
        with record() as decisions:
            found = await asked(form, made.select, made.aselect, metadata, QueryBundle("Which city?"))
        assert found.inds == [0]
        assert [one.route for one in decisions] == [route]


def test_a_router_engine_goes_on(kit):
    """By the selector that it makes itself."""
    llm = router(kit, "The first one, I think", '[{"choice": 1, "reason": "it fits"}]')
    engine = RouterQueryEngine.from_defaults(
        tools(), llm=llm, selector=LLMSingleSelector.from_defaults(llm=llm)
    )
    assert str(engine.query("Which city?")) == "Which city? Bern."


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_a_program_whose_parser_the_router_never_sees(kit, form):
    """The schema stands in the prompt, in the host's own words, with braces single or doubled."""
    for draft, route in (
        ("Ada, 36", "cloud"),
        ('{"name": "Ada"}', "cloud"),
        ('{"name": "Ada", "age": "x"}', "cloud"),
        ('So: {"name": "Ada", "age": 36}', "edge"),
    ):
        llm = router(kit, draft, '{"name": "Ada", "age": 36}')
        program = LLMTextCompletionProgram.from_defaults(
            output_cls=Person, prompt_template_str="Who is {who}?", llm=llm
        )
        with record() as decisions:
            call = program.acall(who="Ada") if form == "async" else program(who="Ada")
            assert (await call if form == "async" else call) == Person(name="Ada", age=36)
        assert [one.route for one in decisions] == [route], draft
    schema = PydanticOutputParser(Person).get_format_string(escape_json=False)
    llm = router(kit, "Ada, 36", '{"name": "Ada", "age": 36}')
    assert llm.chat([ChatMessage(content=f"Who?{schema}")]).raw["model"] == "large"


def test_parsers_of_the_router_itself_and_of_a_user(kit):
    """Whatever class they are of, and where the prompt names none."""

    class Even(PydanticOutputParser):
        def parse(self, text):
            if int(text) % 2:
                raise KeyError(text)
            return int(text)

    llm = router(kit, "3", "4")
    llm.output_parser = Even(Person)
    assert llm.predict(PromptTemplate("A number?")) == "4"
    llm.output_parser = None
    assert llm.predict(PromptTemplate("A number?")) == "3"
    with record() as decisions:
        llm.predict(PromptTemplate("A number?", output_parser=Even(Person)))
    assert decisions[0].reason.startswith(
        "edge answer cannot be used: the Even parser cannot read it (KeyError)"
    )
