"""sharegpt and OpenAI rows: a list of messages. The two differ only in the names that their tags default to.

Nothing is added to what the file says: no system prompt is written, extended or replaced.
"""

from __future__ import annotations

from luthier.data.formats.fields import PROMPT_ONLY, Fields, RowProblem, finish, prompt_only, text_example
from luthier.data.formats.messages import check_order, read_messages
from luthier.data.formats.pairs import endings
from luthier.types import Example, Message


def convert(fields: Fields) -> Example:
    """A row of messages. In pre-training only the first turn's text is read, as LLaMA-Factory does."""
    fields.refuse_media()
    where = str(fields.name("messages"))
    if fields.spec.ranking and not fields.name("messages"):
        branches, trunk = endings(fields, [])
        return finish(fields, trunk, branches)
    messages = read_messages(fields, fields.need("messages"), where)
    if fields.stage == "pt":
        turns = [message for message in messages if message.role != "system"]
        return text_example(turns[0].content if turns else "", where, fields.source)
    asks = fields.spec.ranking or (fields.stage in PROMPT_ONLY and messages[-1].role != "assistant")
    check_order(fields, messages, where, ends_with_answer=not asks)
    if fields.spec.ranking:
        branches, trunk = endings(fields, _with_system(fields, messages))
        return finish(fields, trunk, branches)
    if asks:
        return prompt_only(fields, _with_system(fields, messages))
    _refuse_empty_answers(fields, messages, where)
    return finish(fields, _with_system(fields, messages[:-1]), [(messages[-1],)])


def _with_system(fields: Fields, messages: list[Message]) -> list[Message]:
    """The messages; the system column's text stands first when they bring no system message themselves."""
    if messages[0].role == "system":
        return messages if messages[0].content else messages[1:]
    system = fields.column_text("system")
    return [Message("system", system), *messages] if system else messages


def _refuse_empty_answers(fields: Fields, messages: list[Message], where: str) -> None:
    for place, message in enumerate(messages):
        silent = message.role == "assistant" and not message.content.strip() and not message.tool_calls
        if silent and (message.train > 0 or place == len(messages) - 1):
            raise RowProblem(f"{where}[{place}].{fields.spec.tags.get('content_tag')}", "empty answer")
