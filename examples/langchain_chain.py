"""A LangChain chain before and after: the chain stays as it is, the router stands where one model was."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from confroute import Cascade, TokenLogprob, record
from langchain_confroute import ChatConfRoute, ChatLocal

QUESTIONS = ("What is the capital of France?", "What is 17 * 23?", "Which planet is the largest?")

prompt = ChatPromptTemplate.from_messages(
    [("system", "Answer in one short sentence."), ("human", "{question}")]
)
large = ChatLocal(model="qwen2.5-coder-1.5b", max_tokens=24)
small = ChatLocal(model="qwen2.5-coder-0.5b", max_tokens=256)

before = prompt | large | StrOutputParser()

router = ChatConfRoute(edge=small, cloud=large, policy=Cascade.of(TokenLogprob(), 0.25))
after = prompt | router | StrOutputParser()

if __name__ == "__main__":
    print("before:", before.invoke({"question": QUESTIONS[0]}))
    with record() as decisions:
        for question in QUESTIONS:
            print(f"after: {question} {after.invoke({'question': question})}")
    for question, decision in zip(QUESTIONS, decisions, strict=True):
        print(f"{decision.route}: {question} ({decision.reason})")
