"""The losses against their definitions, on the machine where they are installed."""
