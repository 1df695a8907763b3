"""Running commands in processes that end when they are told to, with all that they started."""
