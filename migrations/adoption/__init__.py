"""From the old server's database to this one's, without losing a row that the promises do not forbid.

`shape` says what the tables are to be at revision b5d0c2f4a917, `catalog` what they are, `plan` which steps lie
between. The revision runs the steps; `python -m migrations.adoption --dry-run` counts what each would touch.
"""
