"""How a command is recorded: said to a journal on disk first, and delivered from there to MLflow, in order and once.

`runs` has the words for the rest of the package: a run, and what is said of it. `journal` keeps that on disk; `deliver`
takes it from there to MLflow's client; `command` begins and ends the record of a command.
"""
