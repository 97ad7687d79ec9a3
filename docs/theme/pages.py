"""Pages made of files outside of docs/: the first screen of README.md, CHANGELOG.md and CONTRIBUTING.md.

Links are rewritten to lead to pages of the site. The address of the repository comes from pyproject.toml
or from the workflow that builds the site. Without either, the site has no link to it.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

_ROOT = Path(__file__).resolve().parent.parent.parent
_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
_MARK, _END = "<!-- first screen of README.md -->", "<!-- end of the first screen -->"
_PICTURE = re.compile(r'<picture>.*?<img alt="([^"]*)" src="(\S+)-light\.svg".*?</picture>', re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|img/)([^)#\s]+)(#[^)\s]*)?\)")


def _repository() -> str:
    declared = re.search(
        r'^\s*Repository\s*=\s*"(.+)"', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    if declared:
        return declared[1]
    server, name = (os.environ.get(f"GITHUB_{part}") for part in ("SERVER_URL", "REPOSITORY"))
    return f"{server}/{name}" if server and name else ""


def _link(match: re.Match) -> str:
    """A link to a page of the site; the words alone, where the file is none of its pages."""
    text, path, anchor = match[1], match[2], match[3] or ""
    if path in _PAGES or path.startswith("docs/"):
        return f"[{text}]({_PAGES.get(path, path.removeprefix('docs/'))}{anchor})"
    return text


def _of_site(markdown: str) -> str:
    """Markdown of the repository's root, as the site shows it."""
    markdown = _PICTURE.sub(
        r"![\1](\2-light.svg#only-light){ .chart }" + "\n" + r"![\1](\2-dark.svg#only-dark){ .chart }",
        markdown,
    ).replace("](docs/img/", "](img/")
    return _LINK.sub(_link, markdown)


def on_config(config, **_):
    if not config.repo_url and (url := _repository()):
        config.repo_url = url
        config.edit_uri = ""
    return config


def on_files(files, config, **_):
    for source in ("CHANGELOG.md", "CONTRIBUTING.md"):
        text = _of_site((_ROOT / source).read_text())
        files.append(File.generated(config, _PAGES[source], content=text))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    if page.file.src_uri != "index.md":
        return markdown
    first, found, _rest = (_ROOT / "README.md").read_text().partition(_END)
    if not found or _MARK not in markdown:
        raise ValueError(f"README.md must have {_END}, and docs/index.md {_MARK}")
    return markdown.replace(_MARK, _of_site(first))
