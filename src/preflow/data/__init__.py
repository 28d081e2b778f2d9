"""Reading rows, rendering chat templates, token masks, splits."""
