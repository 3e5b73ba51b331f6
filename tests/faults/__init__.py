"""Faults, injected: what an index survives. Each module here is a class of faults with `run`, see `outcome`.

PYTHONPATH=tests python -m faults damage --count 2000 --seed 7      # one class
make torture CLASS=damage SEED=7 COUNT=2000                         # the same, recorded in results.json
"""
