"""A data set of moving shapes made from nothing, and the verb that takes it through every stage."""
