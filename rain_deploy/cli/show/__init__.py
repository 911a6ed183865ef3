"""What several commands show: text, tables, progress, JSON."""
