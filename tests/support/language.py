"""Find breaches of the language rules that a machine can hold (CONTRIBUTING.md), in code and documents.

python tests/support/language.py [PATH …]     the breaches in these paths, one a line; exit 1 if there are any
breaches(path) -> list of (line, kind of text, the rule, the text that breaks it)
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CODE = ("serve", "batch", "archive", "model_store", "cli", "client", "pages", "resight.py")
DOCUMENTS = ("docs", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/gpu.md")
MOST_WORDS = 25
OPENINGS = (
    "Of|As|Whether|What|Who|Whose|Whom|Those|That|Likewise|The same|So many|So much|So|How|When|Where|Which"
    "|If|In|By|From|With|Without|Until|Not|No|Nothing|Everything|Anything|All that|Is|Are|Has|Have|Does|Do|Can"
)
"""First words that a docstring must not have: it begins with a verb or a noun."""
WORDS = {
    r"\b(says?|said|saying)\b": "a machine reports, returns or states",
    r"\b(tells?|told|telling)\b": "a machine reports, notifies or returns",
    r"\b(hears?|heard|hearing)\b": "a machine receives or is notified",
    r"\b(asks?|asked|asking)\b": "a machine requests or queries",
    r"\b(knows?|known|knowing|knew)\b": "a machine has, finds, supports or recognises",
    r"\b(whoever|whatever|whichever|wherever|whenever)\b": "name the subject, or use any/every",
    r"\b(whom|whose)\b": "name the subject",
    r"\b(nobody|somebody|everybody|anybody)\b": "no request, a process, every user: name it",
    r"\banew\b": "again",
    r"\bbesides?\b": "also, next to, apart from",
    r"\bbut for\b": "except",
    r"\bshall\b": "must",
    r"\b(meanwhile|by now|at work|under way|is away|goes on|went on|go on)\b": "currently, running, continues",
    r"\bso (many|much)\b": "the number",
    r"\bas (many|much) as\b": "up to N, equal to",
    r"\b(is|are|was) no (?!longer|more\b)": "is not a, invalid, unknown",
    r"\b(has|have) (not|no) (the|a|an)\b": "lacks, without",
    r"\bof its own\b": "its own X, a separate X",
    r"\bdone with\b": "finished",
    r"\b(thereof|therein|thereby|hence|whence|whither|hither|henceforth|lest)\b": "plain words",
    r"\bmay not\b": "must not, or might not",
}
"""Words that no text has, and what to write instead."""
DOCUMENT_WORDS = {
    pattern: words
    for pattern, words in WORDS.items()
    if not re.search("says|tells|hears|asks|knows|nobody|may not|whoever|whose", pattern)
}
"""In a document, people also say, ask and know."""
REMARKS = {".js": r"(?:^|\s)//[ ]?(.*)$|/\*\*?((?:.|\n)*?)\*/", ".html": r"\{#((?:.|\n)*?)#\}", ".sql": r"--[ ]?(.*)$"}
"""Comments of scripts, templates and statements, each read by itself."""
RAISED_WORDS = {"raise", "refuse", "problem", "die", "fail"}


class Breach(NamedTuple):
    line: int
    kind: str
    rule: str
    text: str


class Text(NamedTuple):
    line: int
    kind: str
    words: str


def main() -> int:
    named = [Path(word) for word in sys.argv[1:]] or [ROOT / name for name in (*CODE, *DOCUMENTS)]
    files = [file for path in named for file in files_of(path)]
    found = [(file, breach) for file in files for breach in breaches(file)]
    for file, (line, kind, rule, text) in found:
        print(f"{file}:{line}: {kind}: {rule}: {text}")
    print(f"{len(found)} breaches in {len(files)} files", file=sys.stderr)
    return 1 if found else 0


def breaches(path: Path) -> list[Breach]:
    """Return the breaches in a file of Python or Markdown, or in the comments of one of REMARKS."""
    source = path.read_text()
    if path.suffix in REMARKS:
        texts = _remarks(source, REMARKS[path.suffix])
    else:
        texts = _markdown(source) if path.suffix == ".md" else _python(source)
    words = DOCUMENT_WORDS if path.suffix == ".md" else WORDS
    return sorted(breach for text in texts for breach in _judged(text, words))


def files_of(path: Path) -> list[Path]:
    """Return the files below a folder that have texts, or the file itself."""
    kinds = {".py", ".md", *REMARKS}
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in kinds)


def _judged(text: Text, words: dict[str, str]) -> Iterator[Breach]:
    plain = re.sub(r"`[^`]*`", "CODE", text.words)
    if text.kind == "docstring" and (first := re.match(rf"({OPENINGS})\b(?!:)", plain)):
        yield Breach(text.line, text.kind, "begin with a verb or a noun", first[0] + " …")
    for pattern, instead in words.items():
        for match in re.finditer(pattern, plain, re.IGNORECASE):
            around = plain[max(0, match.start() - 30) : match.end() + 30].replace("\n", " ")
            yield Breach(text.line, text.kind, f"'{match[0]}': {instead}", around)
    if text.kind != "error":
        prose = re.sub(r"^.*->.*$", "\n", plain, flags=re.MULTILINE)  # signatures are no sentences
        for sentence in re.split(r"(?<=[.;:!?])\s|\n\s*\n|\n(?=\s*[-*|#\d>])|\n(?= {2,})|  +", prose):
            if (count := len(re.findall(r"[\w'-]*[A-Za-z][\w'-]*", sentence))) > MOST_WORDS:
                start = " ".join(sentence.split()[:6])
                yield Breach(text.line, text.kind, f"{count} words in a sentence", start + " …")


def _python(source: str) -> Iterator[Text]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Expr(value=ast.Constant(value=str(words))):
                    yield Text(child.lineno, "docstring", words)
        match node:
            case ast.Raise(exc=ast.Call(args=arguments)):
                for argument in arguments:
                    yield from _strings(argument, "error")
            case ast.keyword(arg="help" | "description" | "epilog", value=value):
                yield from _strings(value, "help")
    yield from _comments(source)


def _comments(source: str) -> Iterator[Text]:
    """Yield runs of comment lines, each as one text."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("# ")
        if block and token.start[0] == last + 1:
            block.append(words)
        else:
            if block:
                yield Text(first, "comment", "\n".join(block))
            block, first = [words], token.start[0]
        last = token.start[0]
    if block:
        yield Text(first, "comment", "\n".join(block))


def _remarks(source: str, pattern: str) -> Iterator[Text]:
    for match in re.finditer(pattern, source, re.MULTILINE):
        line = source.count("\n", 0, match.start()) + 1
        yield Text(line, "comment", "".join(filter(None, match.groups())).strip())


def _strings(node: ast.expr, kind: str) -> Iterator[Text]:
    match node:
        case ast.Constant(value=str(words)):
            yield Text(node.lineno, kind, words)
        case ast.JoinedStr(values=values):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in values]
            yield Text(node.lineno, kind, "".join(map(str, parts)))
        case _:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    yield from _strings(child, kind)


def _markdown(source: str) -> Iterator[Text]:
    """Yield paragraphs, without code blocks."""
    line = 1
    for i, part in enumerate(source.split("```")):
        if i % 2 == 0:
            at = line
            for paragraph in re.split(r"(\n\s*\n)", part):
                if paragraph.strip():
                    words = re.sub(r"\]\([^)]*\)", "]", paragraph)
                    kind = "table" if paragraph.lstrip().startswith("|") else "document"
                    yield Text(at, kind, words if kind == "document" else words.replace("|", "\n- "))
                at += paragraph.count("\n")
        line += part.count("\n")


if __name__ == "__main__":
    sys.exit(main())
