"""Hooks of MkDocs: files of the repository that pages link to, and pages that lie at its top, become part of the site."""

from __future__ import annotations

import posixpath
import re
import sys
from importlib import import_module
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parents[1]
REPOSITORY = DOCS.parent
sys.path.insert(0, str(Path(__file__).parent))
from commands import reference  # noqa: E402

PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}  # at the top of the repository -> in the site
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)([^)]*\))")
COMMANDS = re.compile(r"^<!-- commands of ([\w.]+) as (\w+) -->$", re.MULTILINE)
FUNCTIONS = re.compile(r"^<!-- functions of ([\w/.]+) -->$", re.MULTILINE)
CODE = re.compile(r"(?<!</span>)<code>([^<]+)</code>")  # of a line; that of a block follows an empty span
NAMES = re.compile(r"^<!-- names of (\w+) -->$", re.MULTILINE)


def math(source: str, language: str, css_class: str, options: dict, md: object, **kwargs: object) -> str:
    """Return a fenced block of LaTeX, which GitHub draws, as MathML, which browsers draw without a script."""
    formulas = [part.strip() for part in source.split("\n\n") if part.strip()]
    return "".join(f'<div class="{css_class}">{convert(formula, display="block")}</div>' for formula in formulas)


def on_config(config):
    """Make blocks of LaTeX formulas."""
    fence = {"name": "math", "class": "math", "format": math}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def names_of(match: re.Match[str]) -> str:
    """Return the directives that document a package's public names, by the module that each lives in."""
    package = import_module(match[1])
    homes: dict[str, list[str]] = {}
    for name in sorted(package.__all__, key=str.lower):
        home = package._HOME.get(name, package._MODULES.get(name) if hasattr(package, "_MODULES") else None)
        homes.setdefault(home or "", []).append(name)
    parts = []
    for home, names in sorted(homes.items()):
        parts.append(f"## `{match[1]}.{home}`" if home else f"## `{match[1]}`")
        parts += [f"::: {match[1]}.{name}" for name in names]
    return "\n\n".join(parts)


def functions_of(match: re.Match[str]) -> str:
    """Return the functions of a file up to its second ruled comment, a heading and a block of code each."""
    text = (REPOSITORY / match[1]).read_text(encoding="utf-8")
    scripts = re.split(r"^# --- .*$", text, flags=re.MULTILINE)[1]
    parts = []
    for code in re.split(r"\n(?=def )", scripts.strip()):
        name = code.removeprefix("def ").partition("(")[0]
        parts.append(f"## {name.replace('_', ' ')}\n\n```python\n{code.strip()}\n```")
    return "\n\n".join(parts)


def source_of(uri: str) -> str:
    """Return where a page of the site lies in the repository."""
    for source, page in PAGES.items():
        if uri == page:
            return source
    return uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"


def uri_of(source: str) -> str:
    """Return where a file of the repository lies in the site."""
    if source == "README.md":
        return "index.md"
    if source in PAGES:
        return PAGES[source]
    return source.removeprefix("docs/") if source.startswith("docs/") else f"repository/{source}"


def targets(source: str) -> set[str]:
    """Return the files that a page of the repository links to, as paths from its top."""
    text = (REPOSITORY / source).read_text(encoding="utf-8")
    folder = posixpath.dirname(source)
    found = {posixpath.normpath(posixpath.join(folder, target)) for _, target, _ in LINK.findall(text)}
    return {target for target in found if (REPOSITORY / target).is_file()}


def on_files(files: Files, config) -> Files:
    """Add the pages of the repository's top, and what pages link to outside `docs`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    waiting = {source_of(file.src_uri) for file in files.documentation_pages()}
    done: set[str] = set()
    while waiting - done:
        source = (waiting - done).pop()
        done.add(source)
        for target in targets(source):
            if files.get_file_from_path(uri_of(target)) is None and not target.startswith("docs/"):
                files.append(File.generated(config, uri_of(target), abs_src_path=str(REPOSITORY / target)))
                if target.endswith(".md"):
                    waiting.add(target)
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Lead links to where the files lie in the site."""
    folder = posixpath.dirname(source_of(page.file.src_uri))

    def led(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        source = posixpath.normpath(posixpath.join(folder, target))
        if not (REPOSITORY / source).exists():
            # MkDocs says that it leads nowhere; but the history may name what is gone.
            return f"{before}changes.md{after}" if page.file.src_uri == "changes.md" else match.group()
        uri = uri_of(source)
        return f"{before}{posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{after}"

    markdown = FUNCTIONS.sub(functions_of, NAMES.sub(names_of, LINK.sub(led, markdown)))
    return COMMANDS.sub(lambda match: reference(match[1], match[2]), markdown)


def on_page_content(html: str, page, config, files: Files) -> str:
    """Keep options and dotted names whole: code of a line breaks at its spaces alone."""

    def words(match: re.Match[str]) -> str:
        parts = [f'<span class="word">{part}</span>' if len(part) <= 40 else part for part in match[1].split(" ")]
        return f"<code>{' '.join(parts)}</code>"

    return CODE.sub(words, html)
