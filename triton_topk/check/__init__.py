"""The check compares the losses with their definitions, on the machine where they are installed."""
