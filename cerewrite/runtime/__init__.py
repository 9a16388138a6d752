"""Running a user's module and leaving it as it was: modes, precision, trees, clock."""
