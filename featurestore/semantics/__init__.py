"""What a value is: a function of a key and an instant, of the rows known at that instant and of nothing else.

0  time      as_of, known_by, due and served instants                         `time`
1  rows      from which instant to which a row counts: (a) known, (b) current, (c) visible within ttl or window    `rows`, `windows`
2  order     which of two rows is the later one, ties included                `order`
3  folds     what several rows add up to                                      `folds`
4  judging   the status of a value, and its default                           `status`, `judge`

Two more lie where they are carried out. 5, late values are served with a mark or withheld: `Timing.is_late`, `serving.view_readers`. 6, what is online is true for
an instant: the keys that may have changed in `query.changed_keys`, the instant of pushed rows in `online.source_state`. 7,
a retry changes nothing, in `push.deduplicate`. Each rule has one home, its SQL form beside its Python form; `tests/test_rule_homes.py` holds it.
"""
