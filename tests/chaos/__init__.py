"""A project whose processes are killed, again and again, while its online store restarts, loses and goes back.

`world` is the project, `roles` what its processes do, `storm` what happens to them, and `check` what must hold afterwards.
`python -m tests.chaos --rounds 200` runs it for as long as one wants; tests/test_chaos_lmdb.py and test_chaos_redis.py run some rounds of it.
"""
