"""Plain values as HTML tables, for status pages. PURE."""

import html
from collections.abc import Mapping


def html_of(value: object) -> str:
    """Nested mappings and lists of mappings as tables; everything is escaped."""
    if isinstance(value, Mapping):
        rows = "".join(f"<tr><th>{html.escape(str(k))}</th><td>{html_of(v)}</td></tr>" for k, v in value.items())
        return f"<table>{rows}</table>"
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        columns = list(dict.fromkeys(key for item in value for key in item))
        head = "".join(f"<th>{html.escape(str(column))}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html_of(item.get(column, ''))}</td>" for column in columns) + "</tr>"
            for item in value
        )
        return f"<table><tr>{head}</tr>{body}</table>"
    if isinstance(value, list | tuple):
        return "<br>".join(html_of(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(str(value))
