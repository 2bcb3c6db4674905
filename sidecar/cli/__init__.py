"""The commands: the only place that prints and picks exit codes."""
