"""Building blocks of every report: page shell, style sheet, tables, tiles, charts and thumbnails."""
