"""The kernel ledger: what the compiler makes of the kernels, kept in reports/kernels.json and checked by the tests."""
