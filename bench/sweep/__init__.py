"""Launch configurations beside those of the table are timed, each as the kernel alone."""
