"""The verb `sweep`: many runs of one config with other values, and the page that compares them."""
