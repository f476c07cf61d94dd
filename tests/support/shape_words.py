"""What a reader would accept as naming a shape or a motion of the demo's clips, as regular expressions."""

SHAPE = {
    "disc": "disc|circle",
    "ring": "ring|hoop",
    "square": "square|box",
    "triangle": "triangle",
    "star": "star",
    "cross": "cross|plus sign",
}
MOTION = {
    "slides left": "(slides|moves|goes) (to the )?left",
    "slides right": "(slides|moves|goes) (to the )?right",
    "falls": "falls|drops|moves down|sinks",
    "rises": "rises|goes up|moves up|climbs",
    "turns": "turns|spins|rotates",
    "grows": "grows|gets bigger|swells",
    "shrinks": "shrinks|gets smaller|dwindles",
    "fades": "fades|slowly vanishes",
}
