"""Text on its way to a terminal or into a shell."""

from __future__ import annotations

import subprocess
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twobuckets.text import shell_word, visible

ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT)
@example("\x1b]0;owned\x07")
@example("\u202egnp.exe")
@example("a\u2028b\x9b31m")
def test_visible_text_acts_on_no_terminal(text: str):
    shown = visible(text)
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert all(unicodedata.category(c) not in hidden or c == "\u200d" for c in shown)
    shown.encode("utf-8")


@given(st.text(st.characters(categories=["L", "N", "P", "S"]) | st.just(" ")))
def test_printable_text_of_any_script_stays_as_it_is(text: str):
    assert visible(text) == text


def test_hidden_characters_are_named():
    assert (
        visible("a\n\t\x1b[31m\u202e\udcff\U000e0001") == "a\\n\\t\\x1b[31m\\u202e\\xff\\U000e0001"
    )
    assert visible("[bold]k[/]") == "[bold]k[/]"


@settings(max_examples=60)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example('it\'s\na "key" with $HOME `x` \\ and ! \x1b[0m \u202e')
@example("\x7f0\x85f")
def test_bash_reads_a_shell_word_back_exactly(text: str):
    echoed = subprocess.run(
        ["bash", "-c", f"printf %s {shell_word(text)}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    ).stdout
    assert echoed == text.encode("utf-8")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u202e"])
def test_a_shell_word_is_itself_safe_to_show(text: str):
    assert visible(shell_word(text)) == shell_word(text)
