"""Rows that are far too long, too deep or too many."""

from __future__ import annotations

from bad_files.case import Case, asked, dumps, gpt, human, jsonl, made, pair

DEEP, BIG = 100_000, 10 << 20
A, B = dumps(pair(1)), dumps(pair(2))
LONG = "好" * (BIG // 3)


def _row(text: str) -> str:
    return dumps({"instruction": "question", "output": text})


def _turns(count: int) -> str:
    return dumps({"conversations": [human("a"), gpt("b")] * (count // 2)})


def _wide(count: int) -> str:
    return dumps({f"k{n}": n for n in range(count)})


def _broken_everywhere() -> str:
    """Every comma could begin a row, and none does."""
    return "[" + A + ',{"instruction" "x"' + ',{"instruction": [' * 50_000


CASES: dict[str, Case] = {
    "JSON 100,000 deep": Case(made(lambda: "[" * DEEP + "]" * DEEP), refused="nested too deeply"),
    "JSON 100,000 deep and not closed": Case(made(lambda: "[" * DEEP), refused="nested too deeply"),
    "objects 100,000 deep": Case(
        made(lambda: '{"a":' * DEEP + "1" + "}" * DEEP), refused="nested too deeply"
    ),
    "one line 100,000 deep": Case(
        made(lambda: f'{A}\n{{"instruction": {"[" * DEEP + "]" * DEEP}}}\n{B}\n', "d.jsonl"),
        asked(1, 2),
        [(2, "", "line 2: not valid JSON: nested too deeply")],
    ),
    "one element 100,000 deep": Case(
        made(lambda: f'[{A},\n{{"instruction": {"[" * DEEP + "]" * DEEP}}},\n{B}]'),
        asked(1, 2),
        [(2, "", "line 2: not valid JSON: nested too deeply")],
    ),
    "an answer 900 deep": Case(
        made(lambda: f'{A}\n{{"instruction": "a", "output": {"[" * 900 + "]" * 900}}}\n', "d.jsonl"),
        asked(1),
        [(2, "output", "is a list, not text")],
    ),
    "tools 100,000 deep in a text": Case(
        made(
            lambda: jsonl(
                [
                    {
                        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                        "tools": "[" * DEEP,
                    }
                ]
            ),
            "d.jsonl",
        ),
        (),
        [(1, "tools", "is not valid JSON: nested too deeply")],
    ),
    "messages 100,000 deep in a text": Case(
        made(lambda: jsonl([{"messages": '[{"role": "user", "content": ' + "[" * DEEP}]), "d.jsonl"),
        (),
        [(1, "messages", "is not valid JSON: nested too deeply")],
    ),
    "arguments 100,000 deep in a text": Case(
        made(
            lambda: jsonl(
                [
                    {
                        "messages": [
                            {"role": "user", "content": "a"},
                            {
                                "role": "assistant",
                                "content": "",
                                "tool_calls": [{"function": {"name": "f", "arguments": '{"a":' * DEEP}}],
                            },
                        ]
                    }
                ]
            ),
            "d.jsonl",
        ),
        (),
        [(1, "messages[1].tool_calls[0].function.arguments", "is not valid JSON: nested too deeply")],
    ),
    "a number of 100,000 digits": Case(
        made(lambda: f'{A}\n{{"instruction": {"9" * DEEP}, "output": "a"}}\n{B}\n', "d.jsonl"),
        asked(1, 2),
        [(2, "", "a number of thousands of digits")],
    ),
    "a number of 100,000 digits in tools": Case(
        made(
            lambda: jsonl(
                [
                    {
                        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                        "tools": "[" + "9" * DEEP + "]",
                    }
                ]
            ),
            "d.jsonl",
        ),
        (),
        [(1, "tools", "a number of thousands of digits")],
    ),
    "a row of 10 MB in jsonl": Case(
        made(lambda: f"{A}\n{_row(LONG)}\n{B}\n", "d.jsonl"), [*asked(1), ("question", LONG), *asked(2)]
    ),
    "a row of 10 MB in json": Case(
        made(lambda: f"[{A},\n{_row(LONG)},\n{B}]"), [*asked(1), ("question", LONG), *asked(2)]
    ),
    "a row of 10 MB in csv": Case(
        made(lambda: f"instruction,output\nquestion,{LONG}\n", "d.csv"), [("question", LONG)]
    ),
    "a row of 10 MB in txt": Case(
        made(lambda: f"a\n{LONG}\nb\n", "d.txt"), [("a",), (LONG,), ("b",)], stage="pt"
    ),
    "a row of 10 MB that is not JSON": Case(
        made(lambda: f"{A}\n{_row(LONG)[:-3]}\n{B}\n", "d.jsonl"),
        asked(1, 2),
        [(2, "", "Unterminated string")],
    ),
    "an array cut in a row of 10 MB": Case(
        made(lambda: f"[{A},\n{_row(LONG)[:-3]}"), asked(1), [(2, "<end of file>", "truncated at line 2")]
    ),
    "10 MB of quotes": Case(made(lambda: '"' * BIG, "d.csv"), refused=" -> "),
    "10 MB of commas": Case(
        made(lambda: "instruction,output\n" + "," * BIG + "\na,b", "d.csv"), [("a", "b")]
    ),
    "10 MB of brackets in jsonl": Case(made(lambda: "[" * BIG, "d.jsonl"), refused="nested too deeply"),
    "10 MB of braces": Case(made(lambda: f"{A}\n" + "{" * BIG, "d.jsonl"), asked(1), [(2, "", "line 2: ")]),
    "a row of a million turns": Case(
        made(lambda: f"{_turns(2)}\n{_turns(1_000_000)}\n{_turns(2)}\n", "d.jsonl"),
        [("a", "b"), ("a", "b")],
        [(2, "conversations", "1,000,000 messages")],
    ),
    "a row of 10,000 turns": Case(made(lambda: _turns(10_000), "d.jsonl"), [("a", "b") * 5000]),
    "a row of 300,000 fields": Case(
        made(lambda: f"{A}\n{_wide(300_000)}\n{B}\n", "d.jsonl"),
        asked(1, 2),
        [(2, "instruction", "missing; the row has k0, k1")],
    ),
    "a field's name of 1 MB": Case(
        made(lambda: f"{A}\n{dumps({'k' * (1 << 20): 'a'})}\n", "d.jsonl"),
        asked(1),
        [(2, "instruction", "missing; the row has kkk")],
    ),
    "a role of 1 MB": Case(
        made(
            lambda: _turns(2) + "\n" + dumps({"conversations": [{"from": "k" * (1 << 20), "value": "a"}]}),
            "d.jsonl",
        ),
        [("a", "b")],
        [(2, "conversations[0].from", 'unknown role "kkk')],
    ),
    "100,000 empty objects": Case(
        made(lambda: "{}\n" * 100_000, "d.jsonl"), refused="cannot be told from their columns (no fields)"
    ),
    "an array with 50,000 beginnings of rows": Case(
        made(_broken_everywhere), asked(1), [(2, "", "line 1: not valid JSON")]
    ),
    "50,000 rows in one line": Case(
        made(lambda: dumps([pair(n) for n in range(1, 50_001)])), asked(*range(1, 50_001))
    ),
}
