"""What data may pass: the only users of Great Expectations. Importing it sets the environment of a run first."""

from preflow.environment import activate

activate()
