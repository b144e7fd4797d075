"""The measuring laboratory: everything that compares this project with others or itself.

It belongs to the repository, not to the wheel. ``paragonsr2 benchmark`` finds it in a checkout.
Run the scripts (``python benchmark/loader.py``); import the rest (``from benchmark.peers import
build_peer``) with the root of the repository on ``sys.path``.
"""
