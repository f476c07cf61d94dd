"""Models of ours for other programs: folders of transformers and open_clip, StableHLO programs."""
