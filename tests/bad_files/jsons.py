"""JSON, JSON Lines and what is taken for them."""

from __future__ import annotations

import json

from bad_files.case import GOOD, ROWS, Case, asked, dumps, file, jsonl, made, pair

TWO = asked(1, 2)
LINES = jsonl([pair(1), pair(2)])
PRETTY = json.dumps([pair(1), pair(2)], indent=2)
ARRAY = "holds a JSON array, not JSON Lines"


def _lines(*lines: str, name: str = "d.jsonl") -> Case:
    """Rows 1 and 2 with these lines between them."""
    return Case(file(dumps(pair(1)) + "\n" + "\n".join(lines) + "\n" + dumps(pair(2)) + "\n", name), TWO)


def _between(text: str, reason: str, field: str = "", name: str = "d.jsonl") -> Case:
    """A line between two good ones that is refused alone."""
    case = _lines(text, name=name)
    return Case(case.write, TWO, [(2, field, reason)])


def _wrong_in_5001(value: str, field: str, reason: str, name: str) -> Case:
    def text() -> str:
        rows = [dumps(pair(n)) for n in range(1, 6001)]
        rows[5000] = value
        return "\n".join(rows) + "\n" if name.endswith("l") else "[" + ",\n".join(rows) + "]"

    kept = asked(*range(1, 5001), *range(5002, 6001))
    return Case(made(text, name), kept, [(5001, field, reason)])


