"""How links that open the upload page look to a person."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, remote
from twobuckets.links.listing import ListedLink
from twobuckets.links.minting import MintedLink, RevokedLink
from twobuckets.units import counted, format_bytes


def _minted(link: MintedLink) -> Text:
    # Alone, for a pipe or a message.
    return Text(link.url)


def _revoked(link: RevokedLink) -> Text:
    return Text.assemble("revoked  ", (link.id, "bold"), "  ", remote(link.prefix))


def _listed(link: ListedLink) -> Text:
    line = Text.assemble((link.id, "bold"), "  ", remote(link.prefix))
    if link.title:
        line.append("  ").append_text(remote(link.title, "dim"))
    until = "expired " if link.is_expired else "until "
    line.append(f"  {until}{shown(link.expires_at)}", "yellow" if link.is_expired else "")
    line.append(f"  {counted(link.files, 'file')} so far")
    if link.max_files is not None:
        line.append(f", {link.claimed} of {link.max_files} begun")
    return line.append(f"  up to {format_bytes(link.max_bytes)} each", "dim")


VIEWS: Final[Views] = {
    MintedLink: View(_minted),
    RevokedLink: View(_revoked),
    ListedLink: View(_listed),
}
