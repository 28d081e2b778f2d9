"""What keeps servers, workers and people together: servers on this machine, notifications, slots, decisions.

What only looks belongs to `flows/health/`, what runs stages to `flows/running/`.
"""
