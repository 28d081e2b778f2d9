"""What ``preflow doctor`` looks at before a run: this machine, versions, servers; each check is one line with a remedy.

No repair and nothing that runs a stage belongs here.
"""
