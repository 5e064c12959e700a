"""The worker processes that train and score, and the frames they are spoken to with."""
