"""Judges of answers, the store of their verdicts, and the test that a judge must pass before its verdicts count.

No model of a run is loaded here: judges read texts.
"""
