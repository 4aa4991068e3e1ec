"""The HTML that the frontend returns. PURE; everything that came from outside is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from examples.shakespeare.texts import ATTRIBUTION

_STYLE = """
body{font:17px/1.5 Georgia,serif;max-width:44em;margin:2em auto;padding:0 1em;color:#222}
h1{font-weight:normal}h1 a{color:inherit;text-decoration:none}
input{font:inherit;padding:.3em .5em;width:60%}button{font:inherit;padding:.3em 1em}
li{margin:.2em 0}.work{color:#777;font-size:.8em;margin-left:.6em}mark{background:#ffe9a8}
footer{margin-top:3em;color:#888;font-size:.75em;border-top:1px solid #ddd;padding-top:.6em}
"""
_LESS = "Very many ask just now, so only some of the lines are shown. Try again in a minute for more."


@dataclass(frozen=True, slots=True)
class Hit:
    """One line to show."""

    work: str
    line_number: int
    line: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was found for a word; `degraded`: there are more lines, but not now."""

    word: str
    total: int
    hits: Sequence[Hit]
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Which tasks had a hand in a page: their BNS names, and the request's trace id."""

    frontend: str
    backend: str
    trace_id: str


def search_page(found: Result, served_by: ServedBy) -> str:
    """What was found for a word."""
    items = "\n".join(
        f'<li data-work="{escape(hit.work)}" data-line="{hit.line_number}">{_marked(hit.line, found.word)}'
        f'<span class="work">{escape(hit.work.replace("_", " "))}, line {hit.line_number}</span></li>'
        for hit in found.hits
    )
    less = f'<p id="degraded">{_LESS}</p>' if found.degraded else ""
    body = (
        f'<p id="total" data-total="{found.total}"><b>{escape(found.word)}</b>: {found.total} occurrences</p>{less}'
        f"<ol>{items}</ol>"
    )
    return _page(found.word, body, served_by)


def home_page(served_by: ServedBy) -> str:
    """The empty form."""
    examples = " ".join(
        f'<a href="/search?q={quote(word)}">{word}</a>' for word in ("dagger", "rose", "tempest", "o'er")
    )
    return _page("", f"<p>Every line that Shakespeare wrote with a word of yours. Try {examples}.</p>", served_by)


def message_page(message: str, served_by: ServedBy) -> str:
    """Why there is no result, or what went wrong."""
    return _page("", f"<p>{escape(message)}</p>", served_by)


def _marked(line: str, word: str) -> str:
    at = line.lower().find(word)
    if at < 0:
        return escape(line)
    end = at + len(word)
    return f"{escape(line[:at])}<mark>{escape(line[at:end])}</mark>{escape(line[end:])}"


def _page(word: str, body: str, served_by: ServedBy) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Shakespeare</title><style>{_STYLE}</style></head>'
        '<body><h1><a href="/">Shakespeare, word by word</a></h1>'
        f'<form action="/search"><input name="q" value="{escape(word)}" autofocus> <button>Search</button></form>{body}'
        f"<footer>{escape(ATTRIBUTION)}<br>frontend {escape(served_by.frontend)}, backend {escape(served_by.backend or '-')}, "
        f"trace {escape(served_by.trace_id)}</footer></body></html>\n"
    )
