"""The ruler for quality, the cost of a network, the clock, and the machine they ran on."""
