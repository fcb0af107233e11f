"""Lists that are read page by page (AIP-158)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item")
Page = TypeVar("Page", bound=Message)


class Pages(Generic[Item, Page]):
    """All items of a list: the first page is read at once, the others as the items are asked for.

    May be walked several times; the pages after the first are then read again.
    """

    def __init__(self, first: Page, fetch: Callable[[str], Page], items: str) -> None:
        self.first = first
        self._fetch = fetch
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        for page in self.pages():
            yield from getattr(page, self._items)

    def pages(self) -> Iterator[Page]:
        """Yield the pages themselves, for what they tell beside the items."""
        page = self.first
        yield page
        while token := getattr(page, "next_page_token"):  # noqa: B009 - the type is only known to the caller
            page = self._fetch(token)
            yield page
