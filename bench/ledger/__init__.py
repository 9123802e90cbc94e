"""The kernel ledger holds what the compiler makes of the kernels; tests compare with reports/kernels.json."""
