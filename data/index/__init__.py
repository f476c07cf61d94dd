"""What is known of all clips without reading clips.jsonl: columns, keys of captions, where each frame lies."""
