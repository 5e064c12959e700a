"""The worker processes that train and score, and the frames that go between them and the agent."""
