"""A recipe for a person's own files (`preflow init`): what the files hold, which profile fits, and its text.

Reading their rows as training does is the library's part.
"""
