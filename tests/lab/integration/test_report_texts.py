"""Texts on the report in Chromium: conversations, values, markdown, mathematics; and nothing of them runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.plugins.records import Record, StoredScore
from verl_lite.plugins.rollout import Turn

Rows = list[dict[str, Any]]
Make = Callable[..., Any]
Page = Any

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "</script><script>window.hacked = 1</script>",
    "<!--<script>", "{{payload}} {{scripts}}", "javascript:window.hacked=1", "\u202eright to left", "a\x00b",
    "[x](javascript:window.hacked=1) ![x](http://127.0.0.1/x.png) <http://127.0.0.1/> <b onclick=x>b</b>",
    r"\(\href{javascript:window.hacked=1}{x} \includegraphics{http://127.0.0.1/x.png} \class{row}{y}\)",
    r"$\def\a{\a\a}\a$ $\gdef\x{\x}\x$ \[\rule{9999em}{9999em}\] \(\label{list}\tag{1} \htmlId{detail}{z}\)",
    "```html\n</pre><img src=x onerror='window.hacked=1'>\n```",
    "```__proto__\nx\n```", "```constructor\nx\n```",
    ">" * 4_000, "- " * 1_500 + "deep", "[" * 4_000, "*a " * 1_500, "$" * 4_001, "\\boxed{" * 700,
    "|a|\n|-|\n" + "|`" * 1_000, "<think>" * 500 + "</think>", "a_" * 2_000, "\\[" * 2_000, "> - " * 50_000,
    "&lt;script&gt;", "__proto__", "constructor",
]  # fmt: skip


def conversation(record: Make) -> Record:
    call: Any = {
        "id": "c1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1, "code": "x\\ny"}'},
    }
    broken: Any = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{no json"}}
    turns = [
        Turn(role="assistant", content="I call it.", tool_calls=[call, broken], start=0, end=3, seconds=0.5),
        Turn(role="tool", content="3", tool_call_id="c1", name="add", start=3, end=5),
        Turn(role="tool", content="not JSON", tool_call_id="c2", outcome="malformed", start=5, end=6),
        Turn(role="assistant", content="<think>hm</think>\nIt is **3**: $x_1=3$", start=6, end=9),
    ]
    return record(
        0, turns[-1].content, turns=turns,
        prompt=[{"role": "system", "content": "s"}, {"role": "user", "content": "1+2?"}],
        completion_ids=range(9), logprobs=[-0.5] * 3 + [0.0] * 3 + [-2.0] * 3,
        components={"steps": StoredScore(value=0.0, outcome="ok", steps=[
            {"start": 0, "end": 17, "value": -1.0, "unit": "char"},
            {"start": 18, "end": 26, "value": 0.5, "unit": "char"},
        ]), "calls": StoredScore(value=0.0, outcome="ok", steps=[
            {"start": 0, "end": 2, "value": 0.25, "unit": "turn"},
        ])},
    )  # fmt: skip


def test_turns_tool_calls_and_roles_are_a_conversation(
    report: Page, record: Make, page_of: Make, tmp_path: Path
) -> None:
    report.load(page_of([conversation(record)], tmp_path / "r.html"))
    assert report.all(".message .role") == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert report.all(".call h5") == ["calls add c1", "calls add c2"]
    assert report.all(".argument") == ["a\n1", "code\nx\ny"]
    assert "{no json" in report.text(".call:last-child")
    assert report.all(".message .badge.bad") == ["malformed"]
    assert report.all(".message .badge:not(.bad)") == ["calls 0.25"] * 2
    assert report.text(".thinking").split("\n") == ["thinking", "hm"]
    assert report.text("#completion strong") == "3"
    assert report.run("return document.querySelector('#completion math msub') !== null")
    assert report.go(text="no json").listed() == ["row-0"]  # the search reads turns too


def test_values_per_step_and_per_token_colour_the_text(
    report: Page, record: Make, page_of: Make, tmp_path: Path
) -> None:
    texts = {str(token): f"t{token}" for token in range(9)}
    report.load(page_of([conversation(record)], tmp_path / "r.html", token_texts=texts), "#show=text")
    heats = """return [...document.querySelectorAll(arguments[0])].map((node) => [
        node.className, node.style.getPropertyValue("--heat"), node.textContent])"""
    assert report.run(heats, "#completion .heat") == [
        ["heat low", "60%", "<think>hm</think>"], ["heat high", "30%", "It is **"],
    ]  # fmt: skip
    report.go(show="tokens")
    report.wait("return document.querySelectorAll('.tokens .heat').length === 9")
    found = report.run(heats, ".tokens .heat")
    assert found[0] == ["heat low", "15%", "t0"]
    assert found[8] == ["heat low", "60%", "t8"]
    assert report.all(".tokens .turn") == ["assistant", "tool", "tool", "assistant"]


RENDERED = [  # text, an element in it, the words of that
    ("**bold** and `code`", "strong", "bold"),
    ("# Head\ntext", "[role=heading]", "Head"),
    ("- one\n- two", "li:last-child", "two"),
    ("| a | b |\n|---|---|\n| 1 | 2 |", "td:last-child", "2"),
    ("```python\ndef f(): return 1\n```", ".code-keyword", "def"),
    ('~~~json\n{"a": true}\n~~~', ".code-boolean", "true"),
    (r"so \(\frac{1}{2}\)", "mfrac", "1 2"),
    (r"so \[\sqrt{2}\] then", "div.math msqrt", "2"),
    ("so $$x^2$$ then", "msup", "x 2"),
    (r"is \boxed{\frac{3}{4}}.", "mfrac", "3 4"),
    (r"\begin{align}a&=1\\b&=2\end{align}", "mtable", None),
    (r"a $x$ b", "math", "x"),
    (r"with $2x = \text{two words here}$", "mtext", None),
    (r"is $10 \bmod n$", "math", None),
    ("*italic* words", "em", "italic"),
]
PLAIN = [  # what markdown could take for its own
    "16*7=112 and 112*2=224", "costs $5 and $6 more", "she has ~5 and ~6", "<<16-3=13>>13", "a_b_c is a name",
    "1 < 2 and 3 > 2", "<b>not bold</b>", "&lt;", "$80,000 + $50,000", "f(x)*g(x)*h(x)", "snake_case_name",
    "so $400=$<<80*5=400>>400", "$5 each so he paid 500*$5 each", "cost 80$ and the repairs cost 50$ more",
    "$.5 each so he paid 500*.5=$<<500*.5=250.0>>250",
]  # fmt: skip


def test_markdown_mathematics_and_code_are_rendered(
    report: Page, record: Make, page_of: Make, tmp_path: Path
) -> None:
    texts = [text for text, _, _ in RENDERED] + PLAIN
    report.load(page_of([record(at, text) for at, text in enumerate(texts)], tmp_path / "r.html"))
    for at, (_, selector, said) in enumerate(RENDERED):
        report.go(row=str(at))
        found = report.text(f"#completion {selector}")
        assert said is None or found.split() == said.split()
    for at, text in enumerate(PLAIN, start=len(RENDERED)):
        assert report.go(row=str(at)).text("#completion") == text


def test_nothing_in_a_rollout_can_run(report: Page, record: Make, page_of: Make, tmp_path: Path) -> None:
    def hostile(at: int, text: str) -> Record:
        call: Any = {"id": text, "function": {"name": text, "arguments": json.dumps({text: text})}}
        turns = [
            Turn(role=text, content=text, tool_calls=[call], name=text, tool_call_id=text),  # type: ignore[arg-type]
            Turn(role="assistant", content=text),
        ]
        score = StoredScore(value=0.5, outcome=text, reason=text, details={"extracted": text, text: text})
        return record(
            at, text, prompt=[{"role": text, "content": text}], reference=text, finish_reason=text,
            turns=turns, columns={text[:300]: text}, components={text[:300]: score, "correct": score},
            dropped_because=text,
        )  # fmt: skip

    records = [hostile(at, text) for at, text in enumerate(HOSTILE)]
    components = {name: name for one in records for name in one.components}
    path = page_of(records, tmp_path / "r.html", title=HOSTILE[0] + "{{head}}", components=components)
    report.load(path)
    for show in ("text", "rendered"):
        for row, text in enumerate(HOSTILE):
            report.go(show=show, row=str(row))
            report.wait(
                "return report.browser.detail.row === arguments[0] && document.getElementById('completion')",
                row,
            )
            if show == "text":
                assert report.run("return document.getElementById('completion').textContent") == text
    report.go(pane="group", layout="table", text="<")
    report.click("#f-columns")
    report.run(
        "for (const d of document.querySelectorAll('#columns details')) d.open = true;"
        "location.hash = '#view=charts'"
    )
    report.wait("return document.body.dataset.view === 'charts'")
    assert report.run("return window.hacked") is None
    assert (
        report.run(
            "return document.querySelectorAll('script, img, iframe, object, embed, base, link').length"
        )
        == 1
    )
    inert = """return [...document.querySelectorAll("main *")].filter((node) => (
        node.namespaceURI.includes("MathML") && (node.id || node.getAttribute("href"))
        || node.localName === "a" && !String(node.getAttribute("href")).startsWith("#")
        || [...node.attributes].some((one) => one.name.startsWith("on")))).length"""
    assert report.run(inert) == 0
    assert report.errors() == []


def test_the_policy_allows_only_the_page_s_own_script_and_style(
    report: Page, record: Make, page_of: Make, tmp_path: Path
) -> None:
    report.load(page_of([record(0, "x")], tmp_path / "r.html"))
    report.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s);"
        "const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
        'const text = \'<p style="color: red" onclick="hacked = 1">x</p>\';'
        "document.body.insertAdjacentHTML('beforeend', text);"
        "document.body.lastChild.click();"
    )
    assert report.run("return window.hacked") is None
    assert report.run("return getComputedStyle(document.body.lastChild).color") != "rgb(255, 0, 0)"
    assert len(report.errors()) >= 3


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (420, 900)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_readable_wide_and_narrow_in_both_themes(
    report: Page, scored: Make, sums: Rows, tmp_path: Path, theme: str, width: int, height: int
) -> None:
    report.open(scored(sums))
    report.picture(tmp_path / "rollouts.png", width=width, height=height, theme=theme)
    script = """const luminance = (text) => {
          const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
          const [r, g, b] = parts.map((p) => (p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (node) => {
          for (let at = node; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (colour.startsWith("rgb(")) return colour;
          }
          return "rgb(255, 255, 255)";
        };
        const texts = [...document.querySelectorAll("main *")].filter((node) => (
          node.offsetParent && [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim())));
        return texts.map((node) => {
          const pair = [luminance(getComputedStyle(node).color), luminance(behind(node))];
          return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), node.textContent.slice(0, 40)];
        }).filter(([contrast]) => contrast < 4.5)"""
    assert report.run(script) == []  # WCAG AA for every text on the page
    for view in ("rollouts", "charts"):
        report.run("location.hash = `#view=${arguments[0]}`", view)
        report.wait("return document.body.dataset.view === arguments[0]", view)
        assert report.run("return document.documentElement.scrollWidth <= window.innerWidth"), view
    report.picture(tmp_path / "charts.png", width=width, height=height, theme=theme)
    if width < 900:
        report.run("location.hash = '#'")
        report.click("#list .row")
        assert report.driver.find_element("id", "detail").is_displayed()
        report.picture(tmp_path / "row.png", width=width, height=height, theme=theme)
        report.click(".back")
        assert not report.driver.find_element("id", "detail").is_displayed()
