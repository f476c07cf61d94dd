"""Reads a page as a browser would, and is stricter."""

from html.parser import HTMLParser

_VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects tags and links of a page; fails on tags that are not closed in order.

    Attributes:
      tags: names of all elements in order.
      links: values of `src`, `href` and `srcset`, without those that point into the page.
      text: what a reader sees, with single blanks.
    """

    def __init__(self, text):
        super().__init__()
        self._open, self.tags, self.links, self._words = [], [], [], []
        self.feed(text)
        assert self._open == []
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset") and not value.startswith("#")]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self._words.append(data)
