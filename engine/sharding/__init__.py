"""Where each array lies: the mesh of the devices, and one table of rules for what is split over it."""
