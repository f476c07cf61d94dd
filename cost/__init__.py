"""What a step costs: FLOPs from its trace, memory and collectives from the compiled program, time on a given chip."""
