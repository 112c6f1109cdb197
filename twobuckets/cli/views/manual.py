"""How the manual looks: laid out on a terminal, as Markdown in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.markdown import Markdown
from rich.text import Text

from twobuckets.cli.views import View, Views
from twobuckets.manual import ManualPage, Topic

if TYPE_CHECKING:
    from rich.console import RenderableType


def _topic(topic: Topic) -> Text:
    return Text(f"{topic.topic:<14}", style="bold").append(topic.says, style="not bold")


def _page(page: ManualPage) -> RenderableType:
    return Markdown(page.text, hyperlinks=False, code_theme="ansi_dark")


def _page_text(page: ManualPage) -> str:
    return page.text.rstrip("\n")


VIEWS: Final[Views] = {
    Topic: View(_topic),
    ManualPage: View(_page, _page_text),
}
