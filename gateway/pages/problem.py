"""Error page and front page."""

from __future__ import annotations

from html import escape

from gateway.errors import Problem, phrase
from gateway.pages.layout import HEAD, TAIL


def problem_page(problem: Problem, phase: str, request_id: str) -> bytes:
    """Render an error for a person in a browser."""
    title = f"{problem.status} {phrase(problem.status)}"
    hint = f"<p>{escape(problem.hint)}</p>\n" if problem.hint else ""
    retry = problem.headers.get("Retry-After")
    later = f"<p>It may be had later: this page can be tried again in {escape(retry)} s.</p>\n" if retry else ""
    return (
        f'{HEAD}<title>{title}</title>\n</head>\n<body class="problem">\n'
        f'<h1><span class="code">{problem.status}</span> {escape(phrase(problem.status))}</h1>\n'
        f"<p>{escape(problem.detail)}</p>\n{hint}{later}"
        f"<dl><dt>phase</dt><dd>{escape(phase)}</dd><dt>request</dt><dd>{escape(request_id)}</dd></dl>\n{TAIL}"
    ).encode("utf-8", "replace")


FRONT_PAGE = (
    f'{HEAD}<title>FungiStor gateway</title>\n</head>\n<body class="problem">\n<h1>FungiStor gateway</h1>\n'
    "<p>This is an IPFS HTTP gateway. It serves what its own network holds, by CID.</p>\n"
    '<form action="/ipfs/"><input name="uri" placeholder="ipfs://CID" aria-label="CID or ipfs:// address" required '
    f'autocomplete="off" spellcheck="false"><button>Open</button></form>\n{TAIL}'
).encode()
