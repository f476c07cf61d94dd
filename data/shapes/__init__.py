"""The data set that the demo makes: moving shapes with captions."""
