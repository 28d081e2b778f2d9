"""What keeps servers, workers and people together: local servers, killed runs, notifications, slots, decisions.

What only looks belongs to `flows/health/`, what runs stages to `flows/running/`.
"""
