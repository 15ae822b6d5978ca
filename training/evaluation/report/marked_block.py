"""A block of a text between two marks, which a command writes again and again."""

from __future__ import annotations


def replaced_block(text: str, begin: str, content: str, end: str) -> str | None:
    """The text with new content between two marks, or None if it has no such marks.

    Args:
        text: The text, such as a page of Markdown.
        begin: The mark before the block.
        content: What is put between the marks, on lines of its own.
        end: The mark behind the block; another block before or behind it may end with the same.
    """
    before, found, rest = text.partition(begin)
    _, ended, behind = rest.partition(end)
    if not (found and ended):
        return None
    return f"{before}{begin}\n{content}\n{end}{behind}"
