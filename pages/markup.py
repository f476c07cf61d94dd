"""HTML as values: text is escaped when it is inserted, markup is not."""

import html
from collections.abc import Iterable

_VOID = {"br", "hr", "img", "input"}


class Html(str):
    """A string of HTML. All blocks of this folder escape any other string and insert this one as it is.

    Formatting or adding gives a plain `str` again, which is then escaped: a mistake shows on the page and injects
    nothing.
    """

    __slots__ = ()


def escape(value: object) -> Html:
    """Return the HTML of a value: itself if it is `Html`, else its text with `& < > " '` escaped.

    >>> escape("a <b> & c"), escape(Html("<b>bold</b>")), escape(3)
    ('a &lt;b&gt; &amp; c', '<b>bold</b>', '3')
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[object], *, by: str = "") -> Html:
    """Escape the parts and join them; `by` is HTML.

    >>> join(["1 < 2", tag("br"), "next"])
    '1 &lt; 2<br>next'
    """
    return Html(by.join(map(escape, parts)))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
      name: of the element.
      *children: its content; escaped unless `Html`.
      **attributes: a trailing underscore is dropped (`class_`), other underscores become hyphens. "" and None leave the
        attribute out, except that `alt` may be empty.

    >>> tag("td", "1 < 2", class_="text", title="")
    '<td class="text">1 &lt; 2</td>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and (value != "" or key == "alt")
    )
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(children)}</{name}>")
