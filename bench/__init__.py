"""Every figure that the docs quote, measured on real parts: `python -m bench --help`."""
