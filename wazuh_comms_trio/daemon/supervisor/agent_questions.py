"""What all workers know of one agent: each is asked, and what they say is put together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import trio
from attrs import define, field

from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link
from wazuh_comms_trio.daemon.supervisor.messages import JsonObject

__all__ = ["AgentQuestions"]


@define(eq=False)
class _Question:
    open: int
    documents: list[JsonObject] = field(factory=list)
    answered: trio.Event = field(factory=trio.Event)


class AgentQuestions:
    def __init__(self) -> None:
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}

    async def ask(self, agent_id: str, links: Iterable[Link], limit: float) -> list[JsonObject]:
        """The answers that came within ``limit`` seconds; a worker that hangs, or of an older version, gives none."""
        asked = list(links)
        number = next(self._numbers)
        question = self._questions[number] = _Question(len(asked))
        try:
            for link in asked:
                link.send_nowait(messages.AgentQuestion(number=number, agent=agent_id))
            with trio.move_on_after(limit):
                if asked:
                    await question.answered.wait()
            return question.documents
        finally:
            del self._questions[number]

    def handle(self, answer: messages.AgentAnswer) -> None:
        question = self._questions.get(answer.number)
        if question is not None:  # else it comes too late
            question.documents.append(answer.document)
            question.open -= 1
            if not question.open:
                question.answered.set()
