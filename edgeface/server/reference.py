"""The API's reference as a plain page: Swagger UI would need a CDN."""

from __future__ import annotations

from html import escape
from typing import Any

HEAD = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>edgeface API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<body class="reference">
<header><h1>edgeface API</h1><nav><a href="/">Page</a> <a href="/openapi.json">OpenAPI</a></nav>
</header>
<main>
"""
EXAMPLES = """\
<pre><code>curl --data-binary @photo.jpg {address}detect
curl -F file=@photo.jpg "{address}detect?threshold=0.7&amp;max_faces=3"</code></pre>
"""


def reference_page(schema: dict[str, Any], address: str) -> str:
    """Lay an OpenAPI schema out as HTML: each route, its parameters and its answers.

    Args:
        schema: of the application.
        address: of the server, ending with a slash.
    """
    examples = EXAMPLES.format(address=escape(address))
    routes = [
        _route(method, path, operation)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return f"{HEAD}{examples}{''.join(routes)}</main>\n</body>\n</html>\n"


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (f"?{one['name']}=", one.get("description", "")) for one in operation.get("parameters", [])
    ]
    answers = [(status, one["description"]) for status, one in operation["responses"].items()]
    title = f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    told = [operation[key] for key in ("summary", "description") if key in operation]
    summary = escape(". ".join(told))
    return (
        f"<section>{title}<p>{summary}</p>"
        f"{_rows('Parameter', parameters)}{_rows('Answer', answers)}</section>\n"
    )


def _rows(heading: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>"
        for name, text in rows
    )
    return f"<table><thead><tr><th>{heading}</th><th>Meaning</th></tr></thead>{cells}</table>"