Q = '"instruction": "question 1", '
CASES: dict[str, Case] = {
    # --- one for the other
    "JSON Lines named .json": Case(file(LINES), TWO),
    "a JSON array named .jsonl": Case(file(PRETTY, "d.jsonl"), TWO, notes=[ARRAY]),
    "a JSON array in one line named .jsonl": Case(
        file(dumps([pair(1), pair(2)]), "d.jsonl"), TWO, notes=[ARRAY]
    ),
    "one array per line": Case(
        file('[{"a": 1}]\n[{"a": 2}]\n', "d.jsonl"), refused="line 2: more text after the JSON array"
    ),
    "two arrays, one after the other": Case(
        file(dumps([pair(1)]) + "\n" + dumps([pair(2)])), refused="line 2: more text after the JSON array"
    ),
    "a CSV named .json": Case(file("instruction,output\na,b\n"), refused="begins with [ or {"),
    "a CSV named .jsonl": Case(
        file("instruction,output\na,b\n", "d.jsonl"), refused="none of its first rows"
    ),
    "YAML named .json": Case(file("- instruction: a\n  output: b\n"), refused="begins with [ or {"),
    "a web page named .json": Case(file("<!DOCTYPE html>\n<html>not found</html>"), refused="is a web page"),
    "a web page named .csv": Case(file("<html><body>a,b\n", "d.csv"), refused="is a web page"),
    "a web page named .jsonl": Case(file("\n <HTML lang=en>\n", "d.jsonl"), refused="is a web page"),
    "a Git LFS pointer": Case(
        file("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "d.jsonl"),
        refused="git lfs pull",
    ),
    "a download's error": Case(file("404: Not Found", "d.json"), refused="begins with [ or {"),
    "JavaScript named .json": Case(file("export default " + PRETTY), refused="begins with [ or {"),
    # --- not quite JSON
    "no commas between the objects of an array": Case(file(PRETTY.replace("},", "}")), TWO),
    "objects one after another in one line": Case(file(dumps(pair(1)) + dumps(pair(2))), TWO),
    "pretty-printed objects one after another": Case(
        file("".join(json.dumps(pair(n), indent=1) for n in (1, 2))), TWO
    ),
    "objects with commas and without brackets": Case(file(PRETTY[1:-1]), TWO),
    "lines that end with commas": Case(
        file(LINES.replace("\n", ",\n"), "d.jsonl"), TWO, notes=["end with commas"]
    ),
    "lines that end with commas named .json": Case(
        file(LINES.replace("\n", ",\n")), TWO, notes=["end with commas"]
    ),
    "two objects in a line": _between(
        dumps(pair(7)) + dumps(pair(8)), "more text after the JSON object: '{\"inst"
    ),
    "an array without its end": Case(
        file(PRETTY[:-2]), TWO, [(3, "<end of file>", "the file is truncated at line 9")]
    ),
    "an array without its beginning": Case(file(PRETTY[1:]), TWO, [(3, "", "line 10: a ] without its [")]),
    "a comma after the last row": Case(file(PRETTY[:-2] + ",\n]"), TWO),
    "a comma after the last field": Case(
        file(PRETTY.replace('1"\n', '1",\n')), asked(2), [(1, "", "line 5: not valid JSON: ")]
    ),
    "a comma after the last field of a line": _between("{" + Q + "}", "delete the comma before }"),
    "a comma too many": Case(file(PRETTY.replace("},", "},,")), TWO),
    "a comma too few": _between('{"instruction": "a" "output": "b"}', "Expecting ',' delimiter"),
    "a comment": _between("// the second part", "JSON has no comments"),
    "a comment after #": _between("# the second part", "JSON has no comments"),
    "a comment in an array": Case(
        file(PRETTY.replace("[", "[\n// first\n")), asked(2), [(1, "", "line 2: not valid JSON")]
    ),
    "single quotes": _between("{'instruction': 'a', 'output': 'b'}", "write keys and texts in double quotes"),
    "keys without quotes": _between(
        '{instruction: "a", output: "b"}', "write keys and texts in double quotes"
    ),
    "typographic quotes": _between("{“instruction”: “a”}", "write keys and texts in double quotes"),
    "None and True": _between("{" + Q + '"output": None}', "write null"),
    "undefined": _between("{" + Q + '"output": undefined}', "write null"),
    "a quote in a text": _between('{"instruction": "say "hi"", "output": "b"}', "Expecting ',' delimiter"),
    "a backslash in a path": _between('{"instruction": "C:\\dir", "output": "b"}', "Invalid \\escape"),
    "a line break in a text": Case(file('[{"instruction": "a\nb", "output": "c\td"}]'), [("a\nb", "c\td")]),
    "a line break in a text of a line": Case(
        file(dumps(pair(1)) + '\n{"instruction": "a\nb", "output": "c"}\n' + dumps(pair(2)), "d.jsonl"),
        TWO,
        [(2, "", "line 2: not valid JSON"), (3, "", "line 3: not valid JSON")],
    ),
    "a log line among the rows": _between("100%|####| 5/5 [00:01]", "line 2: "),
    "NaN as an answer": _between("{" + Q + '"output": NaN}', "is a number: nan, not text", "output"),
    "Infinity as an answer": _between(
        "{" + Q + '"output": -Infinity}', "is a number: -inf, not text", "output"
    ),
    "a number without end as an answer": _between(
        "{" + Q + '"output": 1e999}', "is a number: 1e999, not text", "output"
    ),
    "null as an answer": _between("{" + Q + '"output": null}', "empty answer", "output"),
    "numbers as they are written": Case(
        file(
            "\n".join(
                "{" + Q + f'"output": {n}}}' for n in ("7", "1.10", "0.1000000000000000055", "1E3", "-0.0")
            ),
            "d.jsonl",
        ),
        [("question 1", n) for n in ("7", "1.10", "0.1000000000000000055", "1E3", "-0.0")],
    ),
    "a number with a zero before it": _between("{" + Q + '"output": 00123}', "Expecting ',' delimiter"),
    "digits in a text": Case(
        file('[{"instruction": "00123", "output": "1,234.50"}]'), [("00123", "1,234.50")]
    ),
    "a key twice with two values": _between(
        '{"instruction": "a", "output": "b", "output": "c"}', "the key is given twice", "output"
    ),
    "a key twice in an array": Case(
        file('[{"instruction": "a", "instruction": "b", "output": "c"}, ' + dumps(pair(2)) + "]"),
        asked(2),
        [(1, "instruction", "the key is given twice")],
    ),
    "a key twice in a message": Case(
        file(
            '{"messages": [{"role": "user", "role": "assistant", "content": "a"}]}\n'
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
            "d.jsonl",
        ),
        [("a", "b")],
        [(1, "role", "the key is given twice")],
    ),
    "a key twice with one value": Case(
        file('{"instruction": "a", "output": "b", "output": "b"}', "d.jsonl"), [("a", "b")]
    ),
    "half of an emoji": _between("{" + Q + '"output": "\\ud83d"}', "half of a surrogate pair", "output"),
    "an emoji as two escapes": Case(
        file('[{"instruction": "a", "output": "\\ud83d\\ude00"}]'), [("a", "😀")]
    ),
    "an escaped NUL": Case(file('[{"instruction": "a", "output": "b\\u0000"}]'), [("a", "b\0")]),
    "keys with half of an emoji": _between('{"\\ud83d": "a"}', "missing; the row has \\ud83d", "instruction"),
    "keys that are a terminal's commands": _between(
        '{"\\u001b[2J": "a"}', "the row has \\x1b[2J", "instruction"
    ),
    "U+2028 in a text": Case(
        file('{"instruction": "a\u2028b", "output": "c\x85d\x0ce"}\n', "d.jsonl"),
        [("a\u2028b", "c\x85d\x0ce")],
    ),
    # --- ends of lines and of the file
    "CR LF": Case(file(LINES.replace("\n", "\r\n"), "d.jsonl"), TWO),
    "CR alone": Case(file(LINES.replace("\n", "\r"), "d.jsonl"), TWO),
    "no end of the last line": Case(file(LINES.rstrip(), "d.jsonl"), TWO),
    "blank lines": _lines("", "  ", "\t", ""),
    "a last line that is cut": Case(
        file(LINES[:-9], "d.jsonl"), asked(1), [(2, "<end of file>", "truncated at line 2")]
    ),
    "an array cut in row 2": Case(
        file(PRETTY[:-12]), asked(1), [(2, "<end of file>", "truncated at line 8: the JSON array")]
    ),
    "text after the array": Case(file(PRETTY + "\nEOF\n"), refused="line 11: more text after the JSON array"),
    # --- no rows, and rows that are none
    "an empty file": Case(file(""), refused="the file is empty"),
    "an empty .jsonl": Case(file("", "d.jsonl"), refused="the file is empty"),
    "only a byte order mark": Case(file("\ufeff"), refused="holds no rows"),
    "only white space": Case(file(" \n\t\n "), refused="holds no rows"),
    "only []": Case(file("[]"), refused="holds no rows"),
    "only {}": Case(file("{}"), refused="cannot be told from their columns (no fields)"),
    "only null": Case(file("null"), refused="begins with [ or {"),
    "only a text": Case(file('"rows"'), refused="begins with [ or {"),
    "only []in .jsonl": Case(file("[]\n", "d.jsonl"), refused="holds no rows"),
    "a null line": _between("null", "the row is null, not an object"),
    "a line that is a list": _between('["a", "b"]', "the row is a list, not an object"),
    "a line that is a number": _between("3", "the row is a number: 3, not an object"),
    "a line that is JSON in JSON": _between(
        dumps(dumps(pair(1))), "missing; the row has text", "instruction"
    ),
    "an array in an array": Case(
        file(dumps([[pair(1), pair(2)]])), refused="the row is a list, not an object"
    ),
    "an array of pairs": Case(file('[["a", "b"], ["c", "d"]]'), refused="the row is a list, not an object"),
    "an array of texts, for training on answers": Case(
        file('["a", "b"]'), refused="plain text without answers"
    ),
    "an array of texts": Case(file('["a", "b"]'), [("a",), ("b",)], stage="pt"),
    # --- rows inside of an object
    'an object with "data"': Case(
        file(dumps({"data": [pair(1), pair(2)]})), TWO, notes=['the list under "data"']
    ),
    'an object with "data" and a long description': Case(
        file(json.dumps({"license": "x" * 500, "data": [pair(1), pair(2)]}, indent=1)),
        refused="cannot be told from their columns (license, data)",
    ),
    'an object with "data" that is empty': Case(
        file('{"data": []}'), refused="cannot be told from their columns"
    ),
    "an object with two lists": Case(
        file(dumps({"train": [pair(1)], "test": [pair(2)]})),
        refused='several lists of rows ("train", "test")',
    ),
    "an object of columns": Case(
        file(dumps({"instruction": ["a", "b"], "output": ["c", "d"]})),
        (),
        [(1, "instruction", "is a list, not text")],
    ),
    "an object of columns by number": Case(
        file(dumps({"instruction": {"0": "a"}, "output": {"0": "c"}})),
        (),
        [(1, "instruction", "is an object, not text")],
    ),
    "an object of rows by number": Case(
        file(dumps({"0": pair(1), "1": pair(2)})), refused="cannot be told from their columns (0, 1)"
    ),
    "one conversation": Case(
        file(
            dumps(
                {
                    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                    "tools": [],
                }
            )
        ),
        [("a", "b")],
    ),
    # --- far into the file
    "a wrong type in row 5,001 of jsonl": _wrong_in_5001(
        '{"instruction": "a", "output": {"text": "b"}}', "output", "is an object, not text", "d.jsonl"
    ),
    "a wrong type in row 5,001 of json": _wrong_in_5001(
        '{"instruction": "a", "output": true}', "output", "is true or false: True, not text", "d.json"
    ),
    "a broken row 5,001 of json": _wrong_in_5001(
        '{"instruction": "a", "output" "b"}', "", "line 5001: not valid", "d.json"
    ),
    "a missing field in row 5,001 of json": _wrong_in_5001(
        '{"instruction": "a", "outptu": "b"}', "output", 'missing; did you mean "outptu"?', "d.json"
    ),
    "rows in Chinese, indented, with CR LF": Case(
        file(json.dumps(ROWS, indent=1, ensure_ascii=False).replace("\n", "\r\n")), GOOD
    ),
}
