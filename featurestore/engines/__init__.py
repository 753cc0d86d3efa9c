"""Engines that move rows between machines and never make a value: in each of their partitions the kernel of training, or of materialize, does.

What an engine must do is to read files, to bring the rows of one key together, to give the batches of a partition to a task, and to
write what it gives: `steps` says which rows go where, `tasks` what runs there, and each engine is a folder beside them.
"""
