"""What a region knows of the platform: the door that checks every record, and the table behind it."""
