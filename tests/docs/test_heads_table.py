"""The table of docs/heads.md lists the registered heads, each with the first line of its docstring.

To renew it, replace the table by what `python -m tests.docs.test_heads_table` prints.
"""

from __future__ import annotations

from pathlib import Path

from nnunetv2.utilities import extensions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "heads.md"


def table() -> str:
    heads = [extensions.find("head", name) for name in extensions.names("head")]
    return "\n".join(f"| `{head.name}` | {head.summary} |" for head in heads)


def test_the_table_lists_every_head() -> None:
    assert f"|---|---|\n{table()}\n\n" in PAGE.read_text(encoding="utf-8")


def test_every_head_is_described() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Which head?")[2].partition("\n## ")[0]
    assert [name for name in extensions.names("head") if f"**`{name}`**" not in text] == []


if __name__ == "__main__":
    print(table())
