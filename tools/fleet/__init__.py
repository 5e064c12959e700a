"""`flchain fleet`: how all boards do, and updates that go through them tranche by tranche.

`roster` judges boards by their words, `rollout` decides how an update goes on (both pure); `link` listens and speaks,
`folder` holds keys and the state of a rollout, `update` drives one; `table` and `progress` show them.
"""
