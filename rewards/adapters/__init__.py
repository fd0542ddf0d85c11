"""Our rewards as reward functions of other trainers: TRL, EasyR1 and ms-swift.

All take the sample from a data column: the row of `rewards.rows.read_row` without `response`, as JSON text or as an
object. None of the trainers is imported.
"""
