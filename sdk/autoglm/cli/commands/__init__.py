"""The commands: each reads what it was given, asks the client, and shows the answer; all else is in the modules above."""
