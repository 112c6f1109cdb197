"""Text on its way to a terminal or into a shell."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twobuckets.text import UnquotableError, shell_word, visible, wrapped

ANY_TEXT = st.text(st.characters())

SHELLS = {
    "bash": ["bash", "--norc"],
    "dash": ["dash"],
    "zsh": ["zsh", "-f"],
    "mksh": ["mksh"],
    "busybox": ["busybox", "sh"],
    "fish": ["fish", "--no-config"],
}
INTERACTIVE = {
    # No terminal is needed for the history that expands "!".
    "bash": ["bash", "--norc", "-o", "history", "-o", "histexpand"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
# Everything that means something to one of them, and what `$'…'` was once made of.
_PIECES = [
    *("'", '"', "\\", "`", "$", "!", "#", ";", "&", "|", "(", ")", "<", ">", "{", "}", "[", "]"),
    *("~", "*", "?", "%", "=", "-", "^", "@", ":", ",", " ", "a", "7", "=ls", "%self", "!!", "$'"),
    *("touch PWNED", "$(touch PWNED)", "`touch PWNED`", "';touch PWNED;'", "\\x27", "\\n", "\\047"),
    *("\n", "\t", "\r", "\x1b[31m", "\x7f", "\x01", "\u202e", "\u2028", "\u3164", "\ue000", "é"),
    *("\udcff", "日本", "👩\u200d💻", "a\u200db", "❤\ufe0f", "\u3000"),
]
HOSTILE = st.lists(st.sampled_from(_PIECES), max_size=8).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
)
WORDS = st.lists(HOSTILE.filter(lambda text: not text.endswith("\n")), min_size=1, max_size=20)
ONCE_RAN_CODE = "\x7f';touch PWNED;#"


@given(ANY_TEXT)
@example("\x1b]0;owned\x07")
@example("\u202egnp.exe")
@example("a\u2028b\x9b31m")
@example("\u2800\u3164\ue000\u00a0\u034f\ufe0f")
def test_visible_text_acts_on_no_terminal_and_hides_nothing(text: str):
    shown = visible(text)
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    assert all(unicodedata.category(c) not in hidden or c in " \u3000\u200d" for c in shown)
    assert not {"\u2800", "\u3164", "\u115f", "\uffa0", "\u034f"} & set(shown)
    shown.encode("utf-8")


@given(
    st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="ㅤ⠀ﾠᅟᅠ") | st.just(" "))
)
def test_printable_text_of_any_script_stays_as_it_is(text: str):
    assert visible(text) == text


def test_hidden_characters_are_named():
    assert (
        visible("a\n\t\x1b[31m\u202e\udcff\U000e0001") == "a\\n\\t\\x1b[31m\\u202e\\xff\\U000e0001"
    )
    assert visible("[bold]k[/]") == "[bold]k[/]"
    assert visible("a\u00a0b\u2800\u3164\ue000") == "a\\xa0b\\u2800\\u3164\\ue000"


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d💻",
        "🏳\ufe0f\u200d🌈",
        "🧑🏽\u200d🚀",
        "❤\ufe0f",
        "葛\U000e0100城",
        "東京\u3000駅",
    ],
)
def test_what_shapes_an_emoji_or_an_ideograph_stays(text: str):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200db", "a\\u200db"),
        ("💻\u200d", "💻\\u200d"),
        ("a\ufe0f", "a\\ufe0f"),
        ("a\ufe0f\u200d💻", "a\\ufe0f\\u200d💻"),
        ("❤\ufe0f\ufe0f", "❤\ufe0f\\ufe0f"),
        ("é\U000e0100", "é\\U000e0100"),
    ],
)
def test_what_would_shape_nothing_is_named(text: str, shown: str):
    assert visible(text) == shown


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=50)
@given(WORDS)
@example([ONCE_RAN_CODE])
@example(["", "a\\", "'", "=ls", "%self", "-n\x01", "\x1b7", "\n\na", "x !! \\'!a", "\udcff7"])
def test_every_shell_reads_a_word_back_exactly_and_runs_nothing_of_it(
    tmp_path_factory, shell: str, texts: list[str]
):
    read_back(tmp_path_factory.mktemp("cwd"), [*SHELLS[shell], "-c"], texts)


@pytest.mark.parametrize("shell", INTERACTIVE)
@settings(max_examples=20, deadline=None)
@given(WORDS)
@example([ONCE_RAN_CODE, "a!b", "\\'a!b", "!!", "\x07!a"])
def test_pasted_into_a_shell_with_a_history_a_word_stays_what_it_is(
    tmp_path_factory, shell: str, texts: list[str]
):
    read_back(tmp_path_factory.mktemp("cwd"), INTERACTIVE[shell], texts)


def read_back(folder, program: list[str], texts: list[str]) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"there is no {program[0]}")
    line = f"printf '%s\\0' {' '.join(map(shell_word, texts))}"
    is_argument = program[-1] == "-c"
    done = subprocess.run(
        [*program, line] if is_argument else program,
        input=None if is_argument else f"printf '%s' a\n{line}\n".encode(),
        capture_output=True,
        cwd=folder,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": str(folder.parent)},
        # Not the terminal of whoever runs the tests.
        start_new_session=True,
    )
    expected = b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
    assert done.stdout == (expected if is_argument else b"a" + expected), done.stderr
    assert list(folder.iterdir()) == []


@given(WORDS)
def test_a_shell_word_is_itself_safe_to_show(texts: list[str]):
    for text in texts:
        assert visible(shell_word(text)) == shell_word(text)


@pytest.mark.parametrize("text", ["a\n", "\n", "a\0b", "\ud800"])
def test_a_text_that_no_word_can_hold_gives_none_or_what_stands_for_it(text: str):
    with pytest.raises(UnquotableError):
        shell_word(text)
    assert shell_word(text, otherwise="KEY") == "KEY"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a/b-c_1.csv", "a/b-c_1.csv"),
        ("a b", "'a b'"),
        ("it's", "'it'\\''s'"),
        ("a\nb", "\"$(printf 'a\\012b')\""),
    ],
)
def test_a_word_is_as_short_as_it_may_be(text: str, word: str):
    assert shell_word(text) == word


@given(
    st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1)), st.integers(10, 80)
)
def test_prose_is_broken_between_words_only(words: list[str], width: int):
    sentence = " ".join(word.replace("`", "") or "x" for word in words)
    lines = wrapped(sentence, width, "  ").splitlines()
    assert " ".join(line.removeprefix("  ") for line in lines) == sentence
    assert all(len(line) <= width or " " not in line.strip() for line in lines)


def test_a_command_in_prose_stays_on_one_line():
    text = "Somebody has to run `twobuckets --stack intake reprocess --failed` for that."
    lines = wrapped(text, 40, "    ", "Error: ").splitlines()
    assert lines[0] == "Error: Somebody has to run"
    assert lines[1] == "    `twobuckets --stack intake reprocess --failed`"
