"""Search a collection of videos: the index, the search, and the page."""
