"""What a finished run's own measurements say went wrong, and the one setting to change first.

Pure functions over numbers that other stages left: nothing here loads a model, and no stage reads what is found.
"""
