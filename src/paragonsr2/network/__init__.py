"""The networks; start with :mod:`paragonsr2.network.generator`."""
